//! Cross-entropy over many classes without a second copy of the scores: the forward pass only reads them, the gradient
//! takes their place.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, DType, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use pulp::Arch;

use super::flex::{by_lanes, changed, contiguous, elements, make, sum_of};
use super::math::exp_or_zero;
use super::{TensorMetadata, is_fast};

/// `−log softmax(logits)[target]` of each row, in nats.
///
/// # Shapes
/// - `logits`: `[N, C]`
/// - `targets`: `[N]`, each in 0..C
/// - output: `[N]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    if is_fast(&logits) {
        return Tensor::from_dispatch(Dispatch::fast_cross_entropy(logits.into_dispatch(), targets.into_dispatch()));
    }
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1).neg()
}

/// The fast version.
#[backend_extension(Flex, Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// Output: `[N]`.
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of the scores from that of each row's loss: `(softmax(logits) − one_hot(target)) · gradient`.
    fn fast_cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Whole numbers of either width.
fn indices(x: &FlexTensor) -> Vec<usize> {
    let (x, count) = (x.to_contiguous(), x.shape().num_elements());
    match x.dtype() {
        DType::I32 => x.storage::<i32>()[..count].iter().map(|&index| index as usize).collect(),
        _ => x.storage::<i64>()[..count].iter().map(|&index| index as usize).collect(),
    }
}

/// The highest of a row, and the sum of e to the power of each element less it.
#[inline(always)]
fn highest_and_sum(row: &[f32]) -> (f32, f32) {
    let highest = by_lanes(row, f32::NEG_INFINITY, f32::max);
    (highest, sum_of(row, |x| exp_or_zero(x - highest)))
}

impl CrossEntropyOps for Flex {
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        let (logits, targets) = (contiguous(logits), indices(&targets));
        let (values, classes) = (elements(&logits), logits.shape()[1].max(1));
        let mut losses = Vec::with_capacity(targets.len());
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, &target) in values.chunks_exact(classes).zip(&targets) {
                    let (highest, sum) = highest_and_sum(row);
                    losses.push(highest + sum.ln() - row[target]);
                }
            },
        );
        let count = losses.len();
        make(losses, Shape::from([count]))
    }

    fn fast_cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (logits, gradient, targets) = (contiguous(logits), contiguous(gradient), indices(&targets));
        let (classes, gradients) = (logits.shape()[1].max(1), elements(&gradient));
        changed(
            logits,
            #[inline(always)]
            |values| {
                for ((row, &target), gradient) in values.chunks_exact_mut(classes).zip(&targets).zip(gradients) {
                    let (highest, sum) = highest_and_sum(row);
                    let factor = gradient / sum;
                    for x in row.iter_mut() {
                        *x = exp_or_zero(*x - highest) * factor;
                    }
                    row[target] -= gradient;
                }
            },
        )
    }
}

/// Ties the fast version to burn's autodiff.
#[derive(Debug)]
struct CrossEntropyGradient;

impl<B: CrossEntropyOps> Backward<B, 1> for CrossEntropyGradient {
    type State = (FloatTensor<B>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let ([parent], (logits, targets)) = (ops.parents, ops.state);
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            gradients.register::<B>(parent.id, B::fast_cross_entropy_backward(logits, targets, gradient));
        }
    }
}

impl<B: CrossEntropyOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        let nodes = [logits.node()];
        let logits = logits.into_primitive();
        let losses = B::fast_cross_entropy(logits.clone(), targets.clone());
        match CrossEntropyGradient.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((logits, targets), losses),
            OpsKind::UnTracked(prepared) => prepared.finish(losses),
        }
    }

    fn fast_cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (logits, gradient) = (logits.into_primitive(), gradient.into_primitive());
        let leaf = <Self as burn::backend::AutodiffBackend>::from_inner;
        leaf(B::fast_cross_entropy_backward(logits, targets, gradient))
    }
}
