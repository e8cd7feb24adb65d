//! The training objective of fine-tuning, which evaluates the model after every epoch and keeps the best one.

use std::path::PathBuf;

use bert_cli::warning::warn_once;
use bert_model::Result;
use bert_model::pipeline::Processor;
use bert_model::workers::split_by_length;
use bert_train::{Communicator, Evaluation, Losses, Masks};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};

use super::Run;
use super::best::{compare, is_defined};
use super::data::LabeledData;
use super::epochs::Batch;
use super::joint::{Joint, Meeting, Member, VectorGradient};
use crate::features::{Encoded, Item, hidden_states};
use crate::report::EvaluationRecord;
use crate::tasks::{Defect, InputOf, JointLoss, ModelOf, OutputOf, OutputsOf, Task};

/// The best epoch, whose model is kept.
#[derive(Debug, Clone)]
pub(super) struct Best {
    pub epoch: u64,
    pub metrics: Map<String, Value>,
}

/// The training objective, with an evaluation after every epoch.
pub(super) struct FineTuning<'a, T: Task> {
    pub run: &'a Run<'a, T>,
    pub data: &'a LabeledData<T>,
    pub evaluation: Encoded<T>,
    pub steps_per_epoch: u64,
    pub directory: PathBuf,
    pub best: Option<Best>,
    /// Number of epochs since the best one.
    pub epochs_since_best: u64,
}

impl<T: Task> FineTuning<'_, T> {
    /// Restores the best epoch from the metrics logged before a run was resumed.
    pub fn replay_metrics(&mut self, metrics: &[Value]) {
        for record in metrics {
            if let (Some(step), Some(metrics)) = (record["step"].as_u64(), record["eval"].as_object()) {
                self.keep_if_best(step / self.steps_per_epoch, metrics.clone());
            }
        }
    }

    /// Records an epoch's metrics and returns whether they are the best so far.
    fn keep_if_best(&mut self, epoch: u64, metrics: Map<String, Value>) -> bool {
        let name = self.run.task.main_metric();
        if !is_defined(name, &metrics) {
            warn_once(format!("{name} is undefined on the held-out examples: the epoch with the lowest loss is kept"));
        }
        let is_best = self.best.as_ref().is_none_or(|best| compare(name, &metrics, &best.metrics).is_gt());
        if is_best {
            self.best = Some(Best { epoch, metrics });
            self.epochs_since_best = 0;
        } else {
            self.epochs_since_best += 1;
        }
        is_best
    }
}

impl<T: Task> FineTuning<'_, T> {
    /// Computes the vectors of all pieces without a graph, meets the other parts, and returns the gradient for each
    /// piece.
    fn meet(
        &self,
        model: &ModelOf<T>,
        loss: &dyn JointLoss<T>,
        member: Member<T>,
        pieces: &[Vec<Item<T>>],
        masks: Masks,
    ) -> Vec<VectorGradient> {
        let Run { task, device, .. } = self.run;
        let model = model.clone().no_grad();
        let (mut all, mut width, mut done) = (Vec::new(), 0, 0);
        for items in pieces {
            masks.begin(done);
            done += sequences(items);
            let inputs: Vec<&InputOf<T>> = items.iter().map(|item| item.input).collect();
            let vectors = loss.vectors(&model, hidden_states(task, &model, items, &device.clone().autodiff()), &inputs);
            [_, width] = vectors.dims();
            all.extend(to_host(vectors));
        }
        let counts: Vec<usize> = pieces.iter().map(|items| sequences(items)).collect();
        member.meet(loss, all, width, device).split(&counts)
    }
}

fn to_host(vectors: Tensor<2>) -> Vec<f32> {
    vectors.into_data().iter::<f32>().collect()
}

/// The number of sequences in `items`.
fn sequences<T: Task>(items: &[Item<T>]) -> usize {
    items.iter().map(|item| T::Processor::sequences(item.input).len()).sum()
}

impl<'a, T: Task> bert_train::Objective for FineTuning<'a, T> {
    type Model = ModelOf<T>;
    type Batch = Batch<'a, T>;

    fn split(&self, batch: Self::Batch, parts: usize) -> Vec<Self::Batch> {
        let Batch { items, terms, .. } = batch;
        let Run { task, settings, communicator, .. } = self.run;
        let targets: Vec<&T::Target> = items.iter().map(|item| item.target).collect();
        let parts = split_by_length(items, Item::tokens, parts);
        let mut members = match task.joint() {
            Some(_) if parts.len() > 1 || settings.mini_batch.is_some() => {
                let counts = parts.iter().map(|items| sequences(items)).collect();
                Meeting::of(counts, targets, terms, *communicator)
            }
            _ => Vec::new(),
        }
        .into_iter();
        let part = |items| Batch { items, terms, joint: members.next().flatten().map_or(Joint::Alone, Joint::Meeting) };
        parts.into_iter().map(part).collect()
    }

    fn pieces(&self, model: &Self::Model, part: Self::Batch, masks: Masks) -> Vec<Self::Batch> {
        let Some(size) = self.run.settings.mini_batch else { return vec![part] };
        let Batch { items, terms, joint } = part;
        // The limit on what is in memory at once is shared by all workers.
        let (workers, member) = match joint {
            Joint::Meeting(member) => (member.parts(), Some(member)),
            _ => (1, None),
        };
        let pieces: Vec<Vec<Item<T>>> = items.chunks(size.div_ceil(workers).max(1)).map(<[Item<T>]>::to_vec).collect();
        let joints: Vec<Joint<T>> = match (self.run.task.joint(), member) {
            (Some(loss), Some(member)) => {
                self.meet(model, loss, member, &pieces, masks).into_iter().map(Joint::Met).collect()
            }
            _ => pieces.iter().map(|_| Joint::Alone).collect(),
        };
        pieces.into_iter().zip(joints).map(|(items, joint)| Batch { items, terms, joint }).collect()
    }

    fn sequences(&self, batch: &Self::Batch) -> usize {
        sequences(&batch.items)
    }

    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses {
        let Run { task, device, .. } = self.run;
        let Batch { items, terms, joint } = batch;
        let hidden = hidden_states(task, model, &items, &device.clone().autodiff());
        let (inputs, targets): (Vec<&InputOf<T>>, Vec<&T::Target>) =
            items.iter().map(|item| (item.input, item.target)).unzip();
        let total = match (task.joint(), joint) {
            (Some(loss), Joint::Meeting(member)) => {
                let vectors = loss.vectors(model, hidden, &inputs);
                let [_, width] = vectors.dims();
                member.meet(loss, to_host(vectors.clone()), width, device).loss(vectors)
            }
            (Some(loss), Joint::Met(wanted)) => wanted.loss(loss.vectors(model, hidden, &inputs)),
            _ => task.loss(model, hidden, &inputs, &targets) / terms,
        };
        Losses { total, parts: Vec::new() }
    }

    fn is_joint(&self) -> bool {
        self.run.task.joint().is_some()
    }

    fn evaluate(&mut self, model: &Self::Model, step: u64, _communicator: &dyn Communicator) -> Result<Evaluation> {
        let examples = &self.data.evaluation;
        if examples.is_empty() {
            return Ok(Evaluation::default());
        }
        let Run { device, settings, .. } = self.run;
        let mut task = self.run.task.clone();
        let (mut metrics, outputs) = evaluate(&task, model, examples, &self.evaluation, device)?;
        if task.tune(&metrics) {
            metrics = metrics_of(&task, examples, &self.evaluation, &outputs);
        }
        let epoch = step / self.steps_per_epoch;
        let mistakes = task.mistakes(examples, &self.evaluation.inputs, &outputs);
        if self.keep_if_best(epoch, metrics.clone()) && self.run.communicator.is_first() {
            self.run.save(&self.directory, model, &metrics)?;
            EvaluationRecord { epoch, metrics: metrics.clone(), mistakes, test: None }.save(&self.directory)?;
        }
        let stop = settings.early_stop.is_some_and(|patience| self.epochs_since_best >= patience);
        Ok(Evaluation { metrics, stop })
    }
}

/// Computes the metrics of a model (without autodiff) on the labeled examples; also returns the head's outputs for all
/// examples.
///
/// # Errors
/// If the system cannot create threads.
pub fn evaluate<T: Task>(
    task: &T,
    model: &ModelOf<T>,
    examples: &[T::Example],
    encoded: &Encoded<T>,
    device: &Device,
) -> Result<(Map<String, Value>, OutputsOf<T>)> {
    let outputs = encoded.score(task, model, device)?;
    Ok((metrics_of(task, examples, encoded, &outputs), outputs))
}

fn metrics_of<T: Task>(
    task: &T,
    examples: &[T::Example],
    encoded: &Encoded<T>,
    outputs: &[Vec<OutputOf<T>>],
) -> Map<String, Value> {
    let labeled = examples.iter().filter(|example| task.defect(example) != Some(Defect::Unlabeled)).count();
    let mut metrics = match labeled {
        0 => [task.main_metric(), "loss"].map(|name| (name.to_string(), Value::Null)).into_iter().collect(),
        _ => task.metrics(examples, &encoded.inputs, outputs),
    };
    metrics.insert("examples".into(), labeled.into());
    metrics
}
