//! Draws batches of training inputs, epoch by epoch.

use bert_model::{Error, Result};
use bert_train::permutation::{Permutation, mix};
use bert_train::{StepBatches, StepSource};
use serde::{Deserialize, Serialize};

use super::joint::Joint;
use crate::features::Item;
use crate::tasks::Task;

/// Tag that keeps this random stream independent of the run's others.
const ORDER: u64 = 22;

/// A batch of inputs, sorted by length, with its number of loss terms.
pub struct Batch<'a, T: Task> {
    pub items: Vec<Item<'a, T>>,
    pub terms: f64,
    pub(super) joint: Joint<'a, T>,
}

/// The position of the next batch, as saved in checkpoints.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct EpochCursor {
    epoch: u64,
    batch: usize,
}

/// A source of training batches, in a new order every epoch.
pub(super) struct EpochSource<'a, T: Task> {
    pub items: Vec<Item<'a, T>>,
    pub task: &'a T,
    pub batch_size: usize,
    pub seed: u64,
    pub cursor: EpochCursor,
    /// Batches of the current epoch, drawn when it starts.
    pub batches: Vec<Vec<usize>>,
}

impl<T: Task> EpochSource<'_, T> {
    /// Draws the batches of an epoch at random. Batches grouped by length would give more weight to the words of short
    /// sentences.
    fn batches_of(&self, epoch: u64) -> Vec<Vec<usize>> {
        let count = self.items.len() as u64;
        let order = Permutation::new(count, mix(&[self.seed, ORDER, epoch]));
        let order: Vec<usize> = (0..count).map(|place| order.apply(place) as usize).collect();
        let mut batches: Vec<Vec<usize>> = order.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        for batch in &mut batches {
            batch.sort_by_key(|&index| self.items[index].tokens());
        }
        batches
    }
}

impl<'a, T: Task> StepSource for EpochSource<'a, T> {
    type Batch = Batch<'a, T>;

    fn next_step(&mut self) -> Result<Option<StepBatches<Self::Batch>>> {
        if self.batches.is_empty() {
            self.batches = self.batches_of(self.cursor.epoch);
        }
        let items: Vec<Item<T>> = self.batches[self.cursor.batch].iter().map(|&index| self.items[index]).collect();
        let tokens = items.iter().map(|item| item.tokens() as u64).sum();
        let terms: f64 = items.iter().map(|item| self.task.terms(item.target)).sum();
        // A batch without labeled words has no loss terms; its loss is 0.
        let terms = if terms > 0.0 { terms } else { 1.0 };
        self.cursor.batch += 1;
        let epoch = self.cursor.epoch as f64 + self.cursor.batch as f64 / self.batches.len() as f64;
        if self.cursor.batch == self.batches.len() {
            self.cursor = EpochCursor { epoch: self.cursor.epoch + 1, batch: 0 };
            self.batches.clear();
        }
        let cursor = serde_json::to_value(self.cursor).map_err(|error| Error::Setting(error.to_string()))?;
        Ok(Some(StepBatches { batches: vec![Batch { items, terms, joint: Joint::Alone }], tokens, epoch, cursor }))
    }
}
