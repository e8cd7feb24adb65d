//! Everything that changes during training: what a checkpoint holds.

use serde_json::Value;

use super::optimizer::Optimizer;
use super::precision::LossScale;

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
    /// What the loss is multiplied by in `f16`.
    pub loss_scale: LossScale,
}

impl<M> TrainingState<M> {
    /// Before the first step.
    pub fn new(model: M, optimizer: Optimizer) -> Self {
        Self { model, optimizer, step: 0, cursor: Value::Null, loss_scale: LossScale::default() }
    }
}
