//! Layer normalisation (Ba et al. 2016): every row to mean 0 and variance 1, then times γ plus β.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::flex::{contiguous, elements, make, sum_of, sum_of_products};
use super::{TensorMetadata, by_rows, is_fast, is_half, widened};

/// `(x − mean) / √(variance + ε) · γ + β` along the last dimension, with the variance of the row itself (over H, not
/// H − 1).
///
/// # Shapes
/// - `x` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<D> {
    if is_half(&x) {
        let dtype = x.dtype();
        return layer_norm(widened(x), widened(gamma), widened(beta), epsilon).cast(dtype);
    }
    if is_fast(&x) {
        let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
        return by_rows(x, |x| {
            Tensor::from_dispatch(Dispatch::fast_layer_norm(x.into_dispatch(), gamma, beta, epsilon as f32))
        });
    }
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
    centred / (variance + epsilon).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}

/// The fast version.
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
                    let normalised = row.iter().zip(gammas).zip(betas);
                    output.extend(normalised.map(|((x, gamma), beta)| (x - mean) * factor * gamma + beta));
                }
            },
        );
        make(output, x.shape())
    }

    fn fast_layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, gamma, gradient] = [x, gamma, gradient].map(contiguous);
        let (values, gammas, gradients) = (elements(&x), elements(&gamma), elements(&gradient));
        let width = gammas.len().max(1);
        let (mut dx, mut dgamma, mut dbeta) = (Vec::with_capacity(values.len()), vec![0.0; width], vec![0.0; width]);
        let mut scaled = vec![0.0; width];
        let mut normalised = vec![0.0; width];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, gradient) in values.chunks_exact(width).zip(gradients.chunks_exact(width)) {
                    let (mean, factor) = moments(row, epsilon);
                    for i in 0..width {
                        normalised[i] = (row[i] - mean) * factor;
                        scaled[i] = gradient[i] * gammas[i];
                        dgamma[i] += gradient[i] * normalised[i];
                        dbeta[i] += gradient[i];
                    }
                    let mean_gradient = sum_of(&scaled, |g| g) / width as f32;
                    let mean_product = sum_of_products(&scaled, &normalised) / width as f32;
                    let change = scaled.iter().zip(&normalised);
                    dx.extend(change.map(|(g, x)| (g - mean_gradient - x * mean_product) * factor));
                }
            },
        );
        (make(dx, x.shape()), make(dgamma, gamma.shape()), make(dbeta, gamma.shape()))
    }
}

/// Ties the fast version to burn's autodiff.
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
}
