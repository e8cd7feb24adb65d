//! The traits that pipelines are built on: how a request is converted to tokens, and outputs to an answer.

use burn::tensor::{Device, Tensor};

use crate::config::BertConfig;
use crate::error::Result;
use crate::model::{BertInput, BertModel};
use crate::pretrained::weights::Weights;
use crate::pretrained::{Loaded, Pretrained, load_weights};
use crate::text::{Sequence, Tokenizer};
use crate::workers::Workers;

/// The steps of a pipeline around the forward pass: [`preprocess`](Processor::preprocess) →
/// [`forward`](Processor::forward) → [`postprocess`](Processor::postprocess).
///
/// A request may be converted to several inputs (windows of a long text), which may run in different batches.
pub trait Processor: Send + Sync {
    /// The model that computes the outputs.
    type Model: Pretrained;
    /// One request.
    type Request<'a>;
    /// One input of the model.
    type Input: Send + Sync;
    /// The model's output for one input, on the host.
    type Output: Send;
    /// The answer to a request.
    type Answer;

    /// The tokenizer, which also counts the texts it truncates.
    fn tokenizer(&self) -> &Tokenizer;

    /// Loads the model from a checkpoint.
    ///
    /// # Errors
    /// As [`load_weights`]: the checkpoint must contain every parameter.
    fn load(&self, weights: &Weights, config: BertConfig, device: &Device) -> Result<Loaded<Self::Model>> {
        load_weights(weights, config, device)
    }

    /// Tokenizes a request into one or more inputs.
    ///
    /// # Errors
    /// If the text cannot be tokenized, or is not a valid request for this model.
    fn preprocess(&self, request: &Self::Request<'_>) -> Result<Vec<Self::Input>>;

    /// The token sequences of an input: one, except for multiple choice.
    fn sequences(input: &Self::Input) -> &[Sequence];

    /// Runs the model on a batch. `batch` holds the sequences of `inputs`, in order and padded to the same length; the
    /// result has one output per input.
    fn forward(&self, model: &Self::Model, batch: BertInput, inputs: &[&Self::Input]) -> Vec<Self::Output>;

    /// Computes the answer from the outputs for all inputs of a request.
    fn postprocess(
        &self,
        request: &Self::Request<'_>,
        inputs: &[Self::Input],
        outputs: &[Self::Output],
    ) -> Self::Answer;
}

/// A [`Processor`] whose head reads only the encoder's last hidden states, so that these can be computed once and kept
/// while a head is trained on them.
pub trait HeadProcessor: Processor {
    /// Whether the head reads only the hidden state of `[CLS]`.
    const READS_CLS_ONLY: bool;

    /// The encoder of a model.
    fn bert(model: &Self::Model) -> &BertModel;

    /// Computes the outputs of a batch from the encoder's hidden states `[S, T, H]`, where `S` is the total number of
    /// sequences of all `inputs`.
    fn head(&self, model: &Self::Model, hidden: Tensor<3>, inputs: &[&Self::Input]) -> Vec<Self::Output>;
}

/// The number of tokens of an input's longest sequence.
pub fn longest<P: Processor>(input: &P::Input) -> usize {
    P::sequences(input).iter().map(Sequence::len).max().unwrap_or_default()
}

/// Applies `work` to batches of inputs of similar lengths, on the workers; it receives the inputs' numbers and returns
/// an output for each. Returns the outputs in the order of the inputs. Batches are of inputs with the same number of
/// sequences, so that none has more than `batch_tokens` tokens, padding included, unless it is of one input.
pub fn by_batches<P: Processor, R: Send>(
    inputs: &[&P::Input],
    (workers, batch_tokens): (&Workers, usize),
    work: impl Fn(&[usize]) -> Vec<R> + Sync,
) -> Vec<R> {
    let sequences = |&index: &usize| P::sequences(inputs[index]).len();
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(sequences);
    let mut outputs = Vec::with_capacity(inputs.len());
    for group in order.chunk_by(|a, b| sequences(a) == sequences(b)) {
        let tokens = |index: &usize| longest::<P>(inputs[*index]) * sequences(index);
        let costs: Vec<usize> = group.iter().map(tokens).collect();
        let computed = workers.run_by_length(&costs, batch_tokens, |batch| {
            work(&batch.iter().map(|&place| group[place]).collect::<Vec<_>>())
        });
        outputs.extend(group.iter().copied().zip(computed));
    }
    outputs.sort_unstable_by_key(|(index, _)| *index);
    outputs.into_iter().map(|(_, output)| output).collect()
}

/// Checks that a model can read every sequence of the inputs. Pipelines and training call this before computing
/// anything, whatever the tokenizer, the options and the texts are.
///
/// # Errors
/// As [`Sequence::check_fits`].
pub fn check_fit<P: Processor>(inputs: &[&P::Input], config: &BertConfig) -> Result<()> {
    let mut sequences = inputs.iter().flat_map(|input| P::sequences(input));
    sequences.try_for_each(|sequence| sequence.check_fits(config))
}
