//! Cross-entropy over many classes without a second copy of the scores: the forward pass only reads them, the gradient
//! takes their place.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, DType, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use pulp::Arch;

use super::flex::{by_lanes, contiguous, elements, sum_of, tensor_from, with_values_mut};
use super::math::exp_or_zero;
use super::{TensorMetadata, is_fast, upcast};

/// `−log softmax(logits)[target]` of each row, in nats.
///
/// # Shapes
/// - `logits`: `[N, C]`
/// - `targets`: `[N]`, each in 0..C
/// - output: `[N]`, in `f32` also for scores of half precision
///
/// # Panics
/// If the shapes are others, or a target is no class.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    assert_eq!(logits.dims()[0], targets.dims()[0], "rows of scores and targets");
    let logits = upcast(logits);
    if is_fast(&logits) {
        let (losses, _) = Dispatch::fast_cross_entropy(logits.into_dispatch(), targets.into_dispatch());
        return Tensor::from_dispatch(losses);
    }
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1).neg()
}

/// The fast version.
#[backend_extension(Flex, Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// Outputs: the losses `[N]`, and the logarithm of each row's sum of exponentials `[N]`, which the gradient needs.
    fn fast_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of the scores from that of each row's loss: `(softmax(logits) − one_hot(target)) · gradient`.
    fn fast_cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
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

impl CrossEntropyOps for Flex {
    fn fast_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (logits, targets) = (contiguous(logits), indices(&targets));
        let (values, classes) = (elements(&logits), logits.shape()[1].max(1));
        let (mut losses, mut log_sums) = (Vec::with_capacity(targets.len()), Vec::with_capacity(targets.len()));
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, &target) in values.chunks_exact(classes).zip(&targets) {
                    let highest = by_lanes(row, f32::NEG_INFINITY, f32::max);
                    let log_sum = highest + sum_of(row, |x| exp_or_zero(x - highest)).ln();
                    losses.push(log_sum - row[target]);
                    log_sums.push(log_sum);
                }
            },
        );
        let shape = Shape::from([targets.len()]);
        (tensor_from(losses, shape.clone()), tensor_from(log_sums, shape))
    }

    fn fast_cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [logits, log_sums, gradient] = [logits, log_sums, gradient].map(contiguous);
        let (classes, targets) = (logits.shape()[1].max(1), indices(&targets));
        let (log_sums, gradients) = (elements(&log_sums), elements(&gradient));
        with_values_mut(
            logits,
            #[inline(always)]
            |values| {
                let rows = values.chunks_exact_mut(classes).zip(&targets).zip(log_sums).zip(gradients);
                for (((row, &target), &log_sum), &gradient) in rows {
                    for x in row.iter_mut() {
                        *x = exp_or_zero(*x - log_sum) * gradient;
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
    type State = (FloatTensor<B>, IntTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let ([parent], (logits, targets, log_sums)) = (ops.parents, ops.state);
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            gradients.register::<B>(parent.id, B::fast_cross_entropy_backward(logits, targets, log_sums, gradient));
        }
    }
}

impl<B: CrossEntropyOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn fast_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [logits.node()];
        let logits = logits.into_primitive();
        let (losses, log_sums) = B::fast_cross_entropy(logits.clone(), targets.clone());
        let leaf = <Self as AutodiffBackend>::from_inner(log_sums.clone());
        match CrossEntropyGradient.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => (prepared.finish((logits, targets, log_sums), losses), leaf),
            OpsKind::UnTracked(prepared) => (prepared.finish(losses), leaf),
        }
    }

    fn fast_cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [logits, log_sums, gradient] = [logits, log_sums, gradient].map(|tensor| tensor.into_primitive());
        <Self as AutodiffBackend>::from_inner(B::fast_cross_entropy_backward(logits, targets, log_sums, gradient))
    }
}
