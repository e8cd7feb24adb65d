//! A dense layer, `x·W + b`: one matrix product over all tokens of the batch, into an output that begins as b.
//!
//! burn's own layer multiplies one sequence after the other with the same weights, which the product packs anew each time,
//! and adds b afterwards.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

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
    if !is_fast(&x) {
        return burn::tensor::module::linear(x, weight, Some(bias));
    }
    let (mut shape, [inputs, outputs]) = (x.shape(), weight.dims());
    let x = x.reshape([shape.num_elements() / inputs.max(1), inputs]);
    shape[D - 1] = outputs;
    fast(x, weight, bias, false).reshape(shape)
}

/// `x·Wᵀ + b`.
///
/// # Shapes
/// - `x`: `[M, H]`
/// - `weight`: `[V, H]`
/// - `bias`: `[V]`
/// - output: `[M, V]`
pub fn linear_transposed(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
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

    /// The gradient of `x`, `g·Wᵀ`.
    fn fast_linear_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;

    /// The gradient of `weight`, `xᵀ·g`.
    fn fast_linear_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;

    /// The gradient of `bias`: the sum of the rows of `gradient`.
    fn fast_linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self>;
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

    fn fast_linear_input_gradient(
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

    fn fast_linear_weight_gradient(
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

    fn fast_linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
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

/// Ties the fast version to burn's autodiff.
#[derive(Debug)]
struct LinearGradient {
    transposed: bool,
}

impl<B: LinearOps> Backward<B, 3> for LinearGradient {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let ([x, weight], gradient) = (ops.state, gradients.consume::<B>(&ops.node));
        let [for_x, for_weight, for_bias] = ops.parents;
        if let Some(parent) = for_x {
            let dx = B::fast_linear_input_gradient(weight, gradient.clone(), self.transposed);
            gradients.register::<B>(parent.id, dx);
        }
        if let Some(parent) = for_weight {
            let dw = B::fast_linear_weight_gradient(x, gradient.clone(), self.transposed);
            gradients.register::<B>(parent.id, dw);
        }
        if let Some(parent) = for_bias {
            gradients.register::<B>(parent.id, B::fast_linear_bias_gradient(gradient));
        }
    }
}

impl<B: LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.into_primitive());
        let output = B::fast_linear(x.clone(), weight.clone(), bias, transposed);
        match (LinearGradient { transposed }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish([x, weight], output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn fast_linear_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let [weight, gradient] = [weight, gradient].map(|tensor| tensor.into_primitive());
        <Self as AutodiffBackend>::from_inner(B::fast_linear_input_gradient(weight, gradient, transposed))
    }

    fn fast_linear_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        let [x, gradient] = [x, gradient].map(|tensor| tensor.into_primitive());
        <Self as AutodiffBackend>::from_inner(B::fast_linear_weight_gradient(x, gradient, transposed))
    }

    fn fast_linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::fast_linear_bias_gradient(gradient.into_primitive()))
    }
}
