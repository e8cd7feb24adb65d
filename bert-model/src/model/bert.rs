//! The BERT model (Devlin et al. 2018, §3): embeddings, encoder and, for heads that need it, the pooler.

use burn::prelude::*;

use super::Initializer;
use super::embeddings::Embeddings;
use super::encoder::{Encoder, EncoderLayer};
use super::pooler::Pooler;
use crate::config::BertConfig;

/// A batch of token sequences, padded to one length.
///
/// Ids must be below the model's `vocab_size` and segments below its `type_vocab_size`: kernels on a GPU do not check
/// them. [`Sequence::check_fits`](crate::text::Sequence::check_fits) checks both.
#[derive(Debug, Clone)]
pub struct BertInput {
    /// Token ids, `[B, T]`.
    pub input_ids: Tensor<2, Int>,
    /// Segment of each token, `[B, T]`: 0 for the first, 1 for the second.
    pub token_type_ids: Tensor<2, Int>,
    /// True for tokens, false for padding, `[B, T]`.
    pub attention_mask: Tensor<2, Bool>,
    /// Position of the first token. It is above 0 only in pretraining with shifted positions.
    pub first_position: usize,
}

impl BertInput {
    /// Sequences `[B, T]` of one segment, without padding.
    pub fn new(input_ids: Tensor<2, Int>) -> Self {
        let token_type_ids = input_ids.zeros_like();
        let attention_mask = token_type_ids.clone().equal_elem(0);
        Self { input_ids, token_type_ids, attention_mask, first_position: 0 }
    }

    /// True for padding tokens, `[B, T]`.
    fn padding(&self) -> Tensor<2, Bool> {
        self.attention_mask.clone().bool_not()
    }
}

/// The output of [`BertModel::forward`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BertOutput {
    /// The last layer's hidden states, `[B, T, H]`.
    pub last_hidden_state: Tensor<3>,
    /// The pooler's output `[B, H]`, if the model has a pooler.
    pub pooler_output: Option<Tensor<2>>,
}

/// The output of [`BertModel::trace`]: the hidden states and attention probabilities of every layer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BertTrace {
    /// Hidden states: L + 1 tensors `[B, T, H]`, the embeddings' output, then each layer's.
    pub hidden_states: Vec<Tensor<3>>,
    /// Attention probabilities: L tensors `[B, A, T, T]` (query, key), one per layer.
    pub attentions: Vec<Tensor<4>>,
    /// The pooler's output `[B, H]`, if the model has a pooler.
    pub pooler_output: Option<Tensor<2>>,
}

/// BERT without a head: embeddings → encoder → pooler.
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
    /// Word, position and token-type embeddings.
    pub embeddings: Embeddings,
    /// The Transformer encoder.
    pub encoder: Encoder,
    /// The pooler, in models with a head on the whole sequence.
    pub pooler: Option<Pooler>,
}

impl BertConfig {
    /// Initializes a BERT of this configuration with a pooler. The random weights come from the generator of `device`
    /// (see [`Device::seed`]). Models with heads have their own `init`, such as [`super::BertForMaskedLM::init`].
    ///
    /// # Panics
    /// If the configuration is invalid (see [`BertConfig::validate`]).
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
    /// Initializes a model with a pooler. The random weights come from the generator of `device` (see
    /// [`Device::seed`]).
    ///
    /// # Panics
    /// If the configuration is invalid (see [`BertConfig::validate`]).
    pub fn init(config: &BertConfig, device: &Device) -> Self {
        Self::init_with_pooler(&mut Initializer::from_device(config, device))
    }

    /// Initializes a model with a pooler, for heads on the whole sequence.
    pub fn init_with_pooler(initializer: &mut Initializer) -> Self {
        let mut bert = Self::init_without_pooler(initializer);
        bert.pooler = Some(Pooler::init(initializer));
        bert
    }

    /// Initializes a model without a pooler, for heads on every token.
    pub fn init_without_pooler(initializer: &mut Initializer) -> Self {
        let embeddings = Embeddings::init(initializer);
        Self { embeddings, encoder: Encoder::init(initializer), pooler: None }
    }

    /// Computes the last hidden states and the pooler's output. Shapes: see [`BertInput`] and [`BertOutput`].
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn forward(&self, input: BertInput) -> BertOutput {
        let last_hidden_state = self.encode(input);
        let pooler_output = self.pooler.as_ref().map(|pooler| pooler.forward(last_hidden_state.clone()));
        BertOutput { last_hidden_state, pooler_output }
    }

    /// Computes the last layer's hidden states `[B, T, H]`, without the pooler.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn encode(&self, input: BertInput) -> Tensor<3> {
        let padding = input.padding();
        self.encoder
            .forward(self.embeddings.forward(input.input_ids, input.token_type_ids, input.first_position), padding)
    }

    /// The input of heads on the whole sequence, `[B, H]`: the pooler's output for the last hidden states `[B, T, H]`,
    /// or the hidden state of `[CLS]` if the model has no pooler.
    pub fn pool(&self, hidden: Tensor<3>) -> Tensor<2> {
        match &self.pooler {
            Some(pooler) => pooler.forward(hidden),
            None => hidden.slice_dim(1, 0..1).squeeze_dim(1),
        }
    }

    /// Computes the hidden states of every layer: L + 1 tensors `[B, T, H]`, the embeddings' output first.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn hidden_states(&self, input: BertInput) -> Vec<Tensor<3>> {
        let padding = input.padding();
        let mut hidden = self.embeddings.forward(input.input_ids, input.token_type_ids, input.first_position);
        let mut states = vec![hidden.clone()];
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden, padding.clone());
            states.push(hidden.clone());
        }
        states
    }

    /// Computes the output of [`BertModel::forward`] with every layer's hidden states and attention probabilities.
    ///
    /// # Panics
    /// If a sequence reaches beyond `max_position_embeddings`.
    pub fn trace(&self, input: BertInput) -> BertTrace {
        let padding = input.padding();
        let hidden_states = self.hidden_states(input);
        let layers = self.encoder.layers.iter().zip(&hidden_states);
        let attention =
            |(layer, hidden): (&EncoderLayer, &Tensor<3>)| layer.probabilities(hidden.clone(), padding.clone());
        let attentions = layers.map(attention).collect();
        let last = hidden_states.last().cloned();
        let pooler_output = self.pooler.as_ref().zip(last).map(|(pooler, last)| pooler.forward(last));
        BertTrace { hidden_states, attentions, pooler_output }
    }
}
