//! Adam with decoupled weight decay (Loshchilov and Hutter 2019; google-research/bert, `optimization.py`).
//!
//! With `m` and `v` the running means of the gradient and of its square, every step moves a parameter by
//! `−lr · (m̂ / (√v̂ + ε) + λ·p)`. Biases and LayerNorm have no decay λ. Google's own Adam leaves out the bias correction
//! (`m̂ = m`).

use bert_model::ops::{self, adam::AdamStep, adam::adam};
use burn::prelude::*;

/// The running means of one parameter, as matrices.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub first: Tensor<2>,
    pub second: Tensor<2>,
}

impl Moments {
    /// Before the first step.
    pub fn zeros(gradient: &Tensor<2>) -> Self {
        Self { first: gradient.zeros_like(), second: gradient.zeros_like() }
    }
}

/// The numbers of one parameter's step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    /// What the gradient is multiplied by first.
    pub gradient_scale: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// `m̂ = m / correction1`
    pub correction1: f64,
    /// `v̂ = v / correction2`
    pub correction2: f64,
    pub epsilon: f64,
    /// λ of this parameter.
    pub weight_decay: f64,
    pub learning_rate: f64,
}

/// A parameter after its step, and its means.
pub(super) fn step(
    value: Tensor<2>,
    gradient: Tensor<2>,
    moments: Moments,
    constants: &Constants,
) -> (Tensor<2>, Moments) {
    if ops::is_fast(&value) {
        let step = AdamStep {
            gradient_scale: constants.gradient_scale as f32,
            beta1: constants.beta1 as f32,
            beta2: constants.beta2 as f32,
            correction1: constants.correction1 as f32,
            correction2: constants.correction2 as f32,
            epsilon: constants.epsilon as f32,
            weight_decay: constants.weight_decay as f32,
            learning_rate: constants.learning_rate as f32,
        };
        let [value, first, second] = adam(value, moments.first, moments.second, gradient, step);
        return (value, Moments { first, second });
    }
    let (direction, moments) = direction(value.clone(), gradient, moments, constants);
    (value - direction * constants.learning_rate, moments)
}

/// `m̂ / (√v̂ + ε) + λ·p`, and the means after this step.
pub(super) fn direction(
    value: Tensor<2>,
    gradient: Tensor<2>,
    moments: Moments,
    constants: &Constants,
) -> (Tensor<2>, Moments) {
    let Constants { gradient_scale, beta1, beta2, correction1, correction2, epsilon, weight_decay, .. } = *constants;
    let gradient = if gradient_scale == 1.0 { gradient } else { gradient * gradient_scale };
    let first = moments.first * beta1 + gradient.clone() * (1.0 - beta1);
    let second = moments.second * beta2 + gradient.powi_scalar(2) * (1.0 - beta2);
    let moments = Moments { first: first.clone(), second: second.clone() };
    let root = (second / correction2).sqrt() + epsilon;
    (first / correction1 / root + value * weight_decay, moments)
}
