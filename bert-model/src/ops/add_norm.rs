//! "Add & Norm" (Vaswani et al. 2017, §3.1 and figure 1): dropout, residual sum and layer normalization, in one pass
//! over memory on flex. It closes both halves of an encoder layer.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use pulp::Arch;

use super::autodiff::{Differentiable, apply};
use super::dropout::{Mask, factor};
use super::flex::{contiguous, elements, tensor_from, with_values_mut};
use super::layer_norm::{RowBackward, layer_norm_backward, normalize};
use super::{TensorMetadata, by_rows, dropout_with, is_fast, layer_norm, rows_of_a_sequence};

/// A dense layer and the Add & Norm after it, `layer_norm(residual + dropout(x·W + b))`; see [`add_norm()`].
///
/// # Shapes
/// - `x`: `[…, I]`
/// - `weight`: `[I, H]`, `bias`: `[H]`
/// - `residual` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
///
/// # Panics
/// If the shapes do not match.
pub fn linear_add_norm<const D: usize>(
    x: Tensor<D>,
    (weight, bias): (Tensor<2>, Tensor<1>),
    residual: Tensor<D>,
    dropout: Option<f64>,
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&x) {
        return super::cube::linear_add_norm(x, (weight, bias), residual, dropout, (gamma, beta), epsilon);
    }
    add_norm(residual, super::linear(x, weight, bias), dropout, gamma, beta, epsilon)
}

/// Add & Norm (Vaswani et al. 2017, §3.1 and §5.4), `layer_norm(residual + dropout(x))`.
///
/// `dropout` is the probability of zeroing an element of `x`; `None` for no dropout.
///
/// # Shapes
/// - `x`, `residual` and output: `[…, H]`
/// - `gamma`, `beta`: `[H]`
///
/// # Panics
/// If the shapes do not match.
pub fn add_norm<const D: usize>(
    residual: Tensor<D>,
    x: Tensor<D>,
    dropout: Option<f64>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    assert_eq!(residual.dims(), x.dims(), "shapes of the two summands");
    assert_eq!([gamma.dims(), beta.dims()], [[x.dims()[D - 1]]; 2], "shapes of γ and β");
    let dropout = dropout.map(Mask::next);
    if !is_fast(&x) {
        let x = dropout.map_or(x.clone(), |mask| dropout_with(x, mask));
        return layer_norm(residual + x, gamma, beta, epsilon);
    }
    let tokens = rows_of_a_sequence(&x);
    let settings = AddNorm { epsilon: epsilon as f32, dropout: dropout.unwrap_or(Mask::NONE), tokens };
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    by_rows(x, |x| {
        let residual = residual.reshape::<2, _>(x.shape()).into_dispatch();
        // x is moved, so that it is updated in place if it is uniquely owned.
        Tensor::from_dispatch(Dispatch::fast_add_norm(residual, x.into_dispatch(), gamma, beta, settings))
    })
}

/// The settings of [`AddNormOps::fast_add_norm`], which is also its operation for autodiff.
#[derive(Debug, Clone, Copy)]
pub struct AddNorm {
    epsilon: f32,
    dropout: Mask,
    /// Rows per sequence.
    tokens: usize,
}

/// Add & Norm in one pass over memory.
#[backend_extension(Flex, Autodiff)]
pub trait AddNormOps: Backend {
    /// Shapes: `residual`, `x` and output `[R, H]`, `gamma` and `beta` `[H]`.
    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        settings: AddNorm,
    ) -> FloatTensor<Self>;
}

impl AddNormOps for Flex {
    fn fast_add_norm(
        residual: FlexTensor,
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        settings: AddNorm,
    ) -> FlexTensor {
        settings.forward([residual, x, gamma, beta]).0
    }
}

impl Differentiable<Flex, 4> for AddNorm {
    /// The sum before normalization, and γ.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [residual, x, gamma, beta]: [FlexTensor; 4]) -> (FlexTensor, Self::Saved) {
        let saved_gamma = gamma.clone();
        let [residual, x, gamma, beta] = [residual, x, gamma, beta].map(contiguous);
        let (residuals, gamma, beta) = (elements(&residual), elements(&gamma), elements(&beta));
        let (width, scale) = (gamma.len().max(1), self.dropout.scale());
        let mut output = Vec::with_capacity(residuals.len());
        let sum = with_values_mut(
            x,
            #[inline(always)]
            |values| {
                let rows = values.chunks_exact_mut(width).zip(residuals.chunks_exact(width));
                for (index, (row, residual)) in rows.enumerate() {
                    if self.dropout.p > 0 {
                        let (key, first) = self.mask_position(index, width);
                        for (column, x) in row.iter_mut().enumerate() {
                            *x *= factor(key, first.wrapping_add(column as u32), self.dropout.p, scale);
                        }
                    }
                    for (x, residual) in row.iter_mut().zip(residual) {
                        *x += residual;
                    }
                    normalize(row, gamma, beta, self.epsilon, &mut output);
                }
            },
        );
        (tensor_from(output, sum.shape()), [sum, saved_gamma])
    }

    fn backward(self, [sum, gamma]: Self::Saved, gradient: FlexTensor, _wanted: [bool; 4]) -> [Option<FlexTensor>; 4] {
        if self.dropout.p == 0 {
            let [dsum, dgamma, dbeta] = layer_norm_backward(sum, gamma, gradient, self.epsilon);
            return [dsum.clone(), dsum, dgamma, dbeta].map(Some);
        }
        let [sum, gamma, gradient] = [sum, gamma, gradient].map(contiguous);
        let (mut backward, p, scale) =
            (RowBackward::new(elements(&gamma), self.epsilon), self.dropout.p, self.dropout.scale());
        let [mut dresidual, mut dx] = [(); 2].map(|()| Vec::with_capacity(elements(&sum).len()));
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let width = backward.width();
                let rows = elements(&sum).chunks_exact(width).zip(elements(&gradient).chunks_exact(width));
                for (index, (row, gradient)) in rows.enumerate() {
                    let ((key, first), dsum) = (self.mask_position(index, width), backward.row(row, gradient));
                    dresidual.extend_from_slice(dsum);
                    let dropped = |(column, g): (usize, &f32)| {
                        let index = first.wrapping_add(column as u32);
                        g * factor(key, index, p, scale)
                    };
                    dx.extend(dsum.iter().enumerate().map(dropped));
                }
            },
        );
        let ([dgamma, dbeta], shape) = (backward.parameters(), sum.shape());
        let [dresidual, dx] = [dresidual, dx].map(|values| tensor_from(values, shape.clone()));
        let [dgamma, dbeta] = [dgamma, dbeta].map(|values| tensor_from(values, gamma.shape()));
        [dresidual, dx, dgamma, dbeta].map(Some)
    }
}

impl AddNorm {
    /// The key of the dropout mask of a row's sequence, and the index of the row's first element in this mask.
    #[inline(always)]
    fn mask_position(&self, row: usize, width: usize) -> (u64, u32) {
        (self.dropout.key_of(row / self.tokens, 0, 1), ((row % self.tokens) * width) as u32)
    }
}

impl<C: CheckpointStrategy> AddNormOps for Autodiff<Flex, C> {
    fn fast_add_norm(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        settings: AddNorm,
    ) -> FloatTensor<Self> {
        apply::<_, Flex, C, 4>(settings, [residual, x, gamma, beta])
    }
}
