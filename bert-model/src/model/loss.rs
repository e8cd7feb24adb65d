//! What training minimizes: cross-entropy over words, labels and positions, mean squared error for values, binary
//! cross-entropy for sets of labels. Each takes weights, so that a mean over several micro-batches is the mean over
//! all that they hold.

use burn::prelude::*;
use burn::tensor::activation::softplus;

pub use crate::ops::cross_entropy;

/// Binary cross-entropy of each element, from scores: `softplus(x) − x·y`.
///
/// # Shapes
/// - `logits`, `targets` (0 or 1) and output: `[N, C]`
pub fn binary_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
    softplus(logits.clone(), 1.0) - logits * targets
}

/// Squared error of each element.
///
/// # Shapes
/// - `values`, `targets` and output: `[N]`
pub fn squared_error(values: Tensor<1>, targets: Tensor<1>) -> Tensor<1> {
    (values - targets).powi_scalar(2)
}
