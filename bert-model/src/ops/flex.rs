//! The fast versions on the CPU: one pass over memory each, in place where nobody else looks at the input.
//!
//! The loops are plain; `pulp` has them compiled for AVX-512, AVX2 and the baseline, and picks at run time. Each call
//! runs on the thread that makes it: the trainer keeps the cores busy with a part of the batch each.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex};
use burn::tensor::Bytes;
use pulp::Arch;

use super::dropout::{bits, scale};
use super::math::{erf, exp, exp_or_zero};
use super::{FastOps, Shape, TensorMetadata, plain_dropout, plain_gelu_backward, plain_softmax_backward};

/// An `f32` tensor with its elements behind each other, or the tensor as it is if it has another type of number (f64 in
/// the gradient tests), which the plain version takes care of.
fn contiguous_f32(x: FlexTensor) -> Result<FlexTensor, FlexTensor> {
    if x.dtype() == DType::F32 { Ok(contiguous(x)) } else { Err(x) }
}

/// A tensor with its elements behind each other, from the start of its storage.
pub(super) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() && x.layout().start_offset() == 0 { x } else { x.to_contiguous() }
}

pub(super) fn tensor_from(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// The elements in their order.
pub(super) fn elements(x: &FlexTensor) -> &[f32] {
    let count = x.shape().num_elements();
    &x.storage::<f32>()[..count]
}

/// Changes `x` by a loop over its elements, in place if it is nobody else's.
pub(super) fn with_values_mut(mut x: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    let count = x.shape().num_elements();
    match x.try_storage_mut::<f32>() {
        Some(values) => {
            Arch::new().dispatch(|| change(&mut values[..count]));
            x
        }
        None => {
            let mut values = elements(&x).to_vec();
            Arch::new().dispatch(|| change(&mut values));
            tensor_from(values, x.shape())
        }
    }
}

impl FastOps for Flex {
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
            (Ok(x) | Err(x), Ok(gradient) | Err(gradient)) => return plain_gelu_backward::<Self>(x, gradient),
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
                    let highest = by_lanes(row, f32::NEG_INFINITY, f32::max);
                    for x in row.iter_mut() {
                        *x = exp_or_zero(*x - highest);
                    }
                    let factor = 1.0 / sum_of(row, |x| x);
                    for x in row.iter_mut() {
                        *x *= factor;
                    }
                }
            },
        )
    }

    fn fast_softmax_backward(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (y, gradient) = match (contiguous_f32(y), contiguous_f32(gradient)) {
            (Ok(y), Ok(gradient)) => (y, gradient),
            (Ok(y) | Err(y), Ok(gradient) | Err(gradient)) => return plain_softmax_backward::<Self>(y, gradient),
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

    fn fast_dropout(x: FloatTensor<Self>, key: u64, p: u32) -> FloatTensor<Self> {
        let x = match contiguous_f32(x) {
            Ok(x) => x,
            Err(x) => return plain_dropout::<Self>(x, key, p),
        };
        let scale = scale(p);
        with_values_mut(
            x,
            #[inline(always)]
            |values| {
                for (index, x) in values.iter_mut().enumerate() {
                    *x *= if bits(key, index as u32) < p { 0.0 } else { scale };
                }
            },
        )
    }
}

/// Folds a row in eight lanes and then the lanes: an order that is always the same and that vector instructions can keep.
#[inline(always)]
pub(super) fn by_lanes(row: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = fold(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = fold(*lane, x);
    }
    lanes.into_iter().fold(start, fold)
}

/// The sum of `term` over a row, in eight lanes.
#[inline(always)]
pub(super) fn sum_of(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += term(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += term(x);
    }
    lanes.into_iter().sum()
}

/// The scalar product of two rows, in eight lanes.
#[inline(always)]
pub(super) fn sum_of_products(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    for (left, right) in left.iter().zip(right) {
        for ((lane, x), y) in lanes.iter_mut().zip(left).zip(right) {
            *lane += x * y;
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(left_rest).zip(right_rest) {
        *lane += x * y;
    }
    lanes.into_iter().sum()
}
