//! Ways of asking BERT, one file for each: what an example is, how it becomes input, what the loss is, and how scores
//! become an answer.
//!
//! [`crate::train`], [`crate::predict`] and `evaluate` know tasks only through [`Task`].

pub mod multiple_choice;
pub mod question_answering;
pub mod sequence;
pub mod tagging;

use std::path::Path;

use bert_model::text::Sequence;
use bert_model::{Pretrained, Result};
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};

/// Examples, one at a time.
pub type Examples<E> = Box<dyn Iterator<Item = Result<E>>>;

/// What the command line gives for one example.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The text, or what is asked about.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The question about a text.
    pub question: Option<String>,
    /// The choices.
    pub choices: Vec<String>,
}

/// One way of asking BERT.
pub trait Task: Send + Sync {
    /// BERT with the head that answers.
    type Model: Pretrained;
    /// What a data file holds.
    type Example: Clone + Send + Sync + 'static;
    /// What the model sees at once; an example may become several (windows of a long text).
    type Input: Clone + Send + Sync;
    /// The head's numbers for one input, on the host.
    type Scores: Clone + Send;

    /// Reads labelled examples.
    ///
    /// # Errors
    /// What is wrong in the file, and where.
    fn read(&self, path: &Path) -> Result<Vec<Self::Example>>;

    /// Reads examples without labels, one at a time, from a file or from the standard input (`-`).
    ///
    /// # Errors
    /// If the file cannot be read as this task needs it; examples carry their own errors.
    fn questions(&self, path: &Path) -> Result<Examples<Self::Example>>;

    /// An example from the command line.
    ///
    /// # Errors
    /// If what was given does not make one.
    fn question(&self, asked: &Asked) -> Result<Self::Example>;

    /// Cuts an example into inputs, at least one.
    ///
    /// # Errors
    /// If the text cannot be tokenised.
    fn encode(&self, example: &Self::Example) -> Result<Vec<Self::Input>>;

    /// The tokens of an input.
    fn sequence<'a>(&self, input: &'a Self::Input) -> &'a Sequence;

    /// How many loss terms an input has (labelled words, say).
    fn terms(&self, input: &Self::Input) -> f64;

    /// The sum of the loss terms of a batch, shape `[1]`.
    fn loss(&self, model: &Self::Model, inputs: &[&Self::Input], device: &Device) -> Tensor<1>;

    /// The head's numbers for each input.
    fn scores(&self, model: &Self::Model, inputs: &[&Self::Input], device: &Device) -> Vec<Self::Scores>;

    /// The answer to one example from the scores of its inputs, as `predict --json` prints it.
    fn answer(&self, example: &Self::Example, inputs: &[Self::Input], scores: &[Self::Scores]) -> Value;

    /// The metrics of all answers, by their names in `evaluate --json`.
    fn metrics(
        &self,
        examples: &[Self::Example],
        inputs: &[Vec<Self::Input>],
        scores: &[Vec<Self::Scores>],
    ) -> Map<String, Value>;

    /// The metric that decides which epoch is best; more is better.
    fn main_metric(&self) -> &'static str;
}
