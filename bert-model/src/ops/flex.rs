//! What the fused operations of flex share: access to a tensor's elements, and sums over rows.
//!
//! The loops of these operations are plain Rust. `pulp` compiles them for AVX-512, AVX2 and the baseline, and selects
//! one at run time. Each call runs on the calling thread, unless it says otherwise: [`crate::Workers`] keeps the cores
//! busy with a shard of the batch each.

use burn::backend::DType;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::Bytes;
use pulp::Arch;

use super::math::{exp_or_zero, higher};
use super::{Shape, TensorMetadata};

/// The contiguous tensor, whose elements begin at the start of its storage.
pub(super) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() && x.layout().start_offset() == 0 { x } else { x.to_contiguous() }
}

/// A contiguous tensor of these values.
pub(super) fn tensor_from(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// The elements of a contiguous tensor, in row-major order.
pub(super) fn elements(x: &FlexTensor) -> &[f32] {
    let count = x.shape().num_elements();
    &x.storage::<f32>()[..count]
}

/// Changes the elements of a contiguous tensor, in place if it is uniquely owned. `change` is compiled for each
/// instruction set.
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

/// Softmax of a row, in place.
#[inline(always)]
pub(super) fn softmax_row(row: &mut [f32]) {
    let [_, sum] = exponentiate(row);
    let factor = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= factor;
    }
}

/// Replaces each element by its exponential, divided by that of the highest. Returns the highest element and the sum of
/// the exponentials.
#[inline(always)]
pub(super) fn exponentiate(row: &mut [f32]) -> [f32; 2] {
    let highest = highest_of(row);
    for x in row.iter_mut() {
        *x = exp_or_zero(*x - highest);
    }
    [highest, sum_of(row, |x| x)]
}

/// The highest element of a row, NaN left out; −∞ for an empty row.
#[inline(always)]
fn highest_of(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = higher(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = higher(*lane, x);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, higher)
}

/// The sum of `term` over a row in eight interleaved lanes, then over the lanes: a fixed order that suits vector
/// instructions.
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

/// The dot product of two rows, in the order of [`sum_of`].
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
