//! The optimizer's operations on flex, in place: accumulation of gradients, their norm, and the steps of Adam and Muon.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;
use rayon::prelude::*;

use super::muon::{COEFFICIENTS, DECAY, ITERATIONS, SMALLEST_NORM};
use crate::ops::TensorMetadata;
use crate::ops::flex::{contiguous, elements, sum_of, tensor_from};
use crate::ops::gemm::{View, Write, matmul};

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

/// The constants of one step of Muon for a matrix, in single precision.
#[derive(Debug, Clone, Copy)]
pub struct MuonStep {
    /// Factor of the gradient, applied first: clipping and the inverse of the loss scale.
    pub gradient_scale: f32,
    /// Factor of the momentum with singular values near 1.
    pub length: f32,
    /// λ, the weight decay.
    pub weight_decay: f32,
    /// Factor of the whole step.
    pub learning_rate: f32,
}

/// Muon's step: the matrix and its momentum, `[R, C]`.
pub fn muon(value: Tensor<2>, momentum: Tensor<2>, gradient: Tensor<2>, step: MuonStep) -> [Tensor<2>; 2] {
    let (value, momentum) =
        Dispatch::fast_muon(value.into_dispatch(), momentum.into_dispatch(), gradient.into_dispatch(), step);
    [value, momentum].map(Tensor::from_dispatch)
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

    /// See [`muon`].
    fn fast_muon(
        value: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: MuonStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

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

/// Brings all singular values of a matrix `[rows, columns]` near 1: [`super::muon::orthogonalized`] in place.
pub(super) fn orthogonalize(x: &mut [f32], [rows, columns]: [usize; 2]) {
    let as_given = View::row_major(columns);
    let (view, small, large) =
        if rows > columns { (as_given.transposed(), columns, rows) } else { (as_given, rows, columns) };
    let norm = sum_of(x, |x| x * x).sqrt().max(SMALLEST_NORM as f32);
    x.iter_mut().for_each(|x| *x /= norm);
    if large * 2 > small * 3 {
        return orthogonalize_long(x, view, [small, large]);
    }
    let square = View::row_major(small);
    let [a, b, c] = COEFFICIENTS.map(|coefficient| coefficient as f32);
    let (mut squares, mut before) = (vec![0.0; small * small], vec![0.0; x.len()]);
    for _ in 0..ITERATIONS {
        before.copy_from_slice(x);
        let transposed = (&before[..], view.transposed());
        matmul([small, small, large], Write::Replace, (&mut squares, square), (&before, view), transposed);
        let mut polynomial = squares.clone();
        let combined = Write::Combine { output: b, product: c };
        matmul([small; 3], combined, (&mut polynomial, square), (&squares, square), (&squares, square));
        let combined = Write::Combine { output: a, product: 1.0 };
        matmul([small, large, small], combined, (x, view), (&polynomial, square), (&before, view));
    }
}

/// [`orthogonalize`] for a matrix X that is much longer than wide, in about half of the work. Each iteration multiplies X by
/// a polynomial of the small matrix X·Xᵀ, which becomes P·X·Xᵀ·P with the polynomial P: X itself is needed at the beginning
/// and at the end alone.
fn orthogonalize_long(x: &mut [f32], view: View, [small, large]: [usize; 2]) {
    let square = View::row_major(small);
    let multiply = |output: &mut [f32], write, left: &[f32], right: &[f32]| {
        matmul([small; 3], write, (output, square), (left, square), (right, square));
    };
    let [a, b, c] = COEFFICIENTS.map(|coefficient| coefficient as f32);
    let before = x.to_vec();
    let mut squares = vec![0.0; small * small];
    let transposed = (&before[..], view.transposed());
    matmul([small, small, large], Write::Replace, (&mut squares, square), (&before, view), transposed);
    let (mut product, mut result) = (vec![0.0; small * small], vec![0.0; small * small]);
    for iteration in 0..ITERATIONS {
        let mut polynomial = squares.clone();
        multiply(&mut polynomial, Write::Combine { output: b, product: c }, &squares, &squares);
        polynomial.iter_mut().step_by(small + 1).for_each(|diagonal| *diagonal += a);
        if iteration + 1 < ITERATIONS {
            multiply(&mut result, Write::Replace, &polynomial, &squares);
            multiply(&mut squares, Write::Replace, &result, &polynomial);
        }
        match iteration {
            0 => product = polynomial,
            _ => {
                multiply(&mut result, Write::Replace, &polynomial, &product);
                std::mem::swap(&mut product, &mut result);
            }
        }
    }
    matmul([small, large, small], Write::Replace, (x, view), (&product, square), (&before, view));
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

    fn fast_muon(
        value: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: MuonStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (mut value, mut momentum, gradient) = (owned(value), owned(momentum), contiguous(gradient));
        let MuonStep { gradient_scale, length, weight_decay, learning_rate } = step;
        let [rows, columns] = value.shape().dims();
        let decay = DECAY as f32;
        let next = |(momentum, gradient): (&mut f32, &f32)| {
            let new = gradient * gradient_scale * (1.0 - decay);
            *momentum = *momentum * decay + new;
            *momentum * decay + new
        };
        let mut update: Vec<f32> = elements_mut(&mut momentum).iter_mut().zip(elements(&gradient)).map(next).collect();
        orthogonalize(&mut update, [rows, columns]);
        for (value, update) in elements_mut(&mut value).iter_mut().zip(update) {
            *value -= (update * length + *value * weight_decay) * learning_rate;
        }
        (value, momentum)
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
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let mut lanes = [0.0_f32; 16];
                    let (parts, rest) = chunk.as_chunks::<16>();
                    for part in parts.iter().map(|part| &part[..]).chain([rest]) {
                        lanes.iter_mut().zip(part).for_each(|(lane, value)| *lane += value * value);
                    }
                    lanes.into_iter().map(f64::from).sum::<f64>()
                },
            )
        };
        let sums: Vec<f64> = elements(&x).par_chunks(CHUNK).map(squares).collect();
        tensor_from(vec![sums.into_iter().sum::<f64>() as f32], Shape::from([1]))
    }
}
