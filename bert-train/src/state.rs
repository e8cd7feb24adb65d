//! The state of a training run: everything that changes from step to step and is saved in a checkpoint.

use serde_json::Value;

use super::optimizer::Optimizer;
use super::ownership::Ownership;
use super::precision::{LossScale, SavedScale};

/// Everything that changes during training and is saved in a checkpoint.
#[derive(Debug)]
pub struct TrainingState<M> {
    /// The model.
    pub model: M,
    /// The optimizer, with its running moments.
    pub optimizer: Optimizer,
    /// Number of steps taken.
    pub step: u64,
    /// Position in the training data, as its source reports it.
    pub cursor: Value,
    /// Time in seconds that the run has taken, including all of its resumed parts; informational only.
    pub seconds: f64,
    /// The loss scale of `f16` training, as stored in the checkpoint.
    pub(crate) saved_scale: SavedScale,
    /// The loss scale during training, once the first step has begun.
    pub(crate) loss_scale: Option<LossScale>,
    /// Which rank updates which parameter, if the optimizer's state is divided among the ranks.
    pub(crate) ownership: Option<Ownership>,
}

impl<M> TrainingState<M> {
    /// The state before the first step.
    pub fn new(model: M, optimizer: Optimizer) -> Self {
        let (cursor, saved_scale) = (Value::Null, SavedScale::default());
        Self { model, optimizer, step: 0, cursor, seconds: 0.0, saved_scale, loss_scale: None, ownership: None }
    }

    /// The loss scale of `f16` training, for a checkpoint; waits for a GPU.
    pub(crate) fn scale_to_save(&self) -> SavedScale {
        self.loss_scale.as_ref().map_or(self.saved_scale, LossScale::saved)
    }
}
