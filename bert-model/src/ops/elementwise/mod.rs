//! GELU, softmax and dropout.
//!
//! Every backend has the reference implementation in burn's operations, with a gradient of its own; flex computes them
//! in one pass over memory.

mod flex;

#[cfg(feature = "cube")]
use burn::backend::Cube;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{Tensor, TensorData};

use super::autodiff::{Differentiable, apply};
use super::dropout::{Mask, factor};
use super::{TensorMetadata, by_rows, rows_of_a_sequence, upcast};

/// The exact GELU (Hendrycks and Gimpel 2016), `x·Φ(x)` with Φ the normal distribution function, of every element.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::fast_gelu(x.into_dispatch())))
}

/// Softmax over the last dimension. Inputs of half precision are computed in `f32`.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    let y = by_rows(upcast(x), |x| Tensor::from_dispatch(Dispatch::fast_softmax(x.into_dispatch())));
    if y.dtype() == dtype { y } else { y.cast(dtype) }
}

/// Dropout (Srivastava et al. 2014): zeroes each element with probability `p` and scales the others by 1 / (1 − p).
///
/// Which elements are zeroed is a function of the thread's seed and position (see [`mod@crate::ops::dropout`]), the
/// same on every backend. The first dimension of `x` must count sequences.
pub fn dropout<const D: usize>(x: Tensor<D>, p: f64) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::dropout(x, p);
    }
    dropout_with(x, Mask::next(p))
}

/// Dropout with a given mask.
pub(super) fn dropout_with<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    let tokens = rows_of_a_sequence(&x);
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::fast_dropout(x.into_dispatch(), mask, tokens)))
}

/// GELU, softmax and dropout of matrices `[rows, columns]`, with a reference implementation for every backend.
#[backend_extension(Flex, NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Autodiff)]
pub trait ElementwiseOps: Backend {
    /// The exact GELU of every element, `x·Φ(x)`.
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// The gradient of [`ElementwiseOps::fast_gelu`].
    fn fast_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        reference_gelu_backward::<Self>(x, gradient)
    }

    /// Softmax of every row.
    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::softmax(x, 1)
    }

    /// The gradient of [`ElementwiseOps::fast_softmax`] from its output y, `y·(g − Σ g·y)`.
    fn fast_softmax_backward(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        reference_softmax_backward::<Self>(y, gradient)
    }

    /// Dropout of sequences of `tokens` rows. Which elements are zeroed depends on the mask and their position alone,
    /// so the gradient is the same operation applied to the output's gradient.
    fn fast_dropout(x: FloatTensor<Self>, mask: Mask, tokens: usize) -> FloatTensor<Self> {
        reference_dropout::<Self>(x, mask, tokens)
    }
}

/// `g·(Φ(x) + x·φ(x))`. burn's own `gelu_backward` is the derivative of the tanh approximation.
fn reference_gelu_backward<B: Backend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let scaled = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let erf = B::float_erf(scaled(x.clone(), std::f64::consts::FRAC_1_SQRT_2));
    let cumulative = scaled(B::float_add_scalar(erf, 1.0.into()), 0.5);
    let square = B::float_mul(x.clone(), x.clone());
    // φ(x) = exp(−x² / 2) / √(2π)
    let density = scaled(B::float_exp(scaled(square, -0.5)), 0.398_942_280_401_432_7);
    B::float_mul(gradient, B::float_add(cumulative, B::float_mul(x, density)))
}

fn reference_softmax_backward<B: Backend>(y: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let weighted = B::float_mul(gradient, y.clone());
    let sum = B::float_sum_dim(weighted.clone(), 1);
    B::float_sub(weighted, B::float_mul(y, sum))
}

/// Computes the factors on the host and copies them to the device: slower than the device's own random numbers, but the
/// same elements are zeroed everywhere.
fn reference_dropout<B: Backend>(x: FloatTensor<B>, mask: Mask, tokens: usize) -> FloatTensor<B> {
    let (shape, device, dtype) = (x.shape(), x.device(), x.dtype());
    let (columns, scale) = (shape[1], mask.scale());
    let row = |row: usize| {
        let (key, first) = (mask.key_of(row / tokens, 0, 1), ((row % tokens) * columns) as u32);
        (0..columns as u32).map(move |column| factor(key, first.wrapping_add(column), mask.p, scale))
    };
    let factors: Vec<f32> = (0..shape[0]).flat_map(row).collect();
    let factors = TensorData::new(factors, shape).convert_dtype(dtype);
    B::float_mul(x, B::float_from_data(factors, &device))
}

#[cfg(feature = "ndarray")]
impl ElementwiseOps for NdArray {}
#[cfg(feature = "cube")]
impl ElementwiseOps for Cube {}

/// [`ElementwiseOps::fast_gelu`] for autodiff.
#[derive(Debug, Clone)]
struct FastGelu;

impl<B: ElementwiseOps> Differentiable<B, 1> for FastGelu {
    type Saved = FloatTensor<B>;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        (B::fast_gelu(x.clone()), x)
    }

    fn backward(self, x: Self::Saved, gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::fast_gelu_backward(x, gradient))]
    }
}

/// [`ElementwiseOps::fast_softmax`] for autodiff.
#[derive(Debug, Clone)]
struct FastSoftmax;

impl<B: ElementwiseOps> Differentiable<B, 1> for FastSoftmax {
    type Saved = FloatTensor<B>;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        let y = B::fast_softmax(x);
        (y.clone(), y)
    }

    fn backward(self, y: Self::Saved, gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::fast_softmax_backward(y, gradient))]
    }
}

/// [`ElementwiseOps::fast_dropout`] for autodiff.
#[derive(Debug, Clone)]
struct FastDropout {
    mask: Mask,
    tokens: usize,
}

impl<B: ElementwiseOps> Differentiable<B, 1> for FastDropout {
    type Saved = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        (B::fast_dropout(x, self.mask, self.tokens), ())
    }

    fn backward(self, (): (), gradient: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::fast_dropout(gradient, self.mask, self.tokens))]
    }
}

impl<B: ElementwiseOps, C: CheckpointStrategy> ElementwiseOps for Autodiff<B, C> {
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastGelu, [x])
    }

    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastSoftmax, [x])
    }

    fn fast_dropout(x: FloatTensor<Self>, mask: Mask, tokens: usize) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastDropout { mask, tokens }, [x])
    }
}
