//! Ways of asking BERT, one file for each: what an example is, how it becomes input, what the loss is, and how scores
//! become an answer.
//!
//! [`crate::train`], [`crate::predict`] and `evaluate` know tasks only through [`Task`]; [`kind`] has their names, [`any`]
//! makes one of them from the description of a head.

pub mod any;
pub mod kind;
pub mod multiple_choice;
pub mod question_answering;
pub mod sequence;
pub mod tagging;

use std::path::Path;

use bert_cli::input::kind::Input;
use bert_model::text::Sequence;
use bert_model::{BertModel, Error, Pretrained, Result};
use burn::tensor::Tensor;
use serde_json::{Map, Value};

use crate::report::Mistake;

/// Examples, one at a time.
pub type Examples<E> = Box<dyn Iterator<Item = Result<E>>>;

/// What the command line gives for one example.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The text, or what is asked about.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The question about a text.
    pub question: Option<String>,
    /// The choices.
    pub choices: Vec<String>,
}

impl Query {
    /// Refuses options that those who take `options` have no use for.
    ///
    /// # Errors
    /// If one was given.
    pub fn check(&self, options: &[&str]) -> Result<()> {
        let given = [
            ("--pair", self.pair.is_some()),
            ("--question", self.question.is_some()),
            ("--choice", !self.choices.is_empty()),
        ];
        match given.into_iter().find(|(option, is_given)| *is_given && !options.contains(option)) {
            Some((option, _)) => Err(Error::Usage(format!("{option} has no use here: leave it out"))),
            None => Ok(()),
        }
    }
}

/// The number of a label; where all labels have names, a number means the label that has it.
fn label_index(label: &str, labels: &[String]) -> Option<usize> {
    let is_named = || labels.iter().all(|label| label.parse::<f64>().is_err());
    let by_number = || label.parse().ok().filter(|&number| number < labels.len() && is_named());
    labels.iter().position(|known| known == label).or_else(by_number)
}

/// One way of asking BERT.
pub trait Task: Clone + Send + Sync {
    /// BERT with the head that answers.
    type Model: Pretrained;
    /// What a data file holds.
    type Example: Clone + Send + Sync + 'static;
    /// What the model sees at once; an example may become several (windows of a long text).
    type Input: Send + Sync;
    /// The head's numbers for one input, on the host.
    type Scores: Clone + Send;

    /// Whether the head reads the hidden state of `[CLS]` alone.
    const READS_CLS_ALONE: bool;

    /// Which of the options `--pair`, `--question` and `--choice` make an example, besides its text.
    const OPTIONS: &'static [&'static str];

    /// Reads labeled examples.
    ///
    /// # Errors
    /// What is wrong in the file, and where.
    fn read(&self, path: &Path) -> Result<Vec<Self::Example>>;

    /// Reads examples without labels, one at a time, from a file or from the standard input.
    ///
    /// # Errors
    /// If the file cannot be read as this task needs it; examples carry their own errors.
    fn questions(&self, input: &Input) -> Result<Examples<Self::Example>>;

    /// An example from the command line.
    ///
    /// # Errors
    /// If what was given does not make one.
    fn question(&self, query: &Query) -> Result<Self::Example>;

    /// Cuts an example into inputs, at least one.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    fn encode(&self, example: &Self::Example) -> Result<Vec<Self::Input>>;

    /// The token sequences of an input; one, unless there are choices.
    fn sequences<'a>(&self, input: &'a Self::Input) -> Vec<&'a Sequence>;

    /// Tokens of the longest sequence of an input.
    fn tokens(&self, input: &Self::Input) -> usize {
        self.sequences(input).into_iter().map(Sequence::len).max().unwrap_or_default()
    }

    /// The id that fills batches up.
    fn pad_id(&self) -> u32;

    /// The encoder of a model.
    fn bert<'a>(&self, model: &'a Self::Model) -> &'a BertModel;

    /// Weighs classes against their number in the training examples, so that rare ones count as much as frequent ones.
    ///
    /// # Errors
    /// If the task has no classes.
    fn balance(&mut self, _examples: &[Self::Example]) -> Result<()> {
        Err(Error::Usage("--class-weights: only classification and tagging have classes to weigh".into()))
    }

    /// How many texts were longer than the model reads, and cut, so far.
    fn truncated_count(&self) -> u64 {
        0
    }

    /// How many loss terms an input has (labeled words, say), weighted.
    fn terms(&self, input: &Self::Input) -> f64;

    /// The sum of the loss terms of a batch, shape `[1]`, from the encoder's hidden states `[S, T, H]`.
    fn loss(&self, model: &Self::Model, hidden: Tensor<3>, inputs: &[&Self::Input]) -> Tensor<1>;

    /// The head's numbers for each input, from the encoder's hidden states `[S, T, H]`.
    fn scores(&self, model: &Self::Model, hidden: Tensor<3>, inputs: &[&Self::Input]) -> Vec<Self::Scores>;

    /// The answer to one example from the scores of its inputs, as `predict --json` prints it.
    fn answer(&self, example: &Self::Example, inputs: &[Self::Input], scores: &[Self::Scores]) -> Value;

    /// The metrics of all answers, by their names in `evaluate --json`.
    fn metrics(
        &self,
        examples: &[Self::Example],
        inputs: &[Vec<Self::Input>],
        scores: &[Vec<Self::Scores>],
    ) -> Map<String, Value>;

    /// Sets what is chosen on held-out examples (the threshold of "no answer") by their metrics; whether it did.
    fn tune(&mut self, _metrics: &Map<String, Value>) -> bool {
        false
    }

    /// The worst mistakes, worst first, for the report.
    fn mistakes(
        &self,
        examples: &[Self::Example],
        inputs: &[Vec<Self::Input>],
        scores: &[Vec<Self::Scores>],
    ) -> Vec<Mistake>;

    /// The metric that decides which epoch is best; more is better.
    fn main_metric(&self) -> &'static str;
}

/// The weights that make classes count alike: examples / (classes · examples of the class), as scikit-learn's "balanced";
/// 1 for a class that has no example.
fn balanced(classes: impl Iterator<Item = usize>, count: usize) -> Vec<f32> {
    let mut examples = vec![0_u32; count];
    classes.for_each(|class| examples[class] += 1);
    let (total, present) = (examples.iter().sum::<u32>(), examples.iter().filter(|&&n| n > 0).count());
    let weight = |&n: &u32| if n == 0 { 1.0 } else { total as f32 / (present as f32 * n as f32) };
    examples.iter().map(weight).collect()
}

/// A class's weight; 1 if none are set.
fn weight_of(weights: &[f32], class: usize) -> f32 {
    weights.get(class).copied().unwrap_or(1.0)
}

/// The sum of losses `[N]`, each times the weight of its class.
fn weighted_sum(losses: Tensor<1>, weights: &[f32], classes: &[i32]) -> Tensor<1> {
    if weights.is_empty() {
        return losses.sum();
    }
    let weights: Vec<f32> = classes.iter().map(|&class| weight_of(weights, class as usize)).collect();
    let device = losses.device();
    (losses * Tensor::from_data(&weights[..], &device)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_scikit_learns() {
        // compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 2, 2])
        let weights = balanced([0, 0, 0, 1, 2, 2].into_iter(), 3);
        assert_eq!(weights, [6.0 / 9.0, 2.0, 1.0]);
    }
}
