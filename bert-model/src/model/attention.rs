//! Multi-head self-attention (Vaswani et al. 2017, §3.2.2): every token attends to every token that is not padding.
//!
//! The projections of queries, keys, values and output are here; [`mod@crate::ops::attention`] computes
//! `softmax(Q·Kᵀ / √D + mask) · V` in A parallel heads. Dropout is applied to the attention probabilities.

use burn::prelude::*;

use super::Initializer;
use super::linear::Linear;
use crate::ops::{self, dropout::Dropout};

/// The multi-head self-attention of one encoder layer: four projections, each H to H.
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    /// Query projection.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Output projection over the concatenated heads.
    pub output: Linear,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
    /// Number of heads, A.
    pub heads: usize,
}

impl MultiHeadAttention {
    /// Newly initialized projections.
    pub fn init(initializer: &mut Initializer) -> Self {
        let config = initializer.config();
        let hidden = config.hidden_size;
        Self {
            query: initializer.linear(hidden, hidden),
            key: initializer.linear(hidden, hidden),
            value: initializer.linear(hidden, hidden),
            output: initializer.linear(hidden, hidden),
            dropout: Dropout::new(config.attention_probs_dropout_prob),
            heads: config.num_attention_heads,
        }
    }

    /// The context vectors of all heads, concatenated, before the output projection. The output projection is applied
    /// with the residual sum, by [`super::layer_norm::LayerNorm::after_residual`].
    ///
    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    /// - `padding`: `[B, T]`, true for padding tokens, which get no attention
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let dropout = self.dropout.active(&hidden.device());
        let projections = [&self.query, &self.key, &self.value].map(|linear| (linear.weight.val(), linear.bias.val()));
        ops::self_attention(hidden, projections, padding, self.heads, dropout)
    }

    /// The attention probabilities before dropout: how much each token attends to each other token.
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, H]`
    /// - `padding`: `[B, T]`, true for padding tokens
    /// - output: `[B, A, T, T]` (query, key)
    pub fn probabilities(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<4> {
        let query = self.query.forward(hidden.clone());
        ops::attention::probabilities(query, self.key.forward(hidden), padding, self.heads)
    }
}
