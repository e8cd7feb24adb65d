//! The objective of a training run: computes losses of batches and evaluates the model.

use bert_model::ops::{dropout, upcast};
use bert_model::{Error, Result};
use burn::module::Module;
use burn::prelude::*;
use serde_json::{Map, Value};

use super::communicator::Communicator;

/// A training objective, which computes the loss of a batch and evaluates the model.
pub trait Objective: Sync {
    /// The model to train.
    type Model: Module;
    /// A micro-batch in host memory.
    type Batch: Send;

    /// Splits a micro-batch into at least one and at most `parts` parts, one per core. Their losses must sum to the
    /// loss of the micro-batch.
    fn split(&self, batch: Self::Batch, parts: usize) -> Vec<Self::Batch>;

    /// Splits a part, which one worker computes, into pieces that are processed one after another, each with its own
    /// backward pass, so that only one is in memory at a time. Their losses must sum to the loss of the part. This
    /// method is called for all parts of a micro-batch concurrently, so losses that depend on other parts can exchange
    /// data here.
    fn pieces(&self, _model: &Self::Model, part: Self::Batch, _masks: Masks) -> Vec<Self::Batch> {
        vec![part]
    }

    /// Whether the parts of a micro-batch exchange data in [`pieces`](Self::pieces) or [`loss`](Self::loss), so that
    /// they must be computed at the same time. There, the ranks may talk to each other as well: their gradients are
    /// exchanged afterwards.
    fn is_joint(&self) -> bool {
        false
    }

    /// Number of sequences in a micro-batch or in a part of one.
    fn sequences(&self, batch: &Self::Batch) -> usize;

    /// Computes the loss of a micro-batch, weighted so that the losses of a step's micro-batches sum to the loss of the
    /// step.
    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses;

    /// Evaluates the model on held-out data. `model` has no dropout and no autodiff. All ranks evaluate at the same
    /// time, and must return the same.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn evaluate(&mut self, _model: &Self::Model, _step: u64, _communicator: &dyn Communicator) -> Result<Evaluation> {
        Ok(Evaluation::default())
    }
}

/// The dropout masks of a part of a micro-batch.
#[derive(Debug, Clone, Copy)]
pub struct Masks {
    pub(super) seed: u64,
    pub(super) first_sequence: usize,
}

impl Masks {
    /// Starts, on this thread, the masks of the part's sequences from index `sequence` on. A forward pass that follows
    /// uses the same masks as one of the whole micro-batch, however often it is computed.
    pub fn begin(&self, sequence: usize) {
        dropout::seed(self.seed, self.first_sequence + sequence);
    }
}

/// The result of an evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Metrics by name; empty without held-out data.
    pub metrics: Map<String, Value>,
    /// Whether to stop training after this evaluation.
    pub stop: bool,
}

/// A loss and its named parts, each of shape `[1]`.
#[derive(Debug)]
pub struct Losses {
    /// The loss to minimize.
    pub total: Tensor<1>,
    /// The terms that `total` is the sum of, for the log.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

impl Losses {
    /// The losses in `f32`, in which they are scaled and summed, whatever the precision of the forward pass.
    pub(super) fn upcast(self) -> Self {
        let parts = self.parts.into_iter().map(|(name, value)| (name, upcast(value))).collect();
        Self { total: upcast(self.total), parts }
    }
}

/// The sums of a step's losses over its micro-batches, kept on the device.
#[derive(Debug, Default)]
pub struct LossSum {
    sums: Vec<(&'static str, Tensor<1>)>,
}

impl FromIterator<Losses> for LossSum {
    fn from_iter<I: IntoIterator<Item = Losses>>(losses: I) -> Self {
        let mut sum = Self::default();
        losses.into_iter().for_each(|losses| sum.add(losses));
        sum
    }
}

impl LossSum {
    /// Adds the losses of a micro-batch or of a part of one.
    fn add(&mut self, losses: Losses) {
        let named = std::iter::once(("loss", losses.total)).chain(losses.parts);
        for (name, value) in named {
            let value = value.inner();
            match self.sums.iter_mut().find(|(summed, _)| *summed == name) {
                Some((_, sum)) => *sum = sum.clone() + value,
                None => self.sums.push((name, value)),
            }
        }
    }

    /// The values, on the host.
    pub(super) fn values(&self) -> Vec<f32> {
        self.sums.iter().flat_map(|(_, value)| value.clone().into_data().iter::<f32>().collect::<Vec<_>>()).collect()
    }

    /// The sums of the losses of several shards, `values`, with the names of this one's.
    pub(super) fn sum_of(&self, values: &[f32], device: &Device) -> Self {
        let count = self.sums.len().max(1);
        let sum = |at: usize| values.iter().skip(at).step_by(count).copied().reduce(|sum, value| sum + value);
        let sums = self.sums.iter().enumerate();
        let sums = sums.map(|(at, (name, _))| (*name, Tensor::from_data([sum(at).unwrap_or(f32::NAN)], device)));
        Self { sums: sums.collect() }
    }

    /// The names of the losses, and one tensor with their values followed by those in `more`.
    pub(super) fn with(self, more: [Tensor<1>; 2], step: u64) -> Result<(Vec<&'static str>, Tensor<1>)> {
        let (names, mut values): (Vec<_>, Vec<_>) = self.sums.into_iter().unzip();
        if values.is_empty() {
            return Err(Error::Setting(format!("step {step}: found no micro-batch, expected at least one")));
        }
        values.extend(more);
        Ok((names, Tensor::cat(values, 0)))
    }
}
