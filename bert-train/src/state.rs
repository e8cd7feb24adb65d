//! Everything that changes during training: what a checkpoint holds.

use serde_json::Value;

use super::optimizer::Optimizer;
use super::precision::{LossScale, SavedScale};

/// Everything that changes during training.
#[derive(Debug)]
pub struct TrainingState<M> {
    /// The model.
    pub model: M,
    /// The optimizer and its means.
    pub optimizer: Optimizer,
    /// Steps taken.
    pub step: u64,
    /// Where the data stands.
    pub cursor: Value,
    /// What the loss is multiplied by in `f16`, as a checkpoint had it.
    pub(crate) saved_scale: SavedScale,
    /// The same while training, once the first step has begun.
    pub(crate) loss_scale: Option<LossScale>,
}

impl<M> TrainingState<M> {
    /// Before the first step.
    pub fn new(model: M, optimizer: Optimizer) -> Self {
        let (cursor, saved_scale) = (Value::Null, SavedScale::default());
        Self { model, optimizer, step: 0, cursor, saved_scale, loss_scale: None }
    }

    /// What the loss is multiplied by in `f16`, for a checkpoint; waits for a GPU.
    pub(crate) fn scale_to_save(&self) -> SavedScale {
        self.loss_scale.as_ref().map_or(self.saved_scale, LossScale::saved)
    }
}
