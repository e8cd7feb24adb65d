//! Scores for pairs of texts: the probability that the second follows the first (paper, section 3.1, task 2), or the
//! score of a cross-encoder with one label.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::Device;
use burn::tensor::activation::softmax;

use super::{Builder, Checkpoint, CrossEncoderProcessor, FromCheckpoint, Pipeline, Precision, Processor};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::model::{BertForNextSentencePrediction, BertInput};
use crate::text::{Sequence, Tokenizer};

/// Scores pairs of texts.
///
/// ```no_run
/// use bert_model::pipeline::PairScorer;
///
/// # fn main() -> bert_model::Result<()> {
/// let scorer = PairScorer::open("DIR")?;
/// let scores: Vec<f32> = scorer.score(&[("It rained.", "She opened the umbrella.")])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PairScorer(Scorer);

#[derive(Debug)]
enum Scorer {
    NextSentence(Pipeline<NextSentenceProcessor>),
    CrossEncoder(Pipeline<CrossEncoderProcessor>),
}

/// Opens a [`PairScorer`] with non-default settings.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `open` or `from_bytes`"]
pub struct PairScorerBuilder {
    next_sentence: Builder<NextSentenceProcessor>,
    cross_encoder: Builder<CrossEncoderProcessor>,
}

impl PairScorerBuilder {
    /// See [`Builder::device`].
    pub fn device(self, device: Device) -> Self {
        self.each(|builder| builder.device(device.clone()), |builder| builder.device(device.clone()))
    }

    /// See [`Builder::precision`].
    pub fn precision(self, precision: Precision) -> Self {
        self.each(|builder| builder.precision(precision), |builder| builder.precision(precision))
    }

    /// See [`Builder::max_length`].
    pub fn max_length(self, tokens: usize) -> Self {
        self.each(|builder| builder.max_length(tokens), |builder| builder.max_length(tokens))
    }

    /// See [`Builder::batch_tokens`].
    pub fn batch_tokens(self, tokens: usize) -> Self {
        self.each(|builder| builder.batch_tokens(tokens), |builder| builder.batch_tokens(tokens))
    }

    fn each(
        self,
        next_sentence: impl FnOnce(Builder<NextSentenceProcessor>) -> Builder<NextSentenceProcessor>,
        cross_encoder: impl FnOnce(Builder<CrossEncoderProcessor>) -> Builder<CrossEncoderProcessor>,
    ) -> Self {
        Self { next_sentence: next_sentence(self.next_sentence), cross_encoder: cross_encoder(self.cross_encoder) }
    }

    /// Opens a model directory in the format of Hugging Face or of this project's programs.
    ///
    /// # Errors
    /// As [`Builder::open`], and if the model has neither a next-sentence head nor a classifier with one label.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<PairScorer> {
        self.build(&Checkpoint::open(directory)?)
    }

    /// Builds the scorer from the contents of `config.json`, `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// As [`PairScorerBuilder::open`].
    pub fn from_bytes(
        self,
        config_json: &[u8],
        weights_safetensors: impl Into<Cow<'static, [u8]>>,
        tokenizer_json: &[u8],
    ) -> Result<PairScorer> {
        self.build(&Checkpoint::from_bytes(config_json, weights_safetensors, tokenizer_json)?)
    }

    fn build(self, checkpoint: &Checkpoint) -> Result<PairScorer> {
        let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
        tokenizer.check_fits_pairs(config)?;
        if weights.shape("cls.seq_relationship.weight").is_some() {
            return Ok(PairScorer(Scorer::NextSentence(self.next_sentence.build(checkpoint)?)));
        }
        match weights.shape("classifier.weight") {
            Some(&[1, _]) => Ok(PairScorer(Scorer::CrossEncoder(self.cross_encoder.build(checkpoint)?))),
            found => {
                let found = found.map_or("neither".into(), |shape| format!("a classifier of {} labels", shape[0]));
                Err(Error::file(weights.path(), found, "a next-sentence head, or a classifier of one label"))
            }
        }
    }
}

impl PairScorer {
    /// Opens a model directory with default settings; see [`PairScorer::builder`] for other settings.
    ///
    /// # Errors
    /// As [`PairScorerBuilder::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(directory)
    }

    /// Opens a model from the contents of `config.json`, `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// As [`PairScorerBuilder::open`].
    pub fn from_bytes(
        config_json: &[u8],
        weights_safetensors: impl Into<Cow<'static, [u8]>>,
        tokenizer_json: &[u8],
    ) -> Result<Self> {
        Self::builder().from_bytes(config_json, weights_safetensors, tokenizer_json)
    }

    /// Returns a builder, which opens the scorer with other settings.
    pub fn builder() -> PairScorerBuilder {
        PairScorerBuilder::default()
    }

    /// Computes the score of each pair. For a next-sentence head, this is the probability, from 0 to 1, that the second
    /// text follows the first. For a classifier with one label (a cross-encoder), it is the head's output passed
    /// through the activation that the configuration names, or the sigmoid if it names none, as in
    /// sentence-transformers.
    ///
    /// # Errors
    /// If a text cannot be tokenized. A pair longer than the model's maximum length is an error for a next-sentence
    /// head, which needs to see where the texts meet and end; a classifier truncates it, the longer side first.
    pub fn score<A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> Result<Vec<f32>> {
        let requests: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect();
        match &self.0 {
            Scorer::NextSentence(pipeline) => pipeline.run(&requests),
            Scorer::CrossEncoder(pipeline) => pipeline.run(&requests),
        }
    }

    /// The number of pairs truncated so far.
    pub fn truncated_count(&self) -> u64 {
        match &self.0 {
            Scorer::NextSentence(pipeline) => pipeline.truncated_count(),
            Scorer::CrossEncoder(pipeline) => pipeline.truncated_count(),
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &BertConfig {
        match &self.0 {
            Scorer::NextSentence(pipeline) => pipeline.config(),
            Scorer::CrossEncoder(pipeline) => pipeline.config(),
        }
    }

    /// See [`Pipeline::warning`].
    pub fn warning(&self) -> Option<&str> {
        match &self.0 {
            Scorer::NextSentence(pipeline) => pipeline.warning(),
            Scorer::CrossEncoder(pipeline) => pipeline.warning(),
        }
    }
}

impl From<Pipeline<NextSentenceProcessor>> for PairScorer {
    fn from(pipeline: Pipeline<NextSentenceProcessor>) -> Self {
        Self(Scorer::NextSentence(pipeline))
    }
}

/// Converts pairs to model input, and the next-sentence head's scores to probabilities.
#[derive(Debug, Clone)]
pub struct NextSentenceProcessor {
    tokenizer: Tokenizer,
    max_length: usize,
}

impl NextSentenceProcessor {
    /// Builds a processor for pairs of at most `max_length` tokens; longer ones are rejected.
    pub fn new(tokenizer: Tokenizer, max_length: usize) -> Self {
        Self { tokenizer, max_length }
    }
}

impl FromCheckpoint for NextSentenceProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        checkpoint.tokenizer.check_fits_pairs(&checkpoint.config)?;
        Ok(Self::new(checkpoint.tokenizer.clone(), checkpoint.max_length(max_length)?))
    }
}

impl Processor for NextSentenceProcessor {
    type Model = BertForNextSentencePrediction;
    type Request<'a> = (&'a str, &'a str);
    type Input = Sequence;
    /// The probability that the second text follows the first.
    type Output = f32;
    type Answer = f32;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, &(first, second): &(&str, &str)) -> Result<Vec<Sequence>> {
        Ok(vec![self.tokenizer.whole_sequence(first, Some(second), self.max_length)?])
    }

    fn sequences(input: &Sequence) -> &[Sequence] {
        std::slice::from_ref(input)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, _inputs: &[&Sequence]) -> Vec<f32> {
        softmax(model.forward(batch), 1).into_data().iter::<f32>().step_by(2).collect()
    }

    fn postprocess(&self, _request: &(&str, &str), _inputs: &[Sequence], outputs: &[f32]) -> f32 {
        outputs.first().copied().unwrap_or(f32::NAN)
    }
}
