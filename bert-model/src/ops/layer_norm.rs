//! Layer normalization (Ba et al. 2016): every row is brought to mean 0 and variance 1, then scaled by γ and shifted by
//! β.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::autodiff::{Differentiable, apply};
use super::flex::{contiguous, elements, sum_of, sum_of_products, tensor_from};
use super::{TensorMetadata, by_rows, is_fast, is_half, upcast};

/// Layer normalization, `(x − mean) / √(variance + ε) · γ + β` along the last dimension, with the biased variance (over
/// H, not H − 1). Inputs of half precision are normalized in `f32`.
///
/// # Shapes
/// - `x` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
///
/// # Panics
/// If the shapes do not match.
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!([gamma.dims(), beta.dims()], [[x.dims()[D - 1]]; 2], "shapes of γ and β");
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::layer_norm(x, gamma, beta, epsilon);
    }
    if is_half(&x) {
        let dtype = x.dtype();
        return layer_norm(upcast(x), upcast(gamma), upcast(beta), epsilon).cast(dtype);
    }
    if is_fast(&x) {
        let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
        return by_rows(x, |x| {
            Tensor::from_dispatch(Dispatch::fast_layer_norm(x.into_dispatch(), gamma, beta, epsilon as f32))
        });
    }
    let centered = x.clone() - x.mean_dim(D - 1);
    let variance = centered.clone().powi_scalar(2).mean_dim(D - 1);
    centered / (variance + epsilon).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}

/// Layer normalization in one pass over memory.
#[backend_extension(Flex, Autodiff)]
pub trait LayerNormOps: Backend {
    /// Shapes: `x` and output `[R, H]`, `gamma` and `beta` `[H]`.
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

impl LayerNormOps for Flex {
    fn fast_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, epsilon: f32) -> FlexTensor {
        FastLayerNorm { epsilon }.forward([x, gamma, beta]).0
    }
}

/// [`LayerNormOps::fast_layer_norm`] for autodiff.
#[derive(Debug, Clone)]
struct FastLayerNorm {
    epsilon: f32,
}

impl Differentiable<Flex, 3> for FastLayerNorm {
    /// The input and γ.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, gamma, beta]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let saved = [x.clone(), gamma.clone()];
        let [x, gamma, beta] = [x, gamma, beta].map(contiguous);
        let (values, gamma, beta) = (elements(&x), elements(&gamma), elements(&beta));
        let mut output = Vec::with_capacity(values.len());
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in values.chunks_exact(gamma.len().max(1)) {
                    normalize(row, gamma, beta, self.epsilon, &mut output);
                }
            },
        );
        (tensor_from(output, x.shape()), saved)
    }

    fn backward(self, [x, gamma]: Self::Saved, gradient: FlexTensor, _wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        layer_norm_backward(x, gamma, gradient, self.epsilon).map(Some)
    }
}

impl<C: CheckpointStrategy> LayerNormOps for Autodiff<Flex, C> {
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        apply::<_, Flex, C, 3>(FastLayerNorm { epsilon }, [x, gamma, beta])
    }
}

/// The gradients of `x` `[R, H]`, γ and β `[H]`.
pub(super) fn layer_norm_backward(
    x: FlexTensor,
    gamma: FlexTensor,
    gradient: FlexTensor,
    epsilon: f32,
) -> [FlexTensor; 3] {
    let [x, gamma, gradient] = [x, gamma, gradient].map(contiguous);
    let mut backward = RowBackward::new(elements(&gamma), epsilon);
    let mut dx = Vec::with_capacity(elements(&x).len());
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let width = backward.width();
            for (row, gradient) in elements(&x).chunks_exact(width).zip(elements(&gradient).chunks_exact(width)) {
                dx.extend_from_slice(backward.row(row, gradient));
            }
        },
    );
    let [dgamma, dbeta] = backward.parameters();
    [tensor_from(dx, x.shape()), tensor_from(dgamma, gamma.shape()), tensor_from(dbeta, gamma.shape())]
}

/// The mean of a row, and 1 / √(variance + ε).
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum_of(row, |x| x) / count;
    let squares = sum_of(row, |x| (x - mean) * (x - mean));
    (mean, 1.0 / (squares / count + epsilon).sqrt())
}

/// Appends a normalized row to `output`.
#[inline(always)]
pub(super) fn normalize(row: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32, output: &mut Vec<f32>) {
    let (mean, factor) = moments(row, epsilon);
    let normalized = row.iter().zip(gamma).zip(beta);
    output.extend(normalized.map(|((x, gamma), beta)| (x - mean) * factor * gamma + beta));
}

/// Normalizes a row in place.
#[inline(always)]
pub(super) fn normalize_in_place(row: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    let (mean, factor) = moments(row, epsilon);
    for ((x, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
        *x = (*x - mean) * factor * gamma + beta;
    }
}

/// The backward pass of layer normalization, row by row.
pub(super) struct RowBackward<'a> {
    gamma: &'a [f32],
    epsilon: f32,
    normalized: Vec<f32>,
    scaled: Vec<f32>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

impl<'a> RowBackward<'a> {
    /// For rows as long as `gamma`.
    pub fn new(gamma: &'a [f32], epsilon: f32) -> Self {
        let [normalized, scaled, dgamma, dbeta] = [(); 4].map(|()| vec![0.0; gamma.len()]);
        Self { gamma, epsilon, normalized, scaled, dgamma, dbeta }
    }

    /// Elements in a row, at least 1.
    #[inline(always)]
    pub fn width(&self) -> usize {
        self.gamma.len().max(1)
    }

    /// The gradient of a row from that of its normalization. The gradients of γ and β are accumulated.
    #[inline(always)]
    pub fn row(&mut self, row: &[f32], gradient: &[f32]) -> &[f32] {
        let width = self.gamma.len();
        let (row, gradient, gamma) = (&row[..width], &gradient[..width], &self.gamma[..width]);
        let (normalized, scaled) = (&mut self.normalized[..width], &mut self.scaled[..width]);
        let (dgamma, dbeta) = (&mut self.dgamma[..width], &mut self.dbeta[..width]);
        let (mean, factor) = moments(row, self.epsilon);
        for i in 0..width {
            normalized[i] = (row[i] - mean) * factor;
            scaled[i] = gradient[i] * gamma[i];
            dgamma[i] += gradient[i] * normalized[i];
            dbeta[i] += gradient[i];
        }
        let mean_gradient = sum_of(scaled, |g| g) / width as f32;
        let mean_product = sum_of_products(scaled, normalized) / width as f32;
        for (g, x) in scaled.iter_mut().zip(normalized) {
            *g = (*g - mean_gradient - *x * mean_product) * factor;
        }
        scaled
    }

    /// The gradients of γ and β, summed over all rows so far.
    pub fn parameters(self) -> [Vec<f32>; 2] {
        [self.dgamma, self.dbeta]
    }
}
