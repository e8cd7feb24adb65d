//! The fused operations of flex and of GPUs against the reference implementation on ndarray: values and the gradients
//! of all inputs, at odd sizes, with padding, a sequence of nothing but padding, and dropout.

use bert_model::ops;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::floats;
use crate::support::{assert_close, bound_on, devices};

#[test]
fn elementwise_operations() {
    let values: Vec<f32> = (0..37 * 19).map(|i| ((i * 7919) % 1000) as f32 / 90.0 - 5.5).collect();
    let weights: Vec<f32> = (0..37 * 19).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = |device: &Device, operation: &dyn Fn(Tensor<2>) -> Tensor<2>| {
        let tensor = |values: &Vec<f32>| Tensor::<2>::from_data(TensorData::new(values.clone(), [37, 19]), device);
        let x = tensor(&values).autodiff().require_grad();
        ops::dropout::seed(11, 0);
        let y = operation(x.clone());
        let gradients = (y.clone() * tensor(&weights)).sum().backward();
        (floats(y.inner()), floats(x.grad(&gradients).unwrap()))
    };
    let operations: [(&str, &dyn Fn(Tensor<2>) -> Tensor<2>); 3] =
        [("gelu", &ops::gelu), ("softmax", &ops::softmax), ("dropout", &|x| ops::dropout(x, 0.3))];
    for (name, operation) in operations {
        let expected = run(&devices()[1].1, operation);
        for (backend, device) in devices() {
            let found = run(&device, operation);
            assert_close(&format!("{name} on {backend}"), &found.0, &expected.0, 3e-6);
            assert_close(&format!("gradient of {name} on {backend}"), &found.1, &expected.1, 3e-6);
        }
    }
}

#[test]
fn attention() {
    let attend = |inputs: &[Tensor<3>], device: &Device, dropout: Option<f64>| {
        let [query, key, value] = [0, 1, 2].map(|index: usize| inputs[index].clone());
        let padding = padding(query.dims()[1], device);
        ops::attention(query, key, value, padding, 2, dropout)
    };
    compare("attention", &[[3, 5, 6]; 3], absolute, |inputs, device| attend(inputs, device, None));
    compare("attention with dropout", &[[3, 5, 6]; 3], absolute, |inputs, device| attend(inputs, device, Some(0.4)));
    // More queries than one block has.
    compare("attention, long", &[[3, 300, 6]; 3], absolute, |inputs, device| attend(inputs, device, Some(0.1)));
}

#[test]
fn self_attention() {
    let attend = |inputs: &[Tensor<3>], device: &Device, dropout: Option<f64>| {
        let projections = [1, 3, 5].map(|index: usize| (matrix(&inputs[index]), vector(&inputs[index + 1])));
        let padding = padding(inputs[0].dims()[1], device);
        ops::self_attention(inputs[0].clone(), projections, padding, 2, dropout)
    };
    let shapes = |tokens, width| {
        let projection = [[1, width, width], [1, 1, width]];
        [vec![[3, tokens, width]], [projection; 3].concat()].concat()
    };
    // A key bias shifts all scores of a query alike: its gradient, number 5 here, is 0 but for rounding.
    let bound = |index, largest| if index == 5 { 1e-2 } else { relative(index, largest) };
    compare("self-attention", &shapes(5, 6), bound, |inputs, device| attend(inputs, device, None));
    compare("self-attention with dropout", &shapes(31, 6), bound, |inputs, device| attend(inputs, device, Some(0.4)));
    compare("self-attention, long", &shapes(129, 62), bound, |inputs, device| attend(inputs, device, Some(0.1)));
}

#[test]
fn layer_norm_and_residual_sums() {
    let [row, vector_shape] = [[3, 5, 19], [1, 1, 19]];
    compare("layer norm", &[row, vector_shape, vector_shape], absolute, |inputs, _| {
        ops::layer_norm(inputs[0].clone(), vector(&inputs[1]), vector(&inputs[2]), 1e-12)
    });
    for dropout in [None, Some(0.4)] {
        let name = format!("add and norm, dropout {dropout:?}");
        compare(&name, &[row, row, vector_shape, vector_shape], absolute, |inputs, _| {
            let [x, residual] = [0, 1].map(|index: usize| inputs[index].clone());
            ops::add_norm(residual, x, dropout, vector(&inputs[2]), vector(&inputs[3]), 1e-12)
        });
    }
    for (width, dropout) in [(3, None), (129, Some(0.4)), (768, Some(0.1))] {
        let vector_shape = [1, 1, width];
        let shapes = [[3, 31, 13], [1, 13, width], vector_shape, [3, 31, width], vector_shape, vector_shape];
        let name = format!("linear, add and norm, width {width}, dropout {dropout:?}");
        compare(&name, &shapes, relative, |inputs, _| {
            let dense = (matrix(&inputs[1]), vector(&inputs[2]));
            let norm = (vector(&inputs[4]), vector(&inputs[5]));
            ops::linear_add_norm(inputs[0].clone(), dense, inputs[3].clone(), dropout, norm, 1e-12)
        });
    }
}

#[test]
fn dense_layers() {
    compare("linear", &[[3, 5, 19], [1, 19, 23], [1, 1, 23]], absolute, |inputs, _| {
        ops::linear(inputs[0].clone(), matrix(&inputs[1]), vector(&inputs[2]))
    });
    compare("linear and gelu", &[[3, 31, 19], [1, 19, 129], [1, 1, 129]], relative, |inputs, _| {
        ops::linear_gelu(inputs[0].clone(), matrix(&inputs[1]), vector(&inputs[2]))
    });
    // More outputs than one block has.
    compare("linear, transposed", &[[1, 7, 19], [1, 523, 19], [1, 1, 523]], absolute, |inputs, _| {
        ops::linear_transposed(matrix(&inputs[0]), matrix(&inputs[1]), vector(&inputs[2])).unsqueeze()
    });
}

#[test]
fn embeddings() {
    let shapes = [[3, 5, 129], [1, 7, 129], [1, 3, 129], [1, 1, 129], [1, 1, 129]];
    for dropout in [None, Some(0.3)] {
        compare(&format!("embeddings, dropout {dropout:?}"), &shapes, relative, |inputs, device| {
            let type_ids = Tensor::<2, Int>::from_data([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 2, 1, 0]], device);
            let [positions, types] = [1, 2].map(|index: usize| matrix(&inputs[index]));
            let norm = (vector(&inputs[3]), vector(&inputs[4]));
            ops::embed(inputs[0].clone(), positions, (types, type_ids), norm, 1e-12, dropout)
        });
    }
}

#[test]
fn cross_entropy() {
    compare("cross-entropy", &[[1, 7, 37]], absolute, |inputs, device| {
        let targets = Tensor::<1, Int>::from_data([0, 36, 5, 5, 17, 35, 8], device);
        ops::cross_entropy(matrix(&inputs[0]) * 4.0, targets).reshape([1, 7, 1])
    });
}

/// Compares the output of an operation (number 0) and the gradients of its inputs (numbers 1, 2, …) on every backend
/// with those on ndarray. `bound` is the largest difference that is allowed for a number, given the largest magnitude.
fn compare(
    name: &str,
    shapes: &[[usize; 3]],
    bound: impl Fn(usize, f32) -> f32,
    operation: impl Fn(&[Tensor<3>], &Device) -> Tensor<3>,
) {
    let run = |device: &Device| {
        let input = |(seed, shape): (usize, &[usize; 3])| {
            let data = TensorData::new(numbers(shape.iter().product(), seed), *shape);
            Tensor::<3>::from_data(data, device).autodiff().require_grad()
        };
        let inputs: Vec<Tensor<3>> = shapes.iter().enumerate().map(input).collect();
        ops::dropout::seed(11, 0);
        let output = operation(&inputs, device);
        let weights = TensorData::new(numbers(output.shape().num_elements(), 9), output.dims());
        let gradients = (output.clone() * Tensor::from_data(weights, device)).sum().backward();
        let mut values = vec![floats(output.inner())];
        values.extend(inputs.iter().map(|input| floats(input.grad(&gradients).unwrap())));
        values
    };
    let expected = run(&devices()[1].1);
    for (backend, device) in devices() {
        for (index, (found, expected)) in run(&device).iter().zip(&expected).enumerate() {
            let largest = expected.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
            let bound = bound_on(backend, name, bound(index, largest));
            assert_close(&format!("{name} on {backend}, {index}"), found, expected, bound);
        }
    }
}

/// The bound of operations with short sums.
fn absolute(_index: usize, _largest: f32) -> f32 {
    2e-5
}

/// The bound of operations with sums of hundreds of terms: rounding relative to the largest.
fn relative(_index: usize, largest: f32) -> f32 {
    2e-5 * largest
}

/// Numbers between −1.6 and 1.8 that look random.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 31 * seed) * 7919) % 1013) as f32 / 300.0 - 1.6).collect()
}

/// The padding of three sequences, `[3, tokens]`: none in the first, nothing else in the second, three of every five
/// tokens of the third.
fn padding(tokens: usize, device: &Device) -> Tensor<2, Bool> {
    let is_padding = |place: usize| [0, 1, i32::from(place % tokens % 5 >= 2)][place / tokens];
    let padding = TensorData::new((0..3 * tokens).map(is_padding).collect::<Vec<i32>>(), [3, tokens]);
    Tensor::<2, Int>::from_data(padding, device).equal_elem(1)
}

/// `[1, R, C]` as `[R, C]`.
fn matrix(x: &Tensor<3>) -> Tensor<2> {
    x.clone().squeeze_dim(0)
}

/// `[1, 1, C]` as `[C]`.
fn vector(x: &Tensor<3>) -> Tensor<1> {
    let [_, _, columns] = x.dims();
    x.clone().reshape([columns])
}
