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

    /// The input vectors of the encoder. The tokens have the positions from `first_position` on, which is 0 in the
    /// paper.
    ///
    /// # Shapes
    /// - `input_ids`, `token_type_ids`: `[B, T]`, `first_position` + T at most `max_position_embeddings`
    /// - output: `[B, T, H]`
    pub fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Tensor<2, Int>,
        first_position: usize,
    ) -> Tensor<3> {
        // Kernels on a GPU do not check their indices.
        let (found, limit) = (first_position + input_ids.dims()[1], self.position.weight.dims()[0]);
        assert!(found <= limit, "a sequence up to position {found}, but the model has {limit} positions");
        let positions = match first_position {
            0 => self.position.weight.val(),
            first => self.position.weight.val().slice_dim(0, first..),
        };
        let words = tape::lookup(&self.word.weight, input_ids);
        let types = (self.token_type.weight.val(), token_type_ids);
        let norm = (self.norm.gamma.val(), self.norm.beta.val());
        let dropout = self.dropout.active(&words.device());
        let hidden = ops::embed(words, positions, types, norm, self.norm.epsilon, dropout);
        tape::end_embeddings(self, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BertConfig, BertModel, Pretrained};

    #[test]
    fn a_shifted_sequence_is_the_end_of_a_longer_one() {
        let device = Device::flex();
        let config = BertConfig::named("tiny").unwrap().with_vocab_size(9).without_dropout();
        let embeddings = BertModel::init_seeded(&config, 1, &device).embeddings;
        let embed = |ids: Tensor<2, Int>, first| embeddings.forward(ids.clone(), ids.zeros_like(), first);
        let ids = Tensor::from_data([[2, 7, 4, 5, 8], [2, 4, 6, 3, 0]], &device);
        let whole = embed(ids.clone(), 0);
        let end = embed(ids.slice_dim(1, 3..), 3);
        end.into_data().assert_eq(&whole.slice_dim(1, 3..).into_data(), true);
    }
}
