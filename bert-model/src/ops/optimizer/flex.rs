//! The optimizer's operations on flex, in place and on all cores: accumulation of gradients, their norm, and Adam's step.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;
use rayon::prelude::*;

use crate::ops::TensorMetadata;
use crate::ops::flex::{contiguous, elements, tensor_from};

/// Elements per task. A fixed number, so that sums do not depend on the number of cores.
const CHUNK: usize = 1 << 15;

/// The constants of one step of Adam, in single precision.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Factor of the gradient, applied first: clipping and the inverse of the loss scale.
    pub gradient_scale: f32,
    /// β₁, the decay of the first moment.
    pub beta1: f32,
    /// β₂, the decay of the second moment.
    pub beta2: f32,
    /// Bias correction of the first moment, a divisor.
    pub correction1: f32,
    /// Bias correction of the second moment, a divisor.
    pub correction2: f32,
    /// ε, added to the root of the second moment.
    pub epsilon: f32,
    /// λ, the weight decay.
    pub weight_decay: f32,
    /// Factor of the whole step.
    pub learning_rate: f32,
}

/// Adam's step: the parameter, its first and its second moment, all `[R, C]`.
pub fn adam(
    value: Tensor<2>,
    first: Tensor<2>,
    second: Tensor<2>,
    gradient: Tensor<2>,
    step: AdamStep,
) -> [Tensor<2>; 3] {
    let (value, first, second) = Dispatch::fast_adam(
        value.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        gradient.into_dispatch(),
        step,
    );
    [value, first, second].map(Tensor::from_dispatch)
}

/// `sum + x`, in place if `sum` is uniquely owned.
pub fn accumulate(sum: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fast_accumulate(sum.into_dispatch(), x.into_dispatch()))
}

/// The sum of the squares of all elements; shape `[1]`.
pub fn sum_of_squares(x: Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::fast_sum_of_squares(x.into_dispatch()))
}

/// The optimizer's operations.
#[backend_extension(Flex)]
pub trait OptimizerOps: Backend {
    /// See [`adam`].
    fn fast_adam(
        value: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`accumulate`].
    fn fast_accumulate(sum: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`sum_of_squares`].
    fn fast_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A contiguous, uniquely owned tensor; copied if necessary.
fn owned(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    if x.is_unique() { x } else { tensor_from(elements(&x).to_vec(), x.shape()) }
}

/// The elements of a contiguous, uniquely owned tensor.
fn elements_mut(x: &mut FlexTensor) -> &mut [f32] {
    let count = x.shape().num_elements();
    &mut x.storage_mut::<f32>()[..count]
}

impl OptimizerOps for Flex {
    fn fast_adam(
        value: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (mut value, mut first, mut second, gradient) =
            (owned(value), owned(first), owned(second), contiguous(gradient));
        let AdamStep { gradient_scale, beta1, beta2, correction1, correction2, epsilon, weight_decay, learning_rate } =
            step;
        let chunks = elements_mut(&mut value)
            .par_chunks_mut(CHUNK)
            .zip(elements_mut(&mut first).par_chunks_mut(CHUNK))
            .zip(elements_mut(&mut second).par_chunks_mut(CHUNK))
            .zip(elements(&gradient).par_chunks(CHUNK));
        chunks.for_each(|(((values, firsts), seconds), gradients)| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let all = values.iter_mut().zip(firsts.iter_mut()).zip(seconds.iter_mut()).zip(gradients);
                    for (((value, first), second), gradient) in all {
                        let gradient = gradient * gradient_scale;
                        *first = *first * beta1 + gradient * (1.0 - beta1);
                        *second = *second * beta2 + gradient * gradient * (1.0 - beta2);
                        let root = (*second / correction2).sqrt() + epsilon;
                        let direction = *first / correction1 / root + *value * weight_decay;
                        *value -= direction * learning_rate;
                    }
                },
            );
        });
        (value, first, second)
    }

    fn fast_accumulate(sum: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (mut sum, x) = (owned(sum), contiguous(x));
        let chunks = elements_mut(&mut sum).par_chunks_mut(CHUNK).zip(elements(&x).par_chunks(CHUNK));
        chunks.for_each(|(sums, values)| sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value));
        sum
    }

    fn fast_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = contiguous(x);
        let squares = |chunk: &[f32]| {
            let mut lanes = [0.0_f32; 16];
            for part in chunk.chunks(16) {
                lanes.iter_mut().zip(part).for_each(|(lane, value)| *lane += value * value);
            }
            lanes.into_iter().map(f64::from).sum::<f64>()
        };
        let sums: Vec<f64> = elements(&x).par_chunks(CHUNK).map(squares).collect();
        tensor_from(vec![sums.into_iter().sum::<f64>() as f32], Shape::from([1]))
    }
}
