//! The few operations whose speed decides on a CPU, each with its own gradient.
//!
//! Every backend has the plain version, written with burn's own operations; `flex` has a fast one, for the elementwise
//! operations in `flex.rs`, for the others in the file of their name. The tests compare the two, values and gradients.
//! The model calls [`linear()`], [`attention()`], [`layer_norm()`], [`add_norm()`], [`cross_entropy()`] and the functions at the end of this file.

// burn calls ndarray deprecated; here it is the second, independent CPU implementation.
#![allow(deprecated)]

mod adam;
pub mod attention;
mod autodiff;
pub mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
pub mod denormals;
pub mod dropout;
pub mod embedding;
mod flex;
mod gemm;
pub mod hash;
pub mod layer_norm;
pub mod linear;
mod math;
pub mod optimizer;
mod seed;
pub mod tape;

#[cfg(feature = "cube")]
use burn::backend::Cube;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};

use autodiff::{Differentiable, apply};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};

pub use attention::{attention, self_attention};
pub use cross_entropy::cross_entropy;
pub use embedding::{embed, gather_rows};
pub use layer_norm::{add_norm, layer_norm, linear_add_norm};
pub use linear::{linear, linear_gelu, linear_transposed};

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

    /// Zeroes elements and scales the others up; which ones is a function of the mask and the place within a sequence of
    /// `tokens` rows alone, so that the gradient is the same operation once more.
    fn fast_dropout(x: FloatTensor<Self>, mask: dropout::Mask, tokens: usize) -> FloatTensor<Self> {
        plain_dropout::<Self>(x, mask, tokens)
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
fn plain_dropout<B: Backend>(x: FloatTensor<B>, mask: dropout::Mask, tokens: usize) -> FloatTensor<B> {
    let (shape, device, dtype) = (x.shape(), x.device(), x.dtype());
    let (columns, scale) = (shape[1], mask.scale());
    let row = |row: usize| {
        let (key, first) = (mask.key_of(row / tokens, 0, 1), ((row % tokens) * columns) as u32);
        (0..columns as u32).map(move |column| dropout::factor(key, first.wrapping_add(column), mask.p, scale))
    };
    let factors: Vec<f32> = (0..shape[0]).flat_map(row).collect();
    let factors = TensorData::new(factors, shape).convert_dtype(dtype);
    B::float_mul(x, B::float_from_data(factors, &device))
}

#[cfg(feature = "ndarray")]
impl FastOps for NdArray {}
#[cfg(feature = "cube")]
impl FastOps for Cube {}

/// [`FastOps::fast_gelu`] within a graph.
#[derive(Debug, Clone)]
struct FastGelu;

impl<B: FastOps> Differentiable<B, 1> for FastGelu {
    type Saved = FloatTensor<B>;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        (B::fast_gelu(x.clone()), x)
    }

    fn backward(self, x: Self::Saved, gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::fast_gelu_backward(x, gradient))]
    }
}

/// [`FastOps::fast_softmax`] within a graph.
#[derive(Debug, Clone)]
struct FastSoftmax;

impl<B: FastOps> Differentiable<B, 1> for FastSoftmax {
    type Saved = FloatTensor<B>;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        let y = B::fast_softmax(x);
        (y.clone(), y)
    }

    fn backward(self, y: Self::Saved, gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::fast_softmax_backward(y, gradient))]
    }
}

/// [`FastOps::fast_dropout`] within a graph.
#[derive(Debug, Clone)]
struct FastDropout {
    mask: dropout::Mask,
    tokens: usize,
}

impl<B: FastOps> Differentiable<B, 1> for FastDropout {
    type Saved = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        (B::fast_dropout(x, self.mask, self.tokens), ())
    }

    fn backward(self, (): (), gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::fast_dropout(gradient, self.mask, self.tokens))]
    }
}

impl<B: FastOps, C: CheckpointStrategy> FastOps for Autodiff<B, C> {
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastGelu, [x])
    }

    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastSoftmax, [x])
    }

    fn fast_dropout(x: FloatTensor<Self>, mask: dropout::Mask, tokens: usize) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastDropout { mask, tokens }, [x])
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

/// Zeroes elements with probability `p` and scales the others by 1 / (1 − p); see [`mod@dropout`] for which ones. The first
/// dimension of `x` counts sequences.
pub fn dropout<const D: usize>(x: Tensor<D>, p: f64) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if cube::runs(&x) {
        return cube::dropout(x, p);
    }
    dropout_with(x, dropout::Mask::next(p))
}

/// Dropout with a given mask.
fn dropout_with<const D: usize>(x: Tensor<D>, mask: dropout::Mask) -> Tensor<D> {
    let tokens = rows_of_a_sequence(&x);
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::fast_dropout(x.into_dispatch(), mask, tokens)))
}

/// Rows that each sequence has in a tensor `[B, …, H]` seen as a matrix along its last dimension; at least 1.
fn rows_of_a_sequence<const D: usize>(x: &Tensor<D>) -> usize {
    let dims = x.dims();
    dims[..D - 1].iter().skip(1).product::<usize>().max(1)
}
