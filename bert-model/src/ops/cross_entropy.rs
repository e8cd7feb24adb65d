//! Cross-entropy over many classes without a second copy of the logits: the forward pass on flex overwrites them with
//! their exponentials, which are computed once, and the backward pass overwrites these with the gradient.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, DType, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use super::autodiff::{Differentiable, apply};
use super::flex::{contiguous, elements, exponentiate, tensor_from, with_values_mut};
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
    /// The exponentials of the logits, each row's divided by its highest one, `[N, C]`, and their sums, `[N]`.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let (logits, targets) = (contiguous(logits), indices(&self.targets));
        let classes = logits.shape()[1].max(1);
        let (mut losses, mut sums) = (Vec::with_capacity(targets.len()), Vec::with_capacity(targets.len()));
        let exponentials = with_values_mut(
            logits,
            #[inline(always)]
            |values| {
                for (row, &target) in values.chunks_exact_mut(classes).zip(&targets) {
                    let right = row[target];
                    let [highest, sum] = exponentiate(row);
                    losses.push(highest + sum.ln() - right);
                    sums.push(sum);
                }
            },
        );
        let [losses, sums] = [losses, sums].map(|values| tensor_from(values, Shape::from([targets.len()])));
        (losses, [exponentials, sums])
    }

    /// `(softmax(logits) − one_hot(target)) · gradient`, for each row.
    fn backward(
        self,
        [exponentials, sums]: Self::Saved,
        gradient: FlexTensor,
        _wanted: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = contiguous(gradient);
        let (classes, targets) = (exponentials.shape()[1].max(1), indices(&self.targets));
        let (sums, gradients) = (elements(&sums), elements(&gradient));
        let dlogits = with_values_mut(
            exponentials,
            #[inline(always)]
            |values| {
                let rows = values.chunks_exact_mut(classes).zip(&targets).zip(sums).zip(gradients);
                for (((row, &target), &sum), &gradient) in rows {
                    let factor = gradient / sum;
                    row.iter_mut().for_each(|x| *x *= factor);
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
