//! Multi-head self-attention (Vaswani et al. 2017, section 3.2, as used by BERT): every token looks at every token
//! that is not padding.
//!
//! `softmax(Q·Kᵀ / √D + mask) · V` in A heads beside each other, which [`mod@crate::ops::attention`] computes, between four
//! projections. Dropout falls on the probabilities, after the softmax.

use burn::prelude::*;

use super::Initializer;
use super::linear::Linear;
use crate::ops::{self, dropout::Dropout};

/// The four projections of one attention layer, each H to H.
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    /// What a token asks for.
    pub query: Linear,
    /// What a token offers to be found by.
    pub key: Linear,
    /// What a token hands over.
    pub value: Linear,
    /// Mixes the heads.
    pub output: Linear,
    /// On the attention probabilities.
    pub dropout: Dropout,
    /// Number of heads, A.
    pub heads: usize,
}

impl MultiHeadAttention {
    /// Fresh projections.
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

    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    /// - `padding`: `[B, T]`, true where a token is padding and must not be looked at
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let dropout = self.dropout.active(&hidden.device());
        let query = self.query.forward(hidden.clone());
        let key = self.key.forward(hidden.clone());
        let value = self.value.forward(hidden);
        self.output.forward(ops::attention(query, key, value, padding, self.heads, dropout))
    }

    /// What each token looks at, before dropout: `[B, A, T, T]` (from, to). Shapes: see [`MultiHeadAttention::forward`].
    pub fn probabilities(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<4> {
        let query = self.query.forward(hidden.clone());
        ops::attention::probabilities(query, self.key.forward(hidden), padding, self.heads)
    }
}
