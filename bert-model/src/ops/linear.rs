//! A dense layer, `x·W + b`: one matrix product over all tokens of the batch, into an output that begins as b.
//!
//! burn's own layer multiplies one sequence after the other with the same weights, which the product packs anew each time,
//! and adds b afterwards.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::autodiff::{Differentiable, apply};
use super::flex::{contiguous, elements, tensor_from};
use super::gemm::{Output, View, product};
use super::{TensorMetadata, is_fast};

/// `x·W + b`.
///
/// # Shapes
/// - `x`: `[…, I]`
/// - `weight`: `[I, O]`
/// - `bias`: `[O]`
/// - output: `[…, O]`
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::linear(x, weight, bias, false);
    }
    if !is_fast(&x) {
        return burn::tensor::module::linear(x, weight, Some(bias));
    }
    let (mut shape, [inputs, outputs]) = (x.shape(), weight.dims());
    let x = x.reshape([shape.num_elements() / inputs.max(1), inputs]);
    shape[D - 1] = outputs;
    fast(x, weight, bias, false).reshape(shape)
}

/// `gelu(x·W + b)`. Shapes: see [`linear`].
pub fn linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::linear_gelu(x, weight, bias);
    }
    super::gelu(linear(x, weight, bias))
}

/// `x·Wᵀ + b`.
///
/// # Shapes
/// - `x`: `[M, H]`
/// - `weight`: `[V, H]`
/// - `bias`: `[V]`
/// - output: `[M, V]`
pub fn linear_transposed(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::linear(x, weight, bias, true);
    }
    match is_fast(&x) {
        true => fast(x, weight, bias, true),
        false => x.matmul(weight.transpose()) + bias.unsqueeze(),
    }
}

fn fast(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, transposed: bool) -> Tensor<2> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fast_linear(x, weight, bias.into_dispatch(), transposed))
}

/// The fast version. `weight` is `[I, O]`, or `[O, I]` if `transposed`.
#[backend_extension(Flex, Autodiff)]
pub trait LinearOps: Backend {
    /// Shapes: `x` `[R, I]`, `bias` `[O]`, output `[R, O]`.
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;
}

/// The gradients of the fast version.
pub trait LinearGradients: LinearOps {
    /// The gradient of `x`, `g·Wᵀ`.
    fn linear_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;

    /// The gradient of `weight`, `xᵀ·g`.
    fn linear_weight_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>, transposed: bool)
    -> FloatTensor<Self>;

    /// The gradient of `bias`: the sum of the rows of `gradient`.
    fn linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The weights `[I, O]` within their tensor.
fn view(inputs: usize, outputs: usize, transposed: bool) -> View {
    if transposed { View::rows_of(inputs).transposed() } else { View::rows_of(outputs) }
}

/// Columns of a gradient whose product is computed at once where the weights are transposed; the rows of a large
/// vocabulary's gradient are too far from each other for the caches.
const COLUMNS: usize = 512;

impl LinearOps for Flex {
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let ([rows, inputs], outputs) = ([x.shape()[0], x.shape()[1]], bias.shape()[0]);
        let mut output = Vec::with_capacity(rows * outputs);
        (0..rows).for_each(|_| output.extend_from_slice(elements(&bias)));
        product(
            [rows, outputs, inputs],
            Output::AddedTo,
            (&mut output, View::rows_of(outputs)),
            (elements(&x), View::rows_of(inputs)),
            (elements(&weight), view(inputs, outputs, transposed)),
        );
        tensor_from(output, Shape::from([rows, outputs]))
    }
}

impl LinearGradients for Flex {
    fn linear_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let [weight, gradient] = [weight, gradient].map(contiguous);
        let [rows, outputs] = [gradient.shape()[0], gradient.shape()[1]];
        let inputs = weight.shape()[usize::from(transposed)];
        let mut dx = vec![0.0; rows * inputs];
        product(
            [rows, inputs, outputs],
            Output::Replaced,
            (&mut dx, View::rows_of(inputs)),
            (elements(&gradient), View::rows_of(outputs)),
            (elements(&weight), view(inputs, outputs, transposed).transposed()),
        );
        tensor_from(dx, Shape::from([rows, inputs]))
    }

    fn linear_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let [x, gradient] = [x, gradient].map(contiguous);
        let ([rows, inputs], outputs) = ([x.shape()[0], x.shape()[1]], gradient.shape()[1]);
        let (x, gradient) = (elements(&x), elements(&gradient));
        let mut dw = vec![0.0; inputs * outputs];
        if !transposed {
            product(
                [inputs, outputs, rows],
                Output::Replaced,
                (&mut dw, View::rows_of(outputs)),
                (x, View::rows_of(inputs).transposed()),
                (gradient, View::rows_of(outputs)),
            );
            return tensor_from(dw, Shape::from([inputs, outputs]));
        }
        let mut columns = Vec::with_capacity(rows * COLUMNS);
        for (part, dw) in dw.chunks_mut((COLUMNS * inputs).max(1)).enumerate() {
            let (first, count) = (part * COLUMNS, dw.len() / inputs.max(1));
            columns.clear();
            gradient.chunks_exact(outputs).for_each(|row| columns.extend_from_slice(&row[first..][..count]));
            product(
                [count, inputs, rows],
                Output::Replaced,
                (dw, View::rows_of(inputs)),
                (&columns, View::rows_of(count).transposed()),
                (x, View::rows_of(inputs)),
            );
        }
        tensor_from(dw, Shape::from([outputs, inputs]))
    }

    fn linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let gradient = contiguous(gradient);
        let outputs = gradient.shape()[1];
        let mut db = vec![0.0; outputs];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in elements(&gradient).chunks_exact(outputs.max(1)) {
                    for (sum, g) in db.iter_mut().zip(row) {
                        *sum += g;
                    }
                }
            },
        );
        tensor_from(db, Shape::from([outputs]))
    }
}

/// [`LinearOps::fast_linear`] within a graph.
#[derive(Debug, Clone)]
struct FastLinear {
    transposed: bool,
}

impl<B: LinearGradients> Differentiable<B, 3> for FastLinear {
    type Saved = [FloatTensor<B>; 2];

    fn forward(&self, [x, weight, bias]: [FloatTensor<B>; 3]) -> (FloatTensor<B>, Self::Saved) {
        (B::fast_linear(x.clone(), weight.clone(), bias, self.transposed), [x, weight])
    }

    fn backward(
        self,
        [x, weight]: Self::Saved,
        gradient: FloatTensor<B>,
        [for_x, for_weight, for_bias]: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let dx = for_x.then(|| B::linear_input_gradient(weight, gradient.clone(), self.transposed));
        let dw = for_weight.then(|| B::linear_weight_gradient(x, gradient.clone(), self.transposed));
        [dx, dw, for_bias.then(|| B::linear_bias_gradient(gradient))]
    }
}

impl<B: LinearGradients, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        apply::<_, B, C, 3>(FastLinear { transposed }, [x, weight, bias])
    }
}
