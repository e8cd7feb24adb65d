//! Input representation (paper, section 3 and figure 2): the sum of a word, a position and a token-type embedding,
//! normalized, with dropout.

use burn::nn::Embedding;
use burn::prelude::*;

use super::Initializer;
use super::layer_norm::LayerNorm;
use crate::ops::{self, dropout::Dropout, tape};

/// The three tables and their LayerNorm.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// One row a WordPiece, `[V, H]`.
    pub word: Embedding,
    /// One row a position, `[max_position_embeddings, H]`.
    pub position: Embedding,
    /// One row a token type (segment), `[type_vocab_size, H]`.
    pub token_type: Embedding,
    /// Over H.
    pub norm: LayerNorm,
    /// After the normalization.
    pub dropout: Dropout,
}

impl Embeddings {
    /// Fresh tables; the row of the padding token is zero.
    pub fn init(initializer: &mut Initializer) -> Self {
        let config = initializer.config();
        Self {
            word: initializer.embedding(config.vocab_size, config.pad_token_id),
            position: initializer.embedding(config.max_position_embeddings, None),
            token_type: initializer.embedding(config.type_vocab_size, None),
            norm: initializer.layer_norm(),
            dropout: Dropout::new(config.hidden_dropout_prob),
        }
    }

    /// # Shapes
    /// - `input_ids`, `token_type_ids`: `[B, T]`, T at most `max_position_embeddings`
    /// - output: `[B, T, H]`
    pub fn forward(&self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        let words = tape::rows(&self.word.weight, input_ids);
        let types = (self.token_type.weight.val(), token_type_ids);
        let norm = (self.norm.gamma.val(), self.norm.beta.val());
        let dropout = self.dropout.active(&words.device());
        let sum = ops::embed(words, self.position.weight.val(), types, norm, self.norm.epsilon, dropout);
        tape::embedded(self, sum)
    }
}
