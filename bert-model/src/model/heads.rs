//! The two heads of pretraining (paper, section 3.1, tasks 1 and 2) and the plain heads of the tasks.

use burn::module::Param;
use burn::prelude::*;

use super::Initializer;
use super::encoder::activate;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::config::Activation;
use crate::ops::{self, dropout::Dropout};

/// Masked-LM head: dense, activation, LayerNorm, then the word table transposed plus a bias of its own.
#[derive(Module, Debug)]
pub struct MaskedLmHead {
    /// H to H.
    pub transform: Linear,
    /// After the activation.
    pub norm: LayerNorm,
    /// A decoder of its own, `[V, H]`, where the word embeddings are not shared (`tie_word_embeddings: false`).
    pub decoder: Option<Param<Tensor<2>>>,
    /// `[V]`.
    pub bias: Param<Tensor<1>>,
    /// Of the transform.
    #[module(skip)]
    pub activation: Activation,
}

impl MaskedLmHead {
    /// A fresh head.
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

    /// Scores of every WordPiece for each of `M` hidden states.
    ///
    /// # Shapes
    /// - `hidden`: `[M, H]`
    /// - `word_embeddings`: `[V, H]`, used unless the head has a decoder of its own
    /// - output: `[M, V]`
    pub fn forward(&self, hidden: Tensor<2>, word_embeddings: Tensor<2>) -> Tensor<2> {
        let hidden = self.norm.forward(activate(self.activation, self.transform.forward(hidden)));
        let decoder = self.decoder.as_ref().map_or(word_embeddings, Param::val);
        ops::linear_transposed(hidden, decoder, self.bias.val())
    }
}

/// Dropout, then one dense layer: the head of every task of section 4.
#[derive(Module, Debug)]
pub struct TaskHead {
    /// On the features.
    pub dropout: Dropout,
    /// H to the number of classes.
    pub dense: Linear,
}

impl TaskHead {
    /// A fresh head of `outputs` numbers for each feature vector.
    pub fn init(outputs: usize, initializer: &mut Initializer) -> Self {
        Self { dropout: Dropout::new(initializer.config().head_dropout()), dense: initializer.task_head(outputs) }
    }

    /// # Shapes
    /// - `features`: `[…, H]`
    /// - output: `[…, C]`
    pub fn forward<const D: usize>(&self, features: Tensor<D>) -> Tensor<D> {
        self.dense.forward(self.dropout.forward(features))
    }
}
