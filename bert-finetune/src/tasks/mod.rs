//! Tasks, one file for each: their labeled examples, loss and metrics. The conversion of texts to input and of scores
//! to answers is the library's ([`bert_model::pipeline`]).
//!
//! [`crate::train`], [`crate::predict`] and `evaluate` know tasks only through [`Task`]; [`kind`] has their names,
//! [`any`] makes one of them from the description of a head.

pub mod any;
pub mod embedding;
pub mod kind;
mod labels;
pub mod multiple_choice;
pub mod question_answering;
pub mod sequence;
pub mod tagging;

use std::path::Path;

use bert_cli::input::kind::Input;
use bert_cli::warning::warn_once;
use bert_model::pipeline::{HeadProcessor, Processor};
use bert_model::pretrained::weights::Weights;
use bert_model::pretrained::{self, Loaded, load_weights_partial};
use bert_model::{BertConfig, Error, Pretrained, Result, Tokenizer};
use bert_train::Adaptation;
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};

use crate::report::Mistake;

/// Examples, one at a time.
pub type Examples<E> = Box<dyn Iterator<Item = Result<E>> + Send>;

/// What the command line gives for one example.
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
/// An example without its label.
pub type RequestOf<'a, T> = <<T as Task>::Processor as Processor>::Request<'a>;

/// Why an example of a labeled file is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// It has no gold label: it is neither learned nor counted in metrics.
    Unlabeled,
    /// Where its answer is in its text is not known: it counts in metrics, but cannot be learned.
    Misplaced,
}

/// Leaves out the examples with one of these defects, and says on stderr how many.
pub fn leave_out<T: Task>(task: &T, examples: &mut Vec<T::Example>, defects: &[Defect], path: &Path) {
    for defect in defects {
        let count = examples.len();
        examples.retain(|example| task.defect(example) != Some(*defect));
        warn_of(*defect, count - examples.len(), path);
    }
}

/// Says on stderr how many examples have a defect and are left out for it.
pub fn warn_of(defect: Defect, count: usize, path: &Path) {
    let what = match defect {
        Defect::Unlabeled => "without a gold label left out",
        Defect::Misplaced => "not learned, because their answer is not where `answer_start` says",
    };
    if count > 0 {
        warn_once(format!("{}: {count} example(s) {what}", path.display()));
    }
}

/// A task that is learned from labeled examples.
pub trait Task: Clone + Send + Sync {
    /// The text side of the pipeline of the trained model.
    type Processor: HeadProcessor + Clone;
    /// An example of a data file.
    type Example: Clone + Send + Sync + 'static;
    /// The expected output for one input.
    type Target: Send + Sync;

    /// The text side of the pipeline.
    fn processor(&self) -> &Self::Processor;

    /// Reads labeled examples, those with a [`Defect`] too.
    ///
    /// # Errors
    /// If the file is invalid; the error names the place.
    fn read(&self, input: &Input) -> Result<Vec<Self::Example>>;

    /// Why an example that was read cannot be used, if it cannot.
    fn defect(&self, _example: &Self::Example) -> Option<Defect> {
        None
    }

    /// Prepares for the evaluation of a head from elsewhere, whose settings are not known (whether a question may have
    /// no answer), by the examples to evaluate.
    fn prepare(&mut self, _examples: &[Self::Example]) {}

    /// Reads labeled examples to judge a model by.
    ///
    /// # Errors
    /// As [`Task::read`].
    fn read_held_out(&self, input: &Input) -> Result<Vec<Self::Example>> {
        self.read(input)
    }

    /// Reads examples without labels, one at a time, from a file or from the standard input.
    ///
    /// # Errors
    /// If the file cannot be read, or not for this task; examples yield their own errors.
    fn questions(&self, input: &Input) -> Result<Examples<Self::Example>>;

    /// An example from the command line.
    ///
    /// # Errors
    /// If the options do not make an example.
    fn question(&self, query: &Query) -> Result<Self::Example>;

    /// The request to the pipeline for an example.
    fn request<'a>(&self, example: &'a Self::Example) -> RequestOf<'a, Self>;

    /// The expected output for each of an example's inputs.
    fn targets(&self, example: &Self::Example, inputs: &[InputOf<Self>]) -> Vec<Self::Target>;

    /// Weights classes inversely to their frequency in the training examples.
    ///
    /// # Errors
    /// If the task has no classes.
    fn balance(&mut self, _examples: &[Self::Example]) -> Result<()> {
        Err(Error::Usage("--class-weights: only classification and tagging have classes to weigh".into()))
    }

    /// Refuses to learn where nothing would.
    ///
    /// # Errors
    /// If all that the loss depends on is frozen.
    fn check_adaptation(&self, _adaptation: Adaptation) -> Result<()> {
        Ok(())
    }

    /// The loss, if that of an example depends on the others of its batch; then [`Task::loss`] is that of a batch alone.
    fn joint(&self) -> Option<&dyn JointLoss<Self>> {
        None
    }

    /// The weighted number of loss terms of an input with this target, for instance of its labeled words.
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

    /// An answer as `predict --json` prints it.
    fn json(&self, answer: &AnswerOf<Self>) -> Value;

    /// The texts of a labeled example, and as `expected` what should be said of it, for a file of predictions.
    fn labeled(&self, example: &Self::Example) -> Map<String, Value>;

    /// The metrics of the answers to all labeled examples, by their names in `evaluate --json`.
    fn metrics(
        &self,
        examples: &[Self::Example],
        inputs: &[Vec<InputOf<Self>>],
        outputs: &[Vec<OutputOf<Self>>],
    ) -> Map<String, Value>;

    /// Sets what is tuned on held-out examples (the threshold of "no answer") from their metrics. Returns whether
    /// anything was set.
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

    /// A model whose parameters are drawn from `seed`.
    fn fresh_model(&self, config: &BertConfig, seed: u64, device: &Device) -> ModelOf<Self> {
        ModelOf::<Self>::init_seeded(config, seed, device)
    }

    /// The model of a checkpoint; what the checkpoint lacks of pooler and head is drawn from `seed`.
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
    /// If it cannot be written.
    fn save_model(
        &self,
        directory: &Path,
        model: &ModelOf<Self>,
        config: &BertConfig,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        pretrained::save(directory, model, config, tokenizer)
    }

    /// The task with the model that was saved.
    ///
    /// # Errors
    /// If it cannot be read.
    fn saved(&self, directory: &Path, device: &Device) -> Result<(Self, ModelOf<Self>)> {
        Ok((self.clone(), pretrained::load(directory, device)?.model))
    }
}

/// A loss that looks at all examples of a batch together, through a vector for each of their sequences.
pub trait JointLoss<T: Task>: Sync {
    /// The vectors `[S, W]` of the sequences of a part of a batch, from their hidden states `[S, T, H]`.
    fn vectors(&self, model: &ModelOf<T>, hidden: Tensor<3>, inputs: &[&InputOf<T>]) -> Tensor<2>;

    /// The sum of the loss terms of a batch, shape `[1]`, from the vectors of all its sequences.
    fn loss(&self, vectors: Tensor<2>, targets: &[&T::Target]) -> Tensor<1>;
}

/// The weights of balanced classes: examples / (classes · examples of the class), as scikit-learn's "balanced";
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
