//! The state of a training run: everything that changes from step to step and is saved in a
//! checkpoint.

use serde_json::Value;

use super::optimizer::Optimizer;
use super::precision::LossScale;

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
    /// Factor on the loss in `f16` training.
    pub loss_scale: LossScale,
}

impl<M> TrainingState<M> {
    /// The state before the first step.
    pub fn new(model: M, optimizer: Optimizer) -> Self {
        Self { model, optimizer, step: 0, cursor: Value::Null, loss_scale: LossScale::default() }
    }
}
