//! The dense layer, `x·W + b`.
//!
//! On flex it is one matrix product over all tokens of the batch, added to an output that starts as b. burn's own layer
//! multiplies each sequence separately, which packs the same weights anew every time, and adds b in a second pass.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::autodiff::{Differentiable, apply};
use super::flex::{contiguous, elements, tensor_from};
use super::gemm::{self, View, Write};
use super::packed::{self, Precision};
use super::{TensorMetadata, autocast, is_fast};

/// The dense layer, `x·W + b`.
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

/// A dense layer with the exact GELU, `gelu(x·W + b)`: the inner layer of BERT's feed-forward network.
///
/// # Shapes
/// As of [`linear()`].
pub fn linear_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::linear_gelu(x, weight, bias);
    }
    super::gelu(linear(x, weight, bias))
}

/// A dense layer with transposed weights, `x·Wᵀ + b`: the masked-LM decoder, whose W is the word embedding table.
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

/// The dense layer on flex.
fn fast(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, transposed: bool) -> Tensor<2> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fast_linear(x, weight, bias.into_dispatch(), transposed))
}

/// The dense layer as one matrix product.
#[backend_extension(Flex, Autodiff)]
pub trait LinearOps: Backend {
    /// Shapes: `x` `[R, I]`, `weight` `[I, O]`, or `[O, I]` if `transposed`, `bias` `[O]`, output `[R, O]`.
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self>;
}

impl LinearOps for Flex {
    fn fast_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, transposed: bool) -> FlexTensor {
        FastLinear::new(transposed).forward([x, weight, bias]).0
    }
}

/// [`LinearOps::fast_linear`] for autodiff.
#[derive(Debug, Clone)]
struct FastLinear {
    transposed: bool,
    precision: Precision,
}

impl Differentiable<Flex, 3> for FastLinear {
    /// The input and the weights.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let saved = [x.clone(), weight.clone()];
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let ([rows, inputs], outputs) = ([x.shape()[0], x.shape()[1]], bias.shape()[0]);
        let mut output = Vec::with_capacity(rows * outputs);
        (0..rows).for_each(|_| output.extend_from_slice(elements(&bias)));
        self.product(
            [rows, outputs, inputs],
            Write::Add,
            &mut output,
            (elements(&x), View::row_major(inputs)),
            (elements(&weight), self.weights(inputs, outputs)),
        );
        (tensor_from(output, Shape::from([rows, outputs])), saved)
    }

    fn backward(
        self,
        [x, weight]: Self::Saved,
        gradient: FlexTensor,
        [for_x, for_weight, for_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let [x, weight, gradient] = [x, weight, gradient].map(contiguous);
        let dx = for_x.then(|| self.input_gradient(&weight, &gradient));
        let dw = for_weight.then(|| self.weight_gradient(&x, &gradient));
        [dx, dw, for_bias.then(|| bias_gradient(&gradient))]
    }
}

/// Columns per block of the gradient of transposed weights: the rows of a large vocabulary's gradient are too far apart
/// for the caches.
const BLOCK_COLUMNS: usize = 512;

impl FastLinear {
    /// The layer in this thread's precision.
    fn new(transposed: bool) -> Self {
        Self { transposed, precision: autocast::current() }
    }

    /// Writes the product `left · right` of shapes `[rows, inner]` and `[inner, columns]` to a contiguous output.
    fn product(
        &self,
        shape: [usize; 3],
        write: Write,
        output: &mut [f32],
        left: (&[f32], View),
        right: (&[f32], View),
    ) {
        match self.precision {
            Precision::Bf16 => packed::product(shape, write, output, left, right),
            _ => gemm::matmul(shape, write, (output, View::row_major(shape[1])), left, right),
        }
    }

    /// The weights `[I, O]` within their tensor.
    fn weights(&self, inputs: usize, outputs: usize) -> View {
        if self.transposed { View::row_major(inputs).transposed() } else { View::row_major(outputs) }
    }

    /// The gradient of the input, `g·Wᵀ`: `[R, I]`.
    fn input_gradient(&self, weight: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
        let [rows, outputs] = [gradient.shape()[0], gradient.shape()[1]];
        let inputs = weight.shape()[usize::from(self.transposed)];
        let mut dx = vec![0.0; rows * inputs];
        self.product(
            [rows, inputs, outputs],
            Write::Replace,
            &mut dx,
            (elements(gradient), View::row_major(outputs)),
            (elements(weight), self.weights(inputs, outputs).transposed()),
        );
        tensor_from(dx, Shape::from([rows, inputs]))
    }

    /// The gradient of the weights, `xᵀ·g` or its transpose, in the shape of the weights.
    fn weight_gradient(&self, x: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
        let ([rows, inputs], outputs) = ([x.shape()[0], x.shape()[1]], gradient.shape()[1]);
        let (x, gradient) = (elements(x), elements(gradient));
        let mut dw = vec![0.0; inputs * outputs];
        if !self.transposed {
            let left = (x, View::row_major(inputs).transposed());
            self.product([inputs, outputs, rows], Write::Replace, &mut dw, left, (gradient, View::row_major(outputs)));
            return tensor_from(dw, Shape::from([inputs, outputs]));
        }
        let right = (x, View::row_major(inputs));
        if self.precision == Precision::Bf16 {
            // Packing reads the gradient once, block by block.
            let left = (gradient, View::row_major(outputs).transposed());
            self.product([outputs, inputs, rows], Write::Replace, &mut dw, left, right);
            return tensor_from(dw, Shape::from([outputs, inputs]));
        }
        let mut columns = Vec::with_capacity(rows * BLOCK_COLUMNS);
        for (block, dw) in dw.chunks_mut((BLOCK_COLUMNS * inputs).max(1)).enumerate() {
            let (first, count) = (block * BLOCK_COLUMNS, dw.len() / inputs.max(1));
            columns.clear();
            gradient.chunks_exact(outputs).for_each(|row| columns.extend_from_slice(&row[first..][..count]));
            let left = (&columns[..], View::row_major(count).transposed());
            self.product([count, inputs, rows], Write::Replace, dw, left, right);
        }
        tensor_from(dw, Shape::from([outputs, inputs]))
    }
}

/// The gradient of the bias, the sum of the rows of `gradient`: `[O]`.
fn bias_gradient(gradient: &FlexTensor) -> FlexTensor {
    let outputs = gradient.shape()[1];
    let mut db = vec![0.0; outputs];
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in elements(gradient).chunks_exact(outputs.max(1)) {
                for (sum, g) in db.iter_mut().zip(row) {
                    *sum += g;
                }
            }
        },
    );
    tensor_from(db, Shape::from([outputs]))
}

impl<C: CheckpointStrategy> LinearOps for Autodiff<Flex, C> {
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        transposed: bool,
    ) -> FloatTensor<Self> {
        apply::<_, Flex, C, 3>(FastLinear::new(transposed), [x, weight, bias])
    }
}
