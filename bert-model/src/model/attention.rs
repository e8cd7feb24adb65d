//! Multi-head self-attention (Vaswani et al. 2017, section 3.2, as used by BERT): every token looks at every token
//! that is not padding.
//!
//! `softmax(Q·Kᵀ / √D + mask) · V` in A heads beside each other. Dropout falls on the probabilities, after the softmax.

use burn::nn::Linear;
use burn::prelude::*;
use burn::tensor::DType;

use super::Initialiser;
use crate::ops::dropout::Dropout;
use crate::ops::softmax;

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
    pub fn init(initialiser: &mut Initialiser) -> Self {
        let config = initialiser.config();
        let hidden = config.hidden_size;
        Self {
            query: initialiser.linear(hidden, hidden),
            key: initialiser.linear(hidden, hidden),
            value: initialiser.linear(hidden, hidden),
            output: initialiser.linear(hidden, hidden),
            dropout: Dropout::new(config.attention_probs_dropout_prob),
            heads: config.num_attention_heads,
        }
    }

    /// The attended hidden states and the probabilities that they were mixed with (before dropout).
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, H]`
    /// - `padding`: `[B, 1, 1, T]`, true where a token is padding and must not be looked at
    /// - output: `[B, T, H]` and `[B, A, T, T]` (from, to)
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<4, Bool>) -> (Tensor<3>, Tensor<4>) {
        let [batch, tokens, width] = hidden.dims();
        let head_size = width / self.heads;
        let split = |x: Tensor<3>| x.reshape([batch, tokens, self.heads, head_size]).swap_dims(1, 2);

        let query = split(self.query.forward(hidden.clone()));
        let key = split(self.key.forward(hidden.clone()));
        let value = split(self.value.forward(hidden));

        let scores = query.matmul(key.transpose()) / (head_size as f64).sqrt();
        let lowest = lowest_score(scores.dtype());
        let probabilities = softmax(scores.mask_fill(padding.expand([batch, self.heads, tokens, tokens]), lowest));
        let context = self.dropout.forward(probabilities.clone()).matmul(value);
        let merged = context.swap_dims(1, 2).reshape([batch, tokens, width]);
        (self.output.forward(merged), probabilities)
    }
}

/// The score of a token that must not be looked at. It is finite, so that a row in which every token is padding
/// becomes uniform, as in Hugging Face's BERT, and not NaN.
fn lowest_score(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -6e4,
        _ => -1e30,
    }
}
