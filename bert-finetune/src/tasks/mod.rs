//! Tasks, one module each: labeled examples, loss and metrics. The library converts texts to inputs and scores to
//! answers ([`bert_model::pipeline`]).
//!
//! [`crate::train`], [`crate::predict`] and `evaluate` access tasks only through [`Task`]; [`kind`] lists their names,
//! and [`any`] creates a task from the description of a head.

pub mod any;
pub mod embedding;
pub mod kind;
mod labels;
pub mod multiple_choice;
pub mod question_answering;
pub mod sequence;
pub mod tagging;

use std::path::Path;

use bert_cli::answers::to_value;
use bert_cli::input::source::Input;
use bert_cli::warning::warn_once;
use bert_model::pipeline::{HeadProcessor, Processor};
use bert_model::pretrained::weights::Weights;
use bert_model::pretrained::{self, Loaded, load_weights_partial};
use bert_model::{BertConfig, Error, Pretrained, Result, Tokenizer};
use bert_train::Adaptation;
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::short;
use crate::report::Mistake;

/// Iterates over examples, reading one at a time.
pub type Examples<E> = Box<dyn Iterator<Item = Result<E>> + Send>;

/// The parts of an example given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The text; for a question, its context.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The question about a text.
    pub question: Option<String>,
    /// The choices.
    pub choices: Vec<String>,
}

/// BERT with the head of a task.
pub type ModelOf<T> = <<T as Task>::Processor as Processor>::Model;
/// One input of the model; an example may have several (windows of a long text).
pub type InputOf<T> = <<T as Task>::Processor as Processor>::Input;
/// The head's output for one input, on the host.
pub type OutputOf<T> = <<T as Task>::Processor as Processor>::Output;
/// The head's outputs for all inputs of each example.
pub type OutputsOf<T> = Vec<Vec<OutputOf<T>>>;
/// The answer to one example.
pub type AnswerOf<T> = <<T as Task>::Processor as Processor>::Answer;
/// The pipeline request for an example, without its label.
pub type RequestOf<'a, T> = <<T as Task>::Processor as Processor>::Request<'a>;

/// Why an example of a labeled file is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// It has no gold label, so it is neither learned nor counted in metrics.
    Unlabeled,
    /// The position of its answer in its text is unknown: it counts in metrics, but cannot be learned.
    Misplaced,
}

/// Removes the examples that have one of these defects, and reports their number on stderr.
pub fn leave_out<T: Task>(task: &T, examples: &mut Vec<T::Example>, defects: &[Defect], path: &Path) {
    for defect in defects {
        let count = examples.len();
        examples.retain(|example| task.defect(example) != Some(*defect));
        warn_of(*defect, count - examples.len(), path);
    }
}

/// Reports on stderr how many examples were left out because of a defect.
pub fn warn_of(defect: Defect, count: usize, path: &Path) {
    let what = match defect {
        Defect::Unlabeled => "without a gold label skipped",
        Defect::Misplaced => "not used for training, because their answer is not at `answer_start`",
    };
    if count > 0 {
        warn_once(format!("{}: {count} example(s) {what}", path.display()));
    }
}

/// A task trained on labeled examples.
pub trait Task: Clone + Send + Sync {
    /// The text processing of the trained model's pipeline.
    type Processor: HeadProcessor + Clone;
    /// An example of a data file.
    type Example: Clone + Send + Sync + 'static;
    /// The expected output for one input.
    type Target: Send + Sync;

    /// Returns the text processing of the pipeline.
    fn processor(&self) -> &Self::Processor;

    /// Reads labeled examples, including those with a [`Defect`].
    ///
    /// # Errors
    /// If the file is invalid; the error names the location.
    fn read(&self, input: &Input) -> Result<Vec<Self::Example>>;

    /// Returns the defect of an example, if it has one.
    fn defect(&self, _example: &Self::Example) -> Option<Defect> {
        None
    }

    /// Adapts the task to the examples to evaluate, if the settings of a third-party head are unknown (such as whether
    /// a question may have no answer).
    fn prepare(&mut self, _examples: &[Self::Example]) {}

    /// Reads labeled examples for evaluation.
    ///
    /// # Errors
    /// As [`Task::read`].
    fn read_held_out(&self, input: &Input) -> Result<Vec<Self::Example>> {
        self.read(input)
    }

    /// Reads unlabeled examples, one at a time, from a file or from standard input.
    ///
    /// # Errors
    /// If the file cannot be read, or its format does not fit the task. An example may yield its own error.
    fn unlabeled(&self, input: &Input) -> Result<Examples<Self::Example>>;

    /// Creates an example from the command line.
    ///
    /// # Errors
    /// If the options do not form an example of this task.
    fn example_of(&self, query: &Query) -> Result<Self::Example>;

    /// Returns the pipeline request for an example.
    fn request<'a>(&self, example: &'a Self::Example) -> RequestOf<'a, Self>;

    /// Returns the expected output for each of an example's inputs.
    fn targets(&self, example: &Self::Example, inputs: &[InputOf<Self>]) -> Vec<Self::Target>;

    /// Weights classes inversely to their frequency in the training examples.
    ///
    /// # Errors
    /// If the task has no classes.
    fn balance(&mut self, _examples: &[Self::Example]) -> Result<()> {
        Err(Error::Usage("--class-weights: only classification and tagging have classes to weight".into()))
    }

    /// Checks that training with this adaptation would change the loss.
    ///
    /// # Errors
    /// If everything that the loss depends on is frozen.
    fn check_adaptation(&self, _adaptation: Adaptation) -> Result<()> {
        Ok(())
    }

    /// Returns the joint loss, if the loss of an example depends on the others in its batch. [`Task::loss`] must then
    /// equal it for a batch in one part.
    fn joint(&self) -> Option<&dyn JointLoss<Self>> {
        None
    }

    /// The weighted number of loss terms of an input with this target, such as its number of labeled words.
    fn terms(&self, _target: &Self::Target) -> f64 {
        1.0
    }

    /// The sum of the loss terms of a batch, shape `[1]`, from the encoder's hidden states `[S, T, H]`.
    fn loss(
        &self,
        model: &ModelOf<Self>,
        hidden: Tensor<3>,
        inputs: &[&InputOf<Self>],
        targets: &[&Self::Target],
    ) -> Tensor<1>;

    /// An answer as printed by `predict --json`.
    fn json<'a>(&'a self, answer: &'a AnswerOf<Self>) -> impl Serialize + 'a;

    /// An answer as printed by `predict`: one short line.
    ///
    /// # Errors
    /// If the answer is no JSON.
    fn plain(&self, answer: &AnswerOf<Self>) -> Result<String> {
        Ok(short(&to_value(&self.json(answer))?))
    }

    /// The texts of a labeled example and, as `expected`, its gold answer, for a file of predictions.
    fn labeled(&self, example: &Self::Example) -> Map<String, Value>;

    /// Computes the metrics of the answers to all labeled examples, with the names used in `evaluate --json`.
    fn metrics(
        &self,
        examples: &[Self::Example],
        inputs: &[Vec<InputOf<Self>>],
        outputs: &[Vec<OutputOf<Self>>],
    ) -> Map<String, Value>;

    /// Tunes settings on held-out examples, given their metrics (the no-answer threshold). Returns whether anything was
    /// changed.
    fn tune(&mut self, _metrics: &Map<String, Value>) -> bool {
        false
    }

    /// The worst mistakes in labeled examples, worst first, for the report.
    fn mistakes(
        &self,
        examples: &[Self::Example],
        inputs: &[Vec<InputOf<Self>>],
        outputs: &[Vec<OutputOf<Self>>],
    ) -> Vec<Mistake>;

    /// The metric that selects the best epoch; higher is better.
    fn main_metric(&self) -> &'static str;

    /// Creates a model whose parameters are initialized from `seed`.
    fn fresh_model(&self, config: &BertConfig, seed: u64, device: &Device) -> ModelOf<Self> {
        ModelOf::<Self>::init_seeded(config, seed, device)
    }

    /// Loads the model of a checkpoint. Parameters of the pooler and head that the checkpoint lacks are initialized
    /// from `seed`.
    ///
    /// # Errors
    /// If a tensor of the encoder is missing or malformed.
    fn load_model(
        &self,
        weights: &Weights,
        config: &BertConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Loaded<ModelOf<Self>>> {
        load_weights_partial(weights, config.clone(), seed, device)
    }

    /// Writes a model directory without `finetune.json`.
    ///
    /// # Errors
    /// If the directory cannot be written.
    fn save_model(
        &self,
        directory: &Path,
        model: &ModelOf<Self>,
        config: &BertConfig,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        pretrained::save(directory, model, config, tokenizer)
    }

    /// Reads the task and the model that were saved.
    ///
    /// # Errors
    /// If they cannot be read.
    fn saved(&self, directory: &Path, device: &Device) -> Result<(Self, ModelOf<Self>)> {
        Ok((self.clone(), pretrained::load(directory, device)?.model))
    }
}

/// A loss that depends on all examples of a batch jointly, through a vector for each of their sequences.
pub trait JointLoss<T: Task>: Sync {
    /// Computes the vectors `[S, W]` of the sequences in a part of a batch, from their hidden states `[S, T, H]`.
    fn vectors(&self, model: &ModelOf<T>, hidden: Tensor<3>, inputs: &[&InputOf<T>]) -> Tensor<2>;

    /// Computes the sum of the loss terms of a batch, shape `[1]`, from the vectors of all its sequences.
    fn loss(&self, vectors: Tensor<2>, targets: &[&T::Target]) -> Tensor<1>;
}

/// The weights of balanced classes, like scikit-learn's "balanced": examples / (classes · examples of the class), or 1
/// for a class without examples.
fn balanced(classes: impl Iterator<Item = usize>, count: usize) -> Vec<f32> {
    let mut examples = vec![0_u32; count];
    classes.for_each(|class| examples[class] += 1);
    let (total, present) = (examples.iter().sum::<u32>(), examples.iter().filter(|&&n| n > 0).count());
    let weight = |&n: &u32| if n == 0 { 1.0 } else { total as f32 / (present as f32 * n as f32) };
    examples.iter().map(weight).collect()
}

/// The weight of a class; 1 if no weights are set.
fn weight_of(weights: &[f32], class: usize) -> f32 {
    weights.get(class).copied().unwrap_or(1.0)
}

/// The sum of the losses `[N]`, each weighted by its class.
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
