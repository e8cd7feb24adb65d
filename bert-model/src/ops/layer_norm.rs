//! Layer normalization (Ba et al. 2016): every row to mean 0 and variance 1, then times γ plus β; also of a residual sum
//! with dropout, in one pass over memory.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::autodiff::{Differentiable, apply};
use super::dropout::{Mask, factor};
use super::flex::{contiguous, elements, sum_of, sum_of_products, tensor_from, with_values_mut};
use super::{TensorMetadata, by_rows, dropout_with, is_fast, is_half, rows_of_a_sequence, upcast};

/// `(x − mean) / √(variance + ε) · γ + β` along the last dimension, with the variance of the row itself (over H, not
/// H − 1).
///
/// # Shapes
/// - `x` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
///
/// # Panics
/// If the shapes are others.
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

/// `layer_norm(residual + dropout(x·W + b))`: a dense layer and what closes its half of an encoder layer; see [`add_norm`].
///
/// # Shapes
/// - `x`: `[…, I]`
/// - `weight`: `[I, H]`, `bias`: `[H]`
/// - `residual` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
///
/// # Panics
/// If the shapes are others.
pub fn linear_add_norm<const D: usize>(
    x: Tensor<D>,
    (weight, bias): (Tensor<2>, Tensor<1>),
    residual: Tensor<D>,
    dropout: Option<f64>,
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::linear_add_norm(x, (weight, bias), residual, dropout, (gamma, beta), epsilon);
    }
    add_norm(residual, super::linear(x, weight, bias), dropout, gamma, beta, epsilon)
}

/// `layer_norm(residual + dropout(x))`: what closes each half of an encoder layer ("Add & Norm", Vaswani et al. 2017,
/// figure 1).
///
/// # Shapes
/// - `x`, `residual` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
/// - `dropout`: the probability of zeroing an element of `x`, if there is to be dropout
///
/// # Panics
/// If the shapes are others.
pub fn add_norm<const D: usize>(
    residual: Tensor<D>,
    x: Tensor<D>,
    dropout: Option<f64>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    assert_eq!(residual.dims(), x.dims(), "shapes of the two summands");
    assert_eq!([gamma.dims(), beta.dims()], [[x.dims()[D - 1]]; 2], "shapes of γ and β");
    let dropout = dropout.map(Mask::next);
    if !is_fast(&x) {
        let x = dropout.map_or(x.clone(), |mask| dropout_with(x, mask));
        return layer_norm(residual + x, gamma, beta, epsilon);
    }
    let (dropout, tokens) = (dropout.unwrap_or(Mask::NONE), rows_of_a_sequence(&x));
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    by_rows(x, |x| {
        let residual = residual.reshape::<2, _>(x.shape()).into_dispatch();
        // x is moved: uniquely owned, it is changed in place.
        let x = x.into_dispatch();
        Tensor::from_dispatch(Dispatch::fast_add_norm(residual, x, gamma, beta, epsilon as f32, dropout, tokens))
    })
}

/// The fast versions.
#[backend_extension(Flex, Autodiff)]
pub trait LayerNormOps: Backend {
    /// Shapes: `x` and output `[R, H]`, `gamma` and `beta` `[H]`.
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// The normalized sum of `residual` and `x` after dropout; shapes as of [`LayerNormOps::fast_layer_norm`]. A sequence
    /// has `tokens` rows.
    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> FloatTensor<Self>;
}

/// The gradients of the fast versions.
pub trait LayerNormGradients: LayerNormOps {
    /// The gradients of `x`, `gamma` and `beta`.
    fn layer_norm_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// [`LayerNormOps::fast_add_norm`] and, for the gradient, the sum before normalization.
    fn add_norm_with_sum(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of `residual`, `x`, `gamma` and `beta`.
    fn add_norm_gradients(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// The key of the mask of a row's sequence, and the index of the row's first element within it.
#[inline(always)]
fn place(mask: Mask, row: usize, tokens: usize, width: usize) -> (u64, u32) {
    (mask.key_of(row / tokens, 0, 1), ((row % tokens) * width) as u32)
}

/// The mean of a row, and 1 / √(variance + ε).
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum_of(row, |x| x) / count;
    let squares = sum_of(row, |x| (x - mean) * (x - mean));
    (mean, 1.0 / (squares / count + epsilon).sqrt())
}

impl LayerNormOps for Flex {
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let [x, gamma, beta] = [x, gamma, beta].map(contiguous);
        let (values, gammas, betas) = (elements(&x), elements(&gamma), elements(&beta));
        let width = gammas.len().max(1);
        let mut output = Vec::with_capacity(values.len());
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in values.chunks_exact(width) {
                    let (mean, factor) = moments(row, epsilon);
                    let normalized = row.iter().zip(gammas).zip(betas);
                    output.extend(normalized.map(|((x, gamma), beta)| (x - mean) * factor * gamma + beta));
                }
            },
        );
        tensor_from(output, x.shape())
    }

    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> FloatTensor<Self> {
        Self::add_norm_with_sum(residual, x, gamma, beta, epsilon, dropout, tokens).0
    }
}

impl LayerNormGradients for Flex {
    fn layer_norm_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, gamma, gradient] = [x, gamma, gradient].map(contiguous);
        let mut backward = Backwards::new(elements(&gamma), epsilon);
        let mut dx = Vec::with_capacity(elements(&x).len());
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let width = backward.gamma.len().max(1);
                for (row, gradient) in elements(&x).chunks_exact(width).zip(elements(&gradient).chunks_exact(width)) {
                    dx.extend_from_slice(backward.row(row, gradient));
                }
            },
        );
        let Backwards { dgamma, dbeta, .. } = backward;
        (tensor_from(dx, x.shape()), tensor_from(dgamma, gamma.shape()), tensor_from(dbeta, gamma.shape()))
    }

    fn add_norm_with_sum(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [residual, x, gamma, beta] = [residual, x, gamma, beta].map(contiguous);
        let (residuals, gammas, betas, scale) =
            (elements(&residual), elements(&gamma), elements(&beta), dropout.scale());
        let width = gammas.len().max(1);
        let mut output = Vec::with_capacity(residuals.len());
        let sum = with_values_mut(
            x,
            #[inline(always)]
            |values| {
                let rows = values.chunks_exact_mut(width).zip(residuals.chunks_exact(width));
                for (index, (row, residual)) in rows.enumerate() {
                    if dropout.p > 0 {
                        let (key, first) = place(dropout, index, tokens, width);
                        for (column, x) in row.iter_mut().enumerate() {
                            *x *= factor(key, first.wrapping_add(column as u32), dropout.p, scale);
                        }
                    }
                    for (x, residual) in row.iter_mut().zip(residual) {
                        *x += residual;
                    }
                    let (mean, factor) = moments(row, epsilon);
                    let normalized = row.iter().zip(gammas).zip(betas);
                    output.extend(normalized.map(|((x, gamma), beta)| (x - mean) * factor * gamma + beta));
                }
            },
        );
        (tensor_from(output, sum.shape()), sum)
    }

    fn add_norm_gradients(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if dropout.p == 0 {
            let (dx, dgamma, dbeta) = Self::layer_norm_gradients(sum, gamma, gradient, epsilon);
            return (dx.clone(), dx, dgamma, dbeta);
        }
        let [sum, gamma, gradient] = [sum, gamma, gradient].map(contiguous);
        let (mut backward, scale) = (Backwards::new(elements(&gamma), epsilon), dropout.scale());
        let [mut dresidual, mut dx] = [(); 2].map(|()| Vec::with_capacity(elements(&sum).len()));
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let width = backward.gamma.len().max(1);
                let rows = elements(&sum).chunks_exact(width).zip(elements(&gradient).chunks_exact(width));
                for (index, (row, gradient)) in rows.enumerate() {
                    let ((key, first), change) = (place(dropout, index, tokens, width), backward.row(row, gradient));
                    dresidual.extend_from_slice(change);
                    dx.extend(
                        change
                            .iter()
                            .enumerate()
                            .map(|(column, g)| g * factor(key, first.wrapping_add(column as u32), dropout.p, scale)),
                    );
                }
            },
        );
        let (Backwards { dgamma, dbeta, .. }, shape) = (backward, sum.shape());
        (
            tensor_from(dresidual, shape.clone()),
            tensor_from(dx, shape),
            tensor_from(dgamma, gamma.shape()),
            tensor_from(dbeta, gamma.shape()),
        )
    }
}

/// The gradient of the normalization, row by row.
struct Backwards<'a> {
    gamma: &'a [f32],
    epsilon: f32,
    normalized: Vec<f32>,
    scaled: Vec<f32>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

impl<'a> Backwards<'a> {
    fn new(gamma: &'a [f32], epsilon: f32) -> Self {
        let [normalized, scaled, dgamma, dbeta] = [(); 4].map(|()| vec![0.0; gamma.len()]);
        Self { gamma, epsilon, normalized, scaled, dgamma, dbeta }
    }

    /// The gradient of a row; those of γ and β are added up.
    #[inline(always)]
    fn row(&mut self, row: &[f32], gradient: &[f32]) -> &[f32] {
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
}

/// [`LayerNormOps::fast_layer_norm`] within a graph.
#[derive(Debug, Clone)]
struct FastLayerNorm {
    epsilon: f32,
}

impl<B: LayerNormGradients> Differentiable<B, 3> for FastLayerNorm {
    type Saved = [FloatTensor<B>; 2];

    fn forward(&self, [x, gamma, beta]: [FloatTensor<B>; 3]) -> (FloatTensor<B>, Self::Saved) {
        (B::fast_layer_norm(x.clone(), gamma.clone(), beta, self.epsilon), [x, gamma])
    }

    fn backward(
        self,
        [x, gamma]: Self::Saved,
        gradient: FloatTensor<B>,
        _wanted: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let (dx, dgamma, dbeta) = B::layer_norm_gradients(x, gamma, gradient, self.epsilon);
        [dx, dgamma, dbeta].map(Some)
    }
}

/// [`LayerNormOps::fast_add_norm`] within a graph.
#[derive(Debug, Clone)]
struct FastAddNorm {
    epsilon: f32,
    dropout: Mask,
    tokens: usize,
}

impl<B: LayerNormGradients> Differentiable<B, 4> for FastAddNorm {
    type Saved = [FloatTensor<B>; 2];

    fn forward(&self, [residual, x, gamma, beta]: [FloatTensor<B>; 4]) -> (FloatTensor<B>, Self::Saved) {
        let Self { epsilon, dropout, tokens } = *self;
        let (output, sum) = B::add_norm_with_sum(residual, x, gamma.clone(), beta, epsilon, dropout, tokens);
        (output, [sum, gamma])
    }

    fn backward(
        self,
        [sum, gamma]: Self::Saved,
        gradient: FloatTensor<B>,
        _wanted: [bool; 4],
    ) -> [Option<FloatTensor<B>>; 4] {
        let Self { epsilon, dropout, tokens } = self;
        let (dresidual, dx, dgamma, dbeta) = B::add_norm_gradients(sum, gamma, gradient, epsilon, dropout, tokens);
        [dresidual, dx, dgamma, dbeta].map(Some)
    }
}

impl<B: LayerNormGradients, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        apply::<_, B, C, 3>(FastLayerNorm { epsilon }, [x, gamma, beta])
    }

    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout: Mask,
        tokens: usize,
    ) -> FloatTensor<Self> {
        apply::<_, B, C, 4>(FastAddNorm { epsilon, dropout, tokens }, [residual, x, gamma, beta])
    }
}
