//! LayerNorm (Ba et al. 2016), after every residual sum, after the embeddings and in the masked-LM head.

use burn::module::Param;
use burn::prelude::*;

use crate::ops::{self, dropout::Dropout};

/// Every hidden state to mean 0 and variance 1, then stretched and shifted component by component.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Stretches, `[H]`.
    pub gamma: Param<Tensor<1>>,
    /// Shifts, `[H]`.
    pub beta: Param<Tensor<1>>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// Input and output: `[…, H]`.
    pub fn forward<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(hidden, self.gamma.val(), self.beta.val(), self.epsilon)
    }

    /// The normalized `residual + dropout(hidden)`. Inputs and output: `[…, H]`.
    pub fn after_residual<const D: usize>(
        &self,
        residual: Tensor<D>,
        hidden: Tensor<D>,
        dropout: &Dropout,
    ) -> Tensor<D> {
        let dropout = dropout.active(&hidden.device());
        ops::add_norm(residual, hidden, dropout, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}
