//! Cross-entropy over many classes without a second copy of the logits: the forward pass on flex only reads them, and
//! the backward pass overwrites them with their gradient.

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

/// The cross-entropy of each row, `−log softmax(logits)[target]`, in nats.
///
/// # Shapes
/// - `logits`: `[N, C]`
/// - `targets`: `[N]`, each in 0..C
/// - output: `[N]`, in `f32` also for logits of half precision
///
/// # Panics
/// If the shapes do not match, or a target is not below C.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    assert_eq!(logits.dims()[0], targets.dims()[0], "rows of logits and targets");
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

/// Cross-entropy in one pass over the logits.
#[backend_extension(Flex, Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// The losses `[N]` of logits `[N, C]` and targets `[N]`.
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
}

impl CrossEntropyOps for Flex {
    fn fast_cross_entropy(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
        FastCrossEntropy { targets }.forward([logits]).0
    }
}

/// [`CrossEntropyOps::fast_cross_entropy`] for autodiff.
#[derive(Debug, Clone)]
struct FastCrossEntropy {
    targets: FlexTensor,
}

impl Differentiable<Flex, 1> for FastCrossEntropy {
    /// The logits, and the logarithm of each row's sum of exponentials, `[N]`.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let saved = logits.clone();
        let (logits, targets) = (contiguous(logits), indices(&self.targets));
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
        let [losses, log_sums] = [losses, log_sums].map(|values| tensor_from(values, Shape::from([targets.len()])));
        (losses, [saved, log_sums])
    }

    /// `(softmax(logits) − one_hot(target)) · gradient`, for each row.
    fn backward(
        self,
        [logits, log_sums]: Self::Saved,
        gradient: FlexTensor,
        _wanted: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let [logits, log_sums, gradient] = [logits, log_sums, gradient].map(contiguous);
        let (classes, targets) = (logits.shape()[1].max(1), indices(&self.targets));
        let (log_sums, gradients) = (elements(&log_sums), elements(&gradient));
        let dlogits = with_values_mut(
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
        );
        [Some(dlogits)]
    }
}

/// The values of an integer tensor of either width.
fn indices(x: &FlexTensor) -> Vec<usize> {
    let (x, count) = (x.to_contiguous(), x.shape().num_elements());
    match x.dtype() {
        DType::I32 => x.storage::<i32>()[..count].iter().map(|&index| index as usize).collect(),
        _ => x.storage::<i64>()[..count].iter().map(|&index| index as usize).collect(),
    }
}

impl<C: CheckpointStrategy> CrossEntropyOps for Autodiff<Flex, C> {
    fn fast_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        apply::<_, Flex, C, 1>(FastCrossEntropy { targets }, [logits])
    }
}
