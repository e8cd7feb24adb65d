//! Adam with decoupled weight decay (Loshchilov and Hutter 2019; google-research/bert, `optimization.py`).
//!
//! With `m` and `v` the running means of the gradient and of its square, every step moves a parameter by
//! `−lr · (m̂ / (√v̂ + ε) + λ·p)`, without λ for biases and LayerNorm. Google's Adam omits the bias correction
//! (`m̂ = m`). Implemented by [`bert_model::ops::optimizer::adam`].

use bert_model::ops::optimizer::{Constants, Control, Parameter, adam};

use super::UpdateRule;

/// The update rule of AdamW.
#[derive(Debug)]
pub(super) struct AdamW;

impl UpdateRule for AdamW {
    fn step(&self, parameters: Vec<Parameter>, control: &Control, constants: Constants) -> Vec<Parameter> {
        adam(parameters, control, constants)
    }
}
