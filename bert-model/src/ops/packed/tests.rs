use super::*;
use crate::ops::gemm::{View, Write};

/// Reproducible numbers from −1 to 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Rows, inputs and outputs: odd sizes, and those of real models.
const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [1, 64, 16],
    [2, 3, 5],
    [7, 33, 17],
    [13, 66, 100],
    [16, 128, 48],
    [31, 257, 33],
    [33, 312, 80],
    [50, 384, 1152],
];

/// The integers of a left operand and of packed weights, multiplied one by one.
fn integer_sums(layer: &PackedLinear, left: &Left) -> Vec<i32> {
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let weight = |index: usize, column: usize| {
        let line = &layer.lines[column / PANEL * layer.words + index / 4].0;
        i32::from((line[column % PANEL] >> (8 * (index % 4))) as i8)
    };
    let value = |row: usize, index: usize| {
        // SAFETY: the row has a word for every four inputs.
        let word = unsafe { left.row(row).add(index / 4).read() };
        i32::from((word >> (8 * (index % 4))) as u8)
    };
    let sum = |at| {
        let (row, column) = (at / outputs, at % outputs);
        (0..inputs).map(|index| value(row, index) * weight(index, column)).sum()
    };
    (0..left.rows() * outputs).map(sum).collect()
}

fn with_kernel(mut layer: PackedLinear, kernel: Kernel) -> PackedLinear {
    layer.kernel = kernel;
    layer
}

#[test]
fn integer_sums_are_exact() {
    for [rows, inputs, outputs] in SHAPES {
        let (mut weights, mut x) = (numbers(inputs * outputs, 1), numbers(rows * inputs, 2));
        // The largest sums: all products have the same sign.
        weights.iter_mut().step_by(outputs).for_each(|weight| *weight = 1.0);
        x[..inputs].fill(1.0);
        let mut left = Left::default();
        left.set(Precision::Int8, &x, inputs);
        for kernel in kernels(Precision::Int8) {
            let zeros = vec![0.0; outputs];
            let mut layer = with_kernel(PackedLinear::new(Precision::Int8, inputs, &[(&weights, &zeros)]), kernel);
            let sums = integer_sums(&layer, &left);
            // Without scales and zero points the output is the sums themselves.
            layer.scales.fill(1.0);
            left.unscale();
            let mut output = vec![0.0; rows * outputs];
            layer.forward(&left, End::Bias, &mut output);
            let expected: Vec<f32> = sums.iter().map(|&sum| sum as f32).collect();
            assert!(sums.iter().all(|sum| sum.abs() < 1 << 24), "sums that f32 cannot hold");
            assert_eq!(output, expected, "{}, {rows}×{inputs}×{outputs}", kernel.name);
        }
    }
}

#[test]
fn products_are_right_in_every_precision() {
    for [rows, inputs, outputs] in SHAPES {
        let (weights, bias, x) = (numbers(inputs * outputs, 3), numbers(outputs, 4), numbers(rows * inputs, 5));
        for (precision, bound) in [(Precision::F32, 3e-6), (Precision::Bf16, 4e-3), (Precision::Int8, 12e-3)] {
            let mut left = Left::default();
            left.set(precision, &x, inputs);
            for kernel in kernels(precision) {
                let layer = with_kernel(PackedLinear::new(precision, inputs, &[(&weights, &bias)]), kernel);
                let mut output = vec![f32::NAN; rows * outputs];
                layer.forward(&left, End::Bias, &mut output);
                for (at, value) in output.iter().enumerate() {
                    let (row, column) = (at / outputs, at % outputs);
                    let products = (0..inputs)
                        .map(|index| f64::from(x[row * inputs + index]) * f64::from(weights[index * outputs + column]));
                    let expected = products.sum::<f64>() + f64::from(bias[column]);
                    let error = (f64::from(*value) - expected).abs();
                    let bound = bound * (1.0 + (inputs as f64).sqrt());
                    assert!(error < bound, "{}, {rows}×{inputs}×{outputs} at {at}: {value}, {expected}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others_nor_on_the_threads() {
    let [rows, inputs, outputs] = [70, 384, 200];
    let (weights, bias, x) = (numbers(inputs * outputs, 3), numbers(outputs, 4), numbers(rows * inputs, 5));
    let pools = [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let layer = PackedLinear::new(precision, inputs, &[(&weights, &bias)]);
        let forward = |x: &[f32]| {
            let (mut left, mut output) = (Left::default(), vec![0.0; x.len() / inputs * outputs]);
            left.set(precision, x, inputs);
            layer.forward(&left, End::Gelu, &mut output);
            output
        };
        let all = pools.each_ref().map(|pool| pool.install(|| forward(&x)));
        assert_eq!(all[0], all[1], "{precision:?}");
        for first in [0, 1, 8, 33, 69] {
            let one = forward(&x[first * inputs..][..inputs]);
            assert_eq!(one, all[0][first * outputs..][..outputs], "{precision:?}, row {first}");
        }
    }
}

#[test]
fn layers_side_by_side_are_those_layers() {
    let [rows, inputs] = [5, 40];
    let x = numbers(rows * inputs, 5);
    let layers = [7, 16, 30].map(|outputs| (numbers(inputs * outputs, outputs as u64), numbers(outputs, 9)));
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let mut left = Left::default();
        left.set(precision, &x, inputs);
        let forward = |layers: &[(&[f32], &[f32])]| {
            let layer = PackedLinear::new(precision, inputs, layers);
            let mut output = vec![0.0; rows * layer.outputs()];
            layer.forward(&left, End::Bias, &mut output);
            output
        };
        let views = layers.each_ref().map(|(weights, bias)| (&weights[..], &bias[..]));
        let together = forward(&views);
        let each = views.map(|layer| forward(&[layer]));
        for row in 0..rows {
            let alone: Vec<f32> =
                each.iter().flat_map(|x| x[row * x.len() / rows..][..x.len() / rows].to_vec()).collect();
            assert_eq!(together[row * alone.len()..][..alone.len()], alone, "{precision:?}");
        }
    }
}

#[test]
fn weights_come_back_as_they_were_rounded() {
    let (inputs, outputs) = (35, 21);
    let weights = numbers(inputs * outputs, 6);
    for (precision, bound) in [(Precision::F32, 0.0), (Precision::Bf16, 1.0 / 256.0), (Precision::Int8, 0.5001 / 127.0)]
    {
        let bias = numbers(outputs, 7);
        let layer = PackedLinear::new(precision, inputs, &[(&weights, &bias)]);
        assert_eq!(layer.bias(), bias);
        for (found, weight) in layer.weights().iter().zip(&weights) {
            assert!((found - weight).abs() <= bound, "{precision:?}: {found}, {weight}");
        }
    }
}

#[test]
fn integers_of_a_row_are_within_half_a_step() {
    for (x, count) in [(numbers(100, 8), 100), (vec![0.0; 20], 20), (vec![3.5; 17], 17), (vec![-1e-3, 4e4], 2)] {
        let mut values = vec![7; usize::next_multiple_of(count, 64)];
        let (scale, zero) = left::quantize_row(&x, &mut values);
        for (value, x) in values.iter().zip(&x) {
            let back = (i32::from(*value) - zero) as f32 * scale;
            assert!((back - x).abs() <= 0.5001 * scale.max(x.abs() * 1e-5), "{x} became {back}");
        }
        assert!(values[count..].iter().all(|value| *value == 0));
    }
}

#[test]
fn gelu_is_exact_wherever_an_element_stands() {
    let x: Vec<f32> = (-600..=600).map(|at| at as f32 * 0.01).chain([-30.0, -8.0, 0.0, 8.0, 30.0, 1e9, -1e9]).collect();
    let mut all = x.clone();
    gelu([&mut all[..]].into_iter());
    for (at, (found, x)) in all.iter().zip(&x).enumerate() {
        let expected = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        assert!((found - expected).abs() <= 3e-7 * (1.0 + x.abs()), "gelu({x}) = {found}, {expected}");
        let mut alone = [*x];
        gelu([&mut alone[..]].into_iter());
        assert_eq!(alone[0].to_bits(), found.to_bits(), "at {at}");
    }
}

/// All orders of the operands, the ways to write, and sizes around those of words, lines and tiles.
#[test]
fn products_of_a_training_step_are_those_of_rounded_operands() {
    let rounded = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|x| bf16::from_f32(x).to_f32()).collect() };
    let sizes = [
        [1, 1, 1],
        [2, 3, 5],
        [17, 33, 16],
        [31, 70, 129],
        [64, 100, 48],
        [4, 100, 1],
        [100, 16, 257],
        [5, 200, 0],
        [0, 3, 4],
    ];
    for [rows, columns, inner] in sizes {
        let (left, right) = (rounded(numbers(rows * inner, 1)), rounded(numbers(inner * columns, 2)));
        let transposed = |x: &[f32], [rows, columns]: [usize; 2]| -> Vec<f32> {
            (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
        };
        let old = numbers(rows * columns, 3);
        for (write, old_weight, new_weight) in [
            (Write::Replace, 0.0, 1.0),
            (Write::Add, 1.0, 1.0),
            (Write::Combine { output: 0.5, product: -2.0 }, 0.5, -2.0),
        ] {
            for orders in 0..4 {
                let (is_left_transposed, is_right_transposed) = (orders & 1 > 0, orders & 2 > 0);
                let operand = |x: &[f32], size: [usize; 2], is_transposed| match is_transposed {
                    true => (transposed(x, size), View::row_major(size[0]).transposed()),
                    false => (x.to_vec(), View::row_major(size[1])),
                };
                let (l, left_view) = operand(&left, [rows, inner], is_left_transposed);
                let (r, right_view) = operand(&right, [inner, columns], is_right_transposed);
                let mut output = old.clone();
                product([rows, columns, inner], write, &mut output, (&l, left_view), (&r, right_view));
                for (at, (found, old)) in output.iter().zip(&old).enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let products =
                        (0..inner).map(|k| f64::from(left[row * inner + k]) * f64::from(right[k * columns + column]));
                    let expected = f64::from(*old) * old_weight + products.sum::<f64>() * new_weight;
                    let error = (f64::from(*found) - expected).abs();
                    assert!(
                        error < 1e-5 * (1.0 + inner as f64).sqrt(),
                        "{rows}×{columns}×{inner}, {orders}, {at}: {found}"
                    );
                }
            }
        }
    }
}
