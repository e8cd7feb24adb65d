//! Cross-entropy over many classes without a second copy of the scores: the forward pass only reads them, the gradient
//! takes their place.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, DType, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use pulp::Arch;

use super::autodiff::{Differentiable, apply};
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
    #[cfg(feature = "cube")]
    if super::cube::runs(&logits) && logits.dims()[0] > 0 {
        return super::cube::cross_entropy(logits, targets);
    }
    let logits = upcast(logits);
    if is_fast(&logits) {
        return Tensor::from_dispatch(Dispatch::fast_cross_entropy(logits.into_dispatch(), targets.into_dispatch()));
    }
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1).neg()
}

/// The fast version.
#[backend_extension(Flex, Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// The losses `[N]`.
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
}

/// The gradient of the fast version.
pub trait CrossEntropyGradient: CrossEntropyOps {
    /// The losses `[N]`, and the logarithm of each row's sum of exponentials `[N]`, which the gradient needs.
    fn cross_entropy_with_log_sums(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of the scores from that of each row's loss: `(softmax(logits) − one_hot(target)) · gradient`.
    fn cross_entropy_gradient(
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
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        Self::cross_entropy_with_log_sums(logits, targets).0
    }
}

impl CrossEntropyGradient for Flex {
    fn cross_entropy_with_log_sums(
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

    fn cross_entropy_gradient(
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

/// [`CrossEntropyOps::fast_cross_entropy`] within a graph.
#[derive(Debug, Clone)]
struct FastCrossEntropy<B: Backend> {
    targets: IntTensor<B>,
}

impl<B: CrossEntropyGradient> Differentiable<B, 1> for FastCrossEntropy<B> {
    type Saved = [FloatTensor<B>; 2];

    fn forward(&self, [logits]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Self::Saved) {
        let (losses, log_sums) = B::cross_entropy_with_log_sums(logits.clone(), self.targets.clone());
        (losses, [logits, log_sums])
    }

    fn backward(
        self,
        [logits, log_sums]: Self::Saved,
        gradient: FloatTensor<B>,
        _wanted: [bool; 1],
    ) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::cross_entropy_gradient(logits, self.targets, log_sums, gradient))]
    }
}

impl<B: CrossEntropyGradient, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(FastCrossEntropy::<B> { targets }, [logits])
    }
}
