//! Matrix products on GPUs, by a strategy that is named for each kind of product: automatic tuning takes minutes in every
//! process, and picks by time, so that bits would differ from run to run. `examples/product_rates.rs` measures them.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, Shape, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as Levels;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::launch::{buffer, contiguous, element, elementwise, empty};
use super::rows::{reshaped, sum_rows};
use crate::ops::autodiff::{Differentiable, apply};

/// `lhs · rhs` for each pair of the batch, `[batch, m, k] × [batch, k, n]` or without the batch; either may be a transposed
/// view. The output is contiguous.
pub fn multiply(lhs: &CubeTensor, rhs: &CubeTensor, dtype: DType) -> CubeTensor {
    let mut shape = lhs.meta.shape().to_vec();
    let last = shape.len() - 1;
    shape[last] = rhs.meta.shape()[last];
    let output = empty(lhs, Shape::from(shape), dtype);
    let input = |x: &CubeTensor| InputBinding::new(x.clone().binding(), element(x.dtype));
    let elements = MatmulGlobalElems { lhs: element(lhs.dtype), rhs: element(rhs.dtype), out: element(dtype) };
    let mut refusals = Vec::new();
    for strategy in strategies() {
        let (target, mut elements) = (output.clone().binding(), MatmulElems::from_globals(&elements));
        match launch_ref(&strategy, &output.client, input(lhs), input(rhs), target, &mut elements) {
            Ok(()) => return output,
            Err(error) => refusals.push(format!("{strategy}: {error:?}")),
        }
    }
    #[allow(clippy::panic, reason = "the last strategy takes every product whose shapes fit")]
    {
        panic!("a product of {:?} and {:?}: {}", lhs.meta.shape(), rhs.meta.shape(), refusals.join("; "))
    }
}

/// Ways to multiply, best first: with tensor cores, with registers alone, element by element.
fn strategies() -> [Strategy; 3] {
    [
        Levels::SimpleCyclicCmma(Default::default()).into(),
        Levels::SimpleUnit(Default::default()).into(),
        Levels::Naive.into(),
    ]
}

/// A matrix, or each of a batch, with rows and columns exchanged: a view.
pub fn transposed(x: &CubeTensor) -> CubeTensor {
    let mut x = x.clone();
    let rank = x.meta.shape().len();
    x.meta.swap(rank - 2, rank - 1);
    x
}

#[cube(launch)]
fn add_bias<E: Float>(x: &mut [E], bias: &[E], #[define(E)] _element: ElemType) {
    let at = ABSOLUTE_POS;
    if at < x.len() {
        let sum = f32::cast_from(x[at]) + f32::cast_from(bias[at % bias.len()]);
        x[at] = E::cast_from(sum);
    }
}

/// `x·W`, or `x·Wᵀ` where the weights are stored as `[O, I]`.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Whether they are stored as `[O, I]`.
    pub transposed: bool,
}

impl Weights {
    /// `[R, I]` to `[R, O]`.
    pub fn apply(self, x: &CubeTensor, weight: &CubeTensor) -> CubeTensor {
        let weight = if self.transposed { transposed(weight) } else { weight.clone() };
        multiply(x, &weight, x.dtype)
    }

    /// The gradient of `x`.
    pub fn input_gradient(self, weight: &CubeTensor, gradient: &CubeTensor) -> CubeTensor {
        let weight = if self.transposed { weight.clone() } else { transposed(weight) };
        multiply(gradient, &weight, gradient.dtype)
    }

    /// The gradient of the weights, in `f32`.
    pub fn gradient(self, x: &CubeTensor, gradient: &CubeTensor) -> CubeTensor {
        match self.transposed {
            true => multiply(&transposed(gradient), x, DType::F32),
            false => multiply(&transposed(x), gradient, DType::F32),
        }
    }
}

/// The dense layer on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait ProductOps: Backend {
    /// `x·W + b`. Shapes: `x` `[R, I]`, `bias` `[O]`, output `[R, O]`.
    fn gpu_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        weights: Weights,
    ) -> FloatTensor<Self>;
}

impl ProductOps for Cube {
    fn gpu_linear(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, weights: Weights) -> CubeTensor {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let output = weights.apply(&x, &weight);
        let (count, dim) = elementwise(output.meta.num_elements());
        add_bias::launch(&x.client, count, dim, buffer(&output), buffer(&bias), element(x.dtype));
        output
    }
}

/// [`ProductOps::gpu_linear`] within a graph.
#[derive(Debug, Clone)]
struct GpuLinear(Weights);

impl Differentiable<Cube, 3> for GpuLinear {
    type Saved = [CubeTensor; 2];

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> (CubeTensor, Self::Saved) {
        let (x, weight) = (contiguous(x), contiguous(weight));
        (Cube::gpu_linear(x.clone(), weight.clone(), bias, self.0), [x, weight])
    }

    fn backward(
        self,
        [x, weight]: Self::Saved,
        gradient: CubeTensor,
        [for_x, for_weight, for_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let gradient = contiguous(gradient);
        let [rows, outputs] = [gradient.meta.shape()[0], gradient.meta.shape()[1]];
        [
            for_x.then(|| self.0.input_gradient(&weight, &gradient)),
            for_weight.then(|| self.0.gradient(&x, &gradient)),
            for_bias.then(|| sum_rows(&gradient, rows, outputs)),
        ]
    }
}

impl<C: CheckpointStrategy> ProductOps for Autodiff<Cube, C> {
    fn gpu_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        weights: Weights,
    ) -> FloatTensor<Self> {
        apply::<_, Cube, C, 3>(GpuLinear(weights), [x, weight, bias])
    }
}

/// See [`crate::ops::linear()`]; weights `[O, I]` if `transposed`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>, transposed: bool) -> Tensor<D> {
    let (mut shape, inputs) = (x.shape(), x.dims()[D - 1]);
    let x = x.reshape([shape.num_elements() / inputs.max(1), inputs]).into_dispatch();
    shape[D - 1] = bias.dims()[0];
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::<2>::from_dispatch(Dispatch::gpu_linear(x, weight, bias, Weights { transposed })).reshape(shape)
}

/// Columns `first..first + count` of a gradient of several parameters that lie one after the other: `[count]`.
pub fn part(x: &CubeTensor, first: usize, count: usize) -> CubeTensor {
    let mut part = x.clone();
    let bytes = x.dtype.size() as u64;
    let (start, total) = (part.handle.offset_start.unwrap_or(0), x.meta.num_elements());
    part.handle.offset_start = Some(start + first as u64 * bytes);
    let behind = part.handle.offset_end.unwrap_or(0);
    part.handle.offset_end = Some(behind + (total - first - count) as u64 * bytes);
    reshaped(part, [count])
}
