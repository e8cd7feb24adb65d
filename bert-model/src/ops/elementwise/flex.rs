//! GELU, softmax and dropout on flex, in one pass over memory, in place where the input is uniquely owned.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorMetadata};

use super::{ElementwiseOps, reference_dropout, reference_gelu_backward, reference_softmax_backward};
use crate::ops::dropout::{Mask, factor};
use crate::ops::flex::{contiguous, elements, softmax_row, sum_of, with_values_mut};
use crate::ops::math::{erf, exp};

impl ElementwiseOps for Flex {
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match contiguous_f32(x) {
            Ok(x) => with_values_mut(
                x,
                #[inline(always)]
                |values| {
                    for x in values {
                        *x *= 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
                    }
                },
            ),
            Err(x) => Self::gelu(x),
        }
    }

    fn fast_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, gradient) = match (contiguous_f32(x), contiguous_f32(gradient)) {
            (Ok(x), Ok(gradient)) => (x, gradient),
            (Ok(x) | Err(x), Ok(gradient) | Err(gradient)) => return reference_gelu_backward::<Self>(x, gradient),
        };
        let inputs = elements(&x);
        with_values_mut(
            gradient,
            #[inline(always)]
            |gradients| {
                for (gradient, &x) in gradients.iter_mut().zip(inputs) {
                    // Φ(x) + x·φ(x); 1 / √(2π) = 0.3989…
                    let cumulative = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
                    *gradient *= cumulative + x * 0.398_942_3 * exp(-0.5 * x * x);
                }
            },
        )
    }

    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = match contiguous_f32(x) {
            Ok(x) => x,
            Err(x) => return Self::softmax(x, 1),
        };
        let columns = x.shape()[1].max(1);
        with_values_mut(
            x,
            #[inline(always)]
            |values| {
                for row in values.chunks_exact_mut(columns) {
                    softmax_row(row);
                }
            },
        )
    }

    fn fast_softmax_backward(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (y, gradient) = match (contiguous_f32(y), contiguous_f32(gradient)) {
            (Ok(y), Ok(gradient)) => (y, gradient),
            (Ok(y) | Err(y), Ok(gradient) | Err(gradient)) => return reference_softmax_backward::<Self>(y, gradient),
        };
        let (outputs, columns) = (elements(&y), y.shape()[1].max(1));
        with_values_mut(
            gradient,
            #[inline(always)]
            |gradients| {
                for (gradients, outputs) in gradients.chunks_exact_mut(columns).zip(outputs.chunks_exact(columns)) {
                    for (gradient, y) in gradients.iter_mut().zip(outputs) {
                        *gradient *= y;
                    }
                    let sum = sum_of(gradients, |x| x);
                    for (gradient, y) in gradients.iter_mut().zip(outputs) {
                        *gradient -= y * sum;
                    }
                }
            },
        )
    }

    fn fast_dropout(x: FloatTensor<Self>, mask: Mask, tokens: usize) -> FloatTensor<Self> {
        let x = match contiguous_f32(x) {
            Ok(x) => x,
            Err(x) => return reference_dropout::<Self>(x, mask, tokens),
        };
        let (sequence, scale) = ((tokens * x.shape()[1]).max(1), mask.scale());
        with_values_mut(
            x,
            #[inline(always)]
            |values| {
                for (number, values) in values.chunks_mut(sequence).enumerate() {
                    let key = mask.key_of(number, 0, 1);
                    for (index, x) in values.iter_mut().enumerate() {
                        *x *= factor(key, index as u32, mask.p, scale);
                    }
                }
            },
        )
    }
}

/// The contiguous tensor if it is `f32`; else the tensor unchanged (`f64` in the gradient tests), for the reference
/// implementation.
fn contiguous_f32(x: FlexTensor) -> Result<FlexTensor, FlexTensor> {
    if x.dtype() == DType::F32 { Ok(contiguous(x)) } else { Err(x) }
}
