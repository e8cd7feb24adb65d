//! Layer normalization (Ba et al. 2016), used after every residual sum, after the embeddings and in the masked-LM head.

use burn::module::Param;
use burn::prelude::*;

use super::linear::Linear;
use crate::ops::{self, dropout::Dropout};

/// Layer normalization, `(x − mean) / √(variance + ε) · γ + β` over H.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale γ, `[H]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift β, `[H]`.
    pub beta: Param<Tensor<1>>,
    /// ε, added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// Normalizes every hidden state. Input and output: `[…, H]`.
    pub fn forward<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(hidden, self.gamma.val(), self.beta.val(), self.epsilon)
    }

    /// `layer_norm(residual + dropout(linear(x)))`: the end of each half of an encoder layer (Vaswani et al. 2017, §3.1
    /// and §5.4).
    ///
    /// # Shapes
    /// - `residual` and output: `[…, H]`
    /// - `x`: `[…, I]`, where `linear` maps I to H
    pub fn after_residual<const D: usize>(
        &self,
        residual: Tensor<D>,
        linear: &Linear,
        x: Tensor<D>,
        dropout: &Dropout,
    ) -> Tensor<D> {
        let dropout = dropout.active(&x.device());
        let dense = (linear.weight.val(), linear.bias.val());
        ops::linear_add_norm(x, dense, residual, dropout, (self.gamma.val(), self.beta.val()), self.epsilon)
    }
}
