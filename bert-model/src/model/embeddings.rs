//! BERT's input representation (Devlin et al. 2018, §3 and figure 2): the sum of the word, position and token-type
//! embeddings, layer-normalized, with dropout.

use burn::nn::Embedding;
use burn::prelude::*;

use super::Initializer;
use super::layer_norm::LayerNorm;
use crate::ops::{self, dropout::Dropout, tape};

/// BERT's input layer: three embedding tables, layer normalization and dropout.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// Word embeddings, `[V, H]`.
    pub word: Embedding,
    /// Position embeddings, `[max_position_embeddings, H]`.
    pub position: Embedding,
    /// Token-type (segment) embeddings, `[type_vocab_size, H]`.
    pub token_type: Embedding,
    /// Layer normalization of the sum.
    pub norm: LayerNorm,
    /// Dropout after the normalization.
    pub dropout: Dropout,
}

impl Embeddings {
    /// Newly initialized tables. The word embedding of the padding token is zero.
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

    /// The input vectors of the encoder.
    ///
    /// # Shapes
    /// - `input_ids`, `token_type_ids`: `[B, T]`, T at most `max_position_embeddings`
    /// - output: `[B, T, H]`
    pub fn forward(&self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        let words = tape::lookup(&self.word.weight, input_ids);
        let types = (self.token_type.weight.val(), token_type_ids);
        let norm = (self.norm.gamma.val(), self.norm.beta.val());
        let dropout = self.dropout.active(&words.device());
        let hidden = ops::embed(words, self.position.weight.val(), types, norm, self.norm.epsilon, dropout);
        tape::end_embeddings(self, hidden)
    }
}
