//! Loss functions: cross-entropy for classes (words, labels, positions), squared error for values, and binary
//! cross-entropy for sets of labels. They return one loss per row or element; the caller averages.

use burn::prelude::*;
use burn::tensor::activation::softplus;

pub use crate::ops::cross_entropy;
use crate::ops::upcast;

/// The binary cross-entropy of each logit x and target y in nats, `softplus(x) − x·y`.
///
/// # Shapes
/// - `logits`, `targets` (0 or 1) and output: `[N, C]`
pub fn binary_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
    let logits = upcast(logits);
    softplus(logits.clone(), 1.0) - logits * targets
}

/// The squared error of each value.
///
/// # Shapes
/// - `values`, `targets` and output: `[N]`
pub fn squared_error(values: Tensor<1>, targets: Tensor<1>) -> Tensor<1> {
    (upcast(values) - targets).powi_scalar(2)
}
