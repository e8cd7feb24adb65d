//! Input representation (paper, section 3 and figure 2): the sum of a word, a position and a token-type embedding,
//! normalized, with dropout.

use burn::nn::Embedding;
use burn::prelude::*;

use super::Initializer;
use super::layer_norm::LayerNorm;
use crate::ops::dropout::Dropout;
use crate::ops::tape;

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
        let [_, tokens] = input_ids.dims();
        let words = tape::rows(&self.word.weight, input_ids);
        let positions = self.position.weight.val().slice_dim(0, 0..tokens).unsqueeze();
        let token_types = self.token_type.forward(token_type_ids);
        let sum = self.norm.forward(words + token_types + positions);
        tape::embedded(self, self.dropout.forward(sum))
    }
}
