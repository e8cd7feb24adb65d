//! Layer normalization (Ba et al. 2016): every row to mean 0 and variance 1, then times γ plus β; also of a residual sum
//! with dropout, in one pass over memory.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::dropout::{self, bits, scale};
use super::flex::{contiguous, elements, sum_of, sum_of_products, tensor_from, with_values_mut};
use super::{TensorMetadata, by_rows, dropout_with, is_fast, is_half, upcast};

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
    let dropout = dropout.map(|p| (dropout::next_key(), dropout::threshold(p)));
    if !is_fast(&x) {
        let x = dropout.map_or(x.clone(), |(key, p)| dropout_with(x, key, p));
        return layer_norm(residual + x, gamma, beta, epsilon);
    }
    let (key, p) = dropout.unwrap_or_default();
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    by_rows(x, |x| {
        let residual = residual.reshape::<2, _>(x.shape()).into_dispatch();
        // x is moved: nobody else's, it is changed in place.
        let (output, _) = Dispatch::fast_add_norm(residual, x.into_dispatch(), gamma, beta, epsilon as f32, key, p);
        Tensor::from_dispatch(output)
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

    /// The gradients of `x`, `gamma` and `beta`.
    fn fast_layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Outputs: the normalized sum and, for the gradient, the sum itself; shapes as of [`LayerNormOps::fast_layer_norm`].
    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout_key: u64,
        p: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of `residual`, `x`, `gamma` and `beta`.
    fn fast_add_norm_backward(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
        dropout_key: u64,
        p: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
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

    fn fast_layer_norm_backward(
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

    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout_key: u64,
        p: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [residual, x, gamma, beta] = [residual, x, gamma, beta].map(contiguous);
        let (residuals, gammas, betas, scale) = (elements(&residual), elements(&gamma), elements(&beta), scale(p));
        let width = gammas.len().max(1);
        let mut output = Vec::with_capacity(residuals.len());
        let sum = with_values_mut(
            x,
            #[inline(always)]
            |values| {
                let rows = values.chunks_exact_mut(width).zip(residuals.chunks_exact(width));
                for (index, (row, residual)) in rows.enumerate() {
                    if p > 0 {
                        let first = (index * width) as u32;
                        for (column, x) in row.iter_mut().enumerate() {
                            *x *= if bits(dropout_key, first.wrapping_add(column as u32)) < p { 0.0 } else { scale };
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

    fn fast_add_norm_backward(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
        dropout_key: u64,
        p: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if p == 0 {
            let (dx, dgamma, dbeta) = Self::fast_layer_norm_backward(sum, gamma, gradient, epsilon);
            return (dx.clone(), dx, dgamma, dbeta);
        }
        let [sum, gamma, gradient] = [sum, gamma, gradient].map(contiguous);
        let (mut backward, scale) = (Backwards::new(elements(&gamma), epsilon), scale(p));
        let [mut dresidual, mut dx] = [(); 2].map(|()| Vec::with_capacity(elements(&sum).len()));
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let width = backward.gamma.len().max(1);
                let rows = elements(&sum).chunks_exact(width).zip(elements(&gradient).chunks_exact(width));
                for (index, (row, gradient)) in rows.enumerate() {
                    let (first, change) = ((index * width) as u32, backward.row(row, gradient));
                    dresidual.extend_from_slice(change);
                    dx.extend(change.iter().enumerate().map(|(column, g)| {
                        g * if bits(dropout_key, first.wrapping_add(column as u32)) < p { 0.0 } else { scale }
                    }));
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

/// Ties the fast version of [`layer_norm`] to burn's autodiff.
#[derive(Debug)]
struct LayerNormGradient(f32);

impl<B: LayerNormOps> Backward<B, 3> for LayerNormGradient {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let ([x, gamma], gradient) = (ops.state, gradients.consume::<B>(&ops.node));
        let (dx, dgamma, dbeta) = B::fast_layer_norm_backward(x, gamma, gradient, self.0);
        for (parent, gradient) in ops.parents.into_iter().zip([dx, dgamma, dbeta]) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Ties that of [`add_norm`].
#[derive(Debug)]
struct AddNormGradient {
    epsilon: f32,
    dropout_key: u64,
    p: u32,
}

impl<B: LayerNormOps> Backward<B, 4> for AddNormGradient {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let ([sum, gamma], gradient) = (ops.state, gradients.consume::<B>(&ops.node));
        let Self { epsilon, dropout_key, p } = self;
        let (dresidual, dx, dgamma, dbeta) = B::fast_add_norm_backward(sum, gamma, gradient, epsilon, dropout_key, p);
        for (parent, gradient) in ops.parents.into_iter().zip([dresidual, dx, dgamma, dbeta]) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: LayerNormOps, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.into_primitive());
        let output = B::fast_layer_norm(x.clone(), gamma.clone(), beta, epsilon);
        match LayerNormGradient(epsilon).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish([x, gamma], output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn fast_layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, gamma, gradient] = [x, gamma, gradient].map(|tensor| tensor.into_primitive());
        let (dx, dgamma, dbeta) = B::fast_layer_norm_backward(x, gamma, gradient, epsilon);
        let leaf = <Self as AutodiffBackend>::from_inner;
        (leaf(dx), leaf(dgamma), leaf(dbeta))
    }

    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        dropout_key: u64,
        p: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [residual.node(), x.node(), gamma.node(), beta.node()];
        let [residual, x, gamma, beta] = [residual, x, gamma, beta].map(|tensor| tensor.into_primitive());
        let (output, sum) = B::fast_add_norm(residual, x, gamma.clone(), beta, epsilon, dropout_key, p);
        let leaf = <Self as AutodiffBackend>::from_inner(sum.clone());
        match (AddNormGradient { epsilon, dropout_key, p }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => (prepared.finish([sum, gamma], output), leaf),
            OpsKind::UnTracked(prepared) => (prepared.finish(output), leaf),
        }
    }

    fn fast_add_norm_backward(
        sum: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
        dropout_key: u64,
        p: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [sum, gamma, gradient] = [sum, gamma, gradient].map(|tensor| tensor.into_primitive());
        let (dresidual, dx, dgamma, dbeta) = B::fast_add_norm_backward(sum, gamma, gradient, epsilon, dropout_key, p);
        let leaf = <Self as AutodiffBackend>::from_inner;
        (leaf(dresidual), leaf(dx), leaf(dgamma), leaf(dbeta))
    }
}
