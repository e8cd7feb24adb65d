//! LAMB (You et al. 2020), for large batches: Adam's step, scaled by `‖p‖ / ‖step‖` for parameters that decay.

use burn::prelude::*;

use super::adamw::{Constants, Moments, direction};

/// A parameter after its step, and its means.
pub(super) fn step(
    value: Tensor<2>,
    gradient: Tensor<2>,
    moments: Moments,
    constants: &Constants,
    decays: bool,
) -> (Tensor<2>, Moments) {
    let (step, moments) = direction(value.clone(), gradient, moments, constants);
    let step = if decays { step.clone() * trust_ratio(value.clone(), step) } else { step };
    (value - step * constants.learning_rate, moments)
}

/// LAMB's ratio `‖p‖ / ‖step‖`, 1 where one of the two is 0. Shape: `[1, 1]`.
fn trust_ratio(value: Tensor<2>, step: Tensor<2>) -> Tensor<2> {
    let norm = |x: Tensor<2>| x.powi_scalar(2).sum_dim(1).sum_dim(0).sqrt();
    let (value, step) = (norm(value), norm(step));
    let is_zero = value.clone().equal_elem(0).bool_or(step.clone().equal_elem(0));
    (value / step).mask_fill(is_zero, 1.0)
}
