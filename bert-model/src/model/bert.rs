//! BERT itself: embeddings, encoder and, where a head needs it, the pooler.

use burn::prelude::*;

use super::Initializer;
use super::embeddings::Embeddings;
use super::encoder::{Encoder, EncoderLayer};
use super::pooler::Pooler;
use crate::config::BertConfig;

/// A batch of token sequences, padded to one length.
#[derive(Debug, Clone)]
pub struct BertInput {
    /// `[B, T]`, ids of the vocabulary.
    pub input_ids: Tensor<2, Int>,
    /// `[B, T]`, 0 for the first segment and 1 for the second.
    pub token_type_ids: Tensor<2, Int>,
    /// `[B, T]`, true for tokens and false for padding.
    pub attention_mask: Tensor<2, Bool>,
}

impl BertInput {
    /// Sequences of one segment without padding. Shape: `[B, T]`.
    pub fn new(input_ids: Tensor<2, Int>) -> Self {
        let token_type_ids = input_ids.zeros_like();
        let attention_mask = token_type_ids.clone().equal_elem(0);
        Self { input_ids, token_type_ids, attention_mask }
    }

    /// `[B, T]`, true where nothing may be looked at.
    fn padding(&self) -> Tensor<2, Bool> {
        self.attention_mask.clone().bool_not()
    }
}

/// What BERT computes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BertOutput {
    /// The last layer's hidden states, `[B, T, H]`.
    pub last_hidden_state: Tensor<3>,
    /// The pooler's output `[B, H]`, if the model has a pooler.
    pub pooler_output: Option<Tensor<2>>,
}

/// What BERT computes on the way, too.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BertTrace {
    /// L + 1 tensors `[B, T, H]`: the embeddings' output, then each layer's.
    pub hidden_states: Vec<Tensor<3>>,
    /// L tensors `[B, A, T, T]`: each layer's attention probabilities.
    pub attentions: Vec<Tensor<4>>,
    /// The pooler's output `[B, H]`, if the model has a pooler.
    pub pooler_output: Option<Tensor<2>>,
}

/// Embeddings → encoder → pooler.
///
/// ```
/// use bert_model::{BertConfig, BertInput, BertModel};
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex();
/// let config = BertConfig::named("tiny").unwrap().with_vocab_size(100);
/// let bert = BertModel::init(&config, &device);
/// let input = BertInput::new(Tensor::from_data([[2, 7, 42, 3]], &device));
/// assert_eq!(bert.forward(input).last_hidden_state.dims(), [1, 4, 128]);
/// ```
#[derive(Module, Debug)]
pub struct BertModel {
    /// Ids to vectors.
    pub embeddings: Embeddings,
    /// Vectors to vectors that know their context.
    pub encoder: Encoder,
    /// The summary of the sequence, for the heads that read it.
    pub pooler: Option<Pooler>,
}

impl BertConfig {
    /// A fresh BERT of this form with a pooler; everything random comes from the generator of `device` (see
    /// [`Device::seed`]). Models with heads have the same under their own names ([`super::BertForMaskedLM::init`], …).
    ///
    /// # Panics
    /// If this configuration describes no model ([`BertConfig::validate`]).
    ///
    /// ```
    /// use bert_model::BertConfig;
    /// use burn::tensor::Device;
    ///
    /// let bert = BertConfig::named("tiny").unwrap().with_vocab_size(100).init(&Device::flex());
    /// assert_eq!(bert.encoder.layers.len(), 2);
    /// ```
    pub fn init(&self, device: &Device) -> BertModel {
        BertModel::init(self, device)
    }
}

impl BertModel {
    /// A fresh model with a pooler; everything random comes from the generator of `device` (see [`Device::seed`]).
    pub fn init(config: &BertConfig, device: &Device) -> Self {
        Self::init_with_pooler(&mut Initializer::from_device(config, device))
    }

    /// With a pooler, for the heads that read `[CLS]`.
    pub fn init_with_pooler(initializer: &mut Initializer) -> Self {
        let mut bert = Self::init_without_pooler(initializer);
        bert.pooler = Some(Pooler::init(initializer));
        bert
    }

    /// Without one, for the heads that read every token.
    pub fn init_without_pooler(initializer: &mut Initializer) -> Self {
        let embeddings = Embeddings::init(initializer);
        Self { embeddings, encoder: Encoder::init(initializer), pooler: None }
    }

    /// Shapes: see [`BertInput`] and [`BertOutput`].
    ///
    /// # Panics
    /// If a sequence is longer than `max_position_embeddings`.
    pub fn forward(&self, input: BertInput) -> BertOutput {
        let last_hidden_state = self.encode(input);
        let pooler_output = self.pooler.as_ref().map(|pooler| pooler.forward(last_hidden_state.clone()));
        BertOutput { last_hidden_state, pooler_output }
    }

    /// The last layer's hidden states alone, `[B, T, H]`.
    ///
    /// # Panics
    /// If a sequence is longer than `max_position_embeddings`.
    pub fn encode(&self, input: BertInput) -> Tensor<3> {
        let padding = input.padding();
        self.encoder.forward(self.embeddings.forward(input.input_ids, input.token_type_ids), padding)
    }

    /// What the heads for whole sequences read, `[B, H]`: the pooler's output for hidden states `[B, T, H]`, of which
    /// only the first of each row is looked at. Without a pooler that hidden state itself.
    pub fn pool(&self, hidden: Tensor<3>) -> Tensor<2> {
        match &self.pooler {
            Some(pooler) => pooler.forward(hidden),
            None => hidden.slice_dim(1, 0..1).squeeze_dim(1),
        }
    }

    /// Every layer's hidden states: L + 1 tensors `[B, T, H]`, the embeddings' output first.
    ///
    /// # Panics
    /// If a sequence is longer than `max_position_embeddings`.
    pub fn hidden_states(&self, input: BertInput) -> Vec<Tensor<3>> {
        let padding = input.padding();
        let mut hidden = self.embeddings.forward(input.input_ids, input.token_type_ids);
        let mut states = vec![hidden.clone()];
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden, padding.clone());
            states.push(hidden.clone());
        }
        states
    }

    /// As [`BertModel::forward`], with every layer's hidden states and attention probabilities.
    ///
    /// # Panics
    /// If a sequence is longer than `max_position_embeddings`.
    pub fn trace(&self, input: BertInput) -> BertTrace {
        let padding = input.padding();
        let hidden_states = self.hidden_states(input);
        let layers = self.encoder.layers.iter().zip(&hidden_states);
        let attention = |(layer, hidden): (&EncoderLayer, &Tensor<3>)| {
            layer.attention.probabilities(hidden.clone(), padding.clone())
        };
        let attentions = layers.map(attention).collect();
        let last = hidden_states.last().cloned();
        let pooler_output = self.pooler.as_ref().zip(last).map(|(pooler, last)| pooler.forward(last));
        BertTrace { hidden_states, attentions, pooler_output }
    }
}
