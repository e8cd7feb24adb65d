//! The few operations whose speed decides on a CPU, each with its own gradient.
//!
//! Every backend has the plain version, written with burn's own operations; `flex` has a fast one, for the elementwise
//! operations in `flex.rs`, for the others in the file of their name. The tests compare the two, values and gradients.
//! The model calls [`linear()`], [`attention()`], [`layer_norm()`], [`add_norm()`], [`cross_entropy()`] and the functions at the end of this file.

// burn calls ndarray deprecated; here it is the second, independent CPU implementation.
#![allow(deprecated)]

pub mod adam;
pub mod attention;
pub mod cross_entropy;
pub mod denormals;
pub mod dropout;
mod flex;
mod gemm;
pub mod hash;
pub mod layer_norm;
pub mod linear;
mod math;
pub mod tape;

#[cfg(feature = "cube")]
use burn::backend::Cube;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};

use burn::tensor::{DType, Device, Shape, Tensor, TensorData};

pub use attention::attention;
pub use cross_entropy::cross_entropy;
pub use layer_norm::{add_norm, layer_norm};
pub use linear::{linear, linear_transposed};

/// Operations with a plain version for every backend. All tensors are contiguous matrices `[rows, columns]`.
#[backend_extension(Flex, NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Autodiff)]
pub trait FastOps: Backend {
    /// `x·Φ(x)` of every element.
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// The gradient of [`FastOps::fast_gelu`].
    fn fast_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        plain_gelu_backward::<Self>(x, gradient)
    }

    /// Softmax of every row.
    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::softmax(x, 1)
    }

    /// The gradient of [`FastOps::fast_softmax`] from its output y: `y·(g − Σ g·y)`.
    fn fast_softmax_backward(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        plain_softmax_backward::<Self>(y, gradient)
    }

    /// Zeroes elements with probability `p / 2³²` and scales the others up; which ones is a function of `key` and the
    /// index alone, so that the gradient is the same operation once more.
    fn fast_dropout(x: FloatTensor<Self>, key: u64, p: u32) -> FloatTensor<Self> {
        plain_dropout::<Self>(x, key, p)
    }
}

/// `g·(Φ(x) + x·φ(x))`; burn's own `gelu_backward` is the derivative of the tanh approximation.
fn plain_gelu_backward<B: Backend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let scaled = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let erf = B::float_erf(scaled(x.clone(), std::f64::consts::FRAC_1_SQRT_2));
    let cumulative = scaled(B::float_add_scalar(erf, 1.0.into()), 0.5);
    let square = B::float_mul(x.clone(), x.clone());
    // φ(x) = exp(−x² / 2) / √(2π)
    let density = scaled(B::float_exp(scaled(square, -0.5)), 0.398_942_280_401_432_7);
    B::float_mul(gradient, B::float_add(cumulative, B::float_mul(x, density)))
}

fn plain_softmax_backward<B: Backend>(y: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let weighted = B::float_mul(gradient, y.clone());
    let sum = B::float_sum_dim(weighted.clone(), 1);
    B::float_sub(weighted, B::float_mul(y, sum))
}

/// The factors are made on the host and sent to the device: slower than a device's own random numbers, but the same
/// elements everywhere.
fn plain_dropout<B: Backend>(x: FloatTensor<B>, key: u64, p: u32) -> FloatTensor<B> {
    let (shape, device, dtype) = (x.shape(), x.device(), x.dtype());
    let factors: Vec<f32> = (0..shape.num_elements()).map(|index| dropout::factor(key, index, p)).collect();
    let factors = TensorData::new(factors, shape).convert_dtype(dtype);
    B::float_mul(x, B::float_from_data(factors, &device))
}

#[cfg(feature = "ndarray")]
impl FastOps for NdArray {}
#[cfg(feature = "cube")]
impl FastOps for Cube {}

/// An operation of one input, `y = f(x)`, whose gradient needs x or y and whatever the operation itself holds.
trait Unary: Clone + Send + std::fmt::Debug + 'static {
    /// Whether the gradient is computed from the output rather than from the input.
    const KEEPS_OUTPUT: bool;
    fn forward<B: FastOps>(&self, x: FloatTensor<B>) -> FloatTensor<B>;
    fn backward<B: FastOps>(&self, kept: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B>;
}

/// Ties a [`Unary`] operation to burn's autodiff.
#[derive(Debug)]
struct WithGradient<U>(U);

impl<U: Unary, B: FastOps> Backward<B, 1> for WithGradient<U> {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            gradients.register::<B>(parent.id, self.0.backward::<B>(ops.state, gradient));
        }
    }
}

fn apply<U: Unary, B: FastOps, C: CheckpointStrategy>(
    operation: U,
    x: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let prepared = Backward::<B, 1>::prepare::<C>(WithGradient(operation.clone()), [x.node()]);
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let x = x.into_primitive();
            let y = operation.forward::<B>(x.clone());
            let kept = if U::KEEPS_OUTPUT { y.clone() } else { x };
            prepared.finish(kept, y)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(operation.forward::<B>(x.into_primitive())),
    }
}

#[derive(Debug, Clone)]
struct Gelu;
impl Unary for Gelu {
    const KEEPS_OUTPUT: bool = false;
    fn forward<B: FastOps>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        B::fast_gelu(x)
    }
    fn backward<B: FastOps>(&self, x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
        B::fast_gelu_backward(x, gradient)
    }
}

#[derive(Debug, Clone)]
struct Softmax;
impl Unary for Softmax {
    const KEEPS_OUTPUT: bool = true;
    fn forward<B: FastOps>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        B::fast_softmax(x)
    }
    fn backward<B: FastOps>(&self, y: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
        B::fast_softmax_backward(y, gradient)
    }
}

#[derive(Debug, Clone)]
struct Dropout {
    key: u64,
    p: u32,
}
impl Unary for Dropout {
    const KEEPS_OUTPUT: bool = false;
    fn forward<B: FastOps>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        B::fast_dropout(x, self.key, self.p)
    }
    fn backward<B: FastOps>(&self, _x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
        B::fast_dropout(gradient, self.key, self.p)
    }
}

impl<B: FastOps, C: CheckpointStrategy> FastOps for Autodiff<B, C> {
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C>(Gelu, x)
    }

    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C>(Softmax, x)
    }

    fn fast_dropout(x: FloatTensor<Self>, key: u64, p: u32) -> FloatTensor<Self> {
        apply::<_, B, C>(Dropout { key, p }, x)
    }
}

/// Whether the tensor is where the fast versions work: `f32` on flex.
pub fn is_fast<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// Whether the tensor has half precision, in which sums over a row lose too much.
fn is_half<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F16 | DType::BF16)
}

/// The tensor in `f32` if it has half precision, else as it is.
pub fn upcast<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_half(&x) { x.cast(DType::F32) } else { x }
}

/// A tensor of any rank as a matrix along its last dimension, changed by `f`, in its own shape again.
fn by_rows<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<D> {
    let shape: Shape = x.shape();
    let columns = shape[D - 1];
    f(x.reshape([shape.num_elements() / columns.max(1), columns])).reshape(shape)
}

/// The exact GELU, `x·Φ(x)`.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::fast_gelu(x.into_dispatch())))
}

/// Softmax over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    let y = by_rows(upcast(x), |x| Tensor::from_dispatch(Dispatch::fast_softmax(x.into_dispatch())));
    if y.dtype() == dtype { y } else { y.cast(dtype) }
}

/// Zeroes elements with probability `p` and scales the others by 1 / (1 − p); see [`mod@dropout`] for which ones.
pub fn dropout<const D: usize>(x: Tensor<D>, p: f64) -> Tensor<D> {
    dropout_with(x, dropout::next_key(), dropout::threshold(p))
}

/// Dropout with a given key; `p` in units of 2⁻³².
fn dropout_with<const D: usize>(x: Tensor<D>, key: u64, p: u32) -> Tensor<D> {
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::fast_dropout(x.into_dispatch(), key, p)))
}
