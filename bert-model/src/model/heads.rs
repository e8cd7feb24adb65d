//! The masked-LM head of pretraining (Devlin et al. 2018, §3.1, task 1) and the dense head of fine-tuning (§4).

use burn::module::Param;
use burn::prelude::*;

use super::Initializer;
use super::encoder::dense_activation;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::config::Activation;
use crate::ops::{self, dropout::Dropout};

/// The masked-LM head (Devlin et al. 2018, §3.1): a dense layer, its activation and layer normalization, then the
/// decoder, the transposed word embeddings and a bias.
#[derive(Module, Debug)]
pub struct MaskedLmHead {
    /// Dense layer, H to H.
    pub transform: Linear,
    /// Layer normalization after the activation.
    pub norm: LayerNorm,
    /// Separate decoder weights, `[V, H]`, if they are not the word embeddings (`tie_word_embeddings: false`).
    pub decoder: Option<Param<Tensor<2>>>,
    /// Bias of the decoder, `[V]`.
    pub bias: Param<Tensor<1>>,
    /// Nonlinearity of the dense layer.
    #[module(skip)]
    pub activation: Activation,
}

impl MaskedLmHead {
    /// A newly initialized head.
    pub fn init(initializer: &mut Initializer) -> Self {
        let config = initializer.config();
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        Self {
            transform: initializer.linear(hidden, hidden),
            norm: initializer.layer_norm(),
            decoder: (!config.tie_word_embeddings).then(|| initializer.weight([vocab, hidden], None)),
            bias: initializer.zeros([vocab]),
            activation: config.hidden_act,
        }
    }

    /// The logits of every WordPiece for each of M hidden states.
    ///
    /// # Shapes
    /// - `hidden`: `[M, H]`
    /// - `word_embeddings`: `[V, H]`, used unless the head has separate decoder weights
    /// - output: `[M, V]`
    pub fn forward(&self, hidden: Tensor<2>, word_embeddings: Tensor<2>) -> Tensor<2> {
        let hidden = self.norm.forward(dense_activation(&self.transform, self.activation, hidden));
        let decoder = self.decoder.as_ref().map_or(word_embeddings, Param::val);
        ops::linear_transposed(hidden, decoder, self.bias.val())
    }
}

/// The head of fine-tuning (Devlin et al. 2018, §4): dropout, then one dense layer.
#[derive(Module, Debug)]
pub struct TaskHead {
    /// Dropout of the features.
    pub dropout: Dropout,
    /// Dense layer, H to the number of outputs C.
    pub dense: Linear,
}

impl TaskHead {
    /// A newly initialized head with this number of outputs.
    pub fn init(outputs: usize, initializer: &mut Initializer) -> Self {
        Self { dropout: Dropout::new(initializer.config().head_dropout()), dense: initializer.task_head(outputs) }
    }

    /// The logits of each feature vector.
    ///
    /// # Shapes
    /// - `features`: `[…, H]`
    /// - output: `[…, C]`
    pub fn forward<const D: usize>(&self, features: Tensor<D>) -> Tensor<D> {
        self.dense.forward(self.dropout.forward(features))
    }
}
