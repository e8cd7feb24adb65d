//! The settings of the training loop.

use std::time::Duration;

use serde_json::Value;

use super::precision::Precision;
use super::schedule::{Decay, Schedule};
use super::wire::Wire;

/// Settings of the training loop, constant during a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Learning rate of each step, and the number of steps.
    pub schedule: Schedule,
    /// Maximum global gradient norm; `None` does not clip.
    pub clip: Option<f64>,
    /// Number of parts that a micro-batch is split into, which are computed in parallel, as far as there are cores;
    /// `None` for one per worker. Like the other settings, it affects the last digits of the result.
    pub parts: Option<usize>,
    /// Seed of the dropout masks.
    pub seed: u64,
    /// Steps between evaluations; 0 evaluates only at the end.
    pub eval_every: u64,
    /// When to write checkpoints.
    pub save: SaveInterval,
    /// Floating-point precision of the forward and backward pass.
    pub precision: Precision,
    /// Whether the backward pass recomputes activations to save memory, keeping only the inputs of encoder layers.
    pub gradient_checkpointing: bool,
    /// How gradients are sent between ranks.
    pub wire: Wire,
    /// Settings recorded in checkpoints; a run cannot be resumed with others.
    pub settings: Value,
    /// Whether to suppress progress on stderr.
    pub quiet: bool,
}

impl Plan {
    /// Sets a constant learning rate for `steps` steps, with gradients clipped at norm 1, and without evaluations and
    /// checkpoints.
    pub fn constant(learning_rate: f64, steps: u64) -> Self {
        Self {
            schedule: Schedule { peak: learning_rate, warmup: 0, steps, decay: Decay::Constant },
            clip: Some(1.0),
            parts: None,
            seed: 42,
            eval_every: 0,
            save: SaveInterval::default(),
            precision: Precision::F32,
            gradient_checkpointing: false,
            wire: Wire::F32,
            settings: Value::Null,
            quiet: true,
        }
    }
}

/// When to write checkpoints: after a number of steps or a time since the last one, whichever comes first. Checkpoints
/// are also written after the last step of a run and on a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaveInterval {
    /// Checkpoints are written after multiples of this number of steps; 0 for none.
    pub steps: u64,
    /// Time between checkpoints; `None` for no limit.
    pub time: Option<Duration>,
}

impl SaveInterval {
    /// An interval in steps (0 for none) and minutes (0 for none).
    ///
    /// ```
    /// use std::time::Duration;
    /// use bert_train::SaveInterval;
    ///
    /// assert_eq!(SaveInterval::new(1000, 10.0).time, Some(Duration::from_secs(600)));
    /// assert_eq!(SaveInterval::new(0, 0.0), SaveInterval::default());
    /// ```
    pub fn new(steps: u64, minutes: f64) -> Self {
        let time = Duration::try_from_secs_f64(minutes * 60.0).ok();
        Self { steps, time: time.filter(|_| minutes > 0.0) }
    }

    /// Whether a checkpoint is due after `step`, `elapsed` after the last one.
    pub(super) fn is_due(&self, step: u64, elapsed: Duration, is_last: bool) -> bool {
        let by_steps = is_multiple(step, self.steps) || is_last && self.steps > 0;
        by_steps || self.time.is_some_and(|time| is_last || elapsed >= time)
    }
}

/// Whether `step` is a multiple of `every`; never if that is 0.
pub(super) fn is_multiple(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_after_steps_or_minutes_whichever_comes_first() {
        let second = Duration::from_secs(1);
        let both = SaveInterval::new(1000, 10.0);
        assert!(both.is_due(2000, second, false) && both.is_due(1, 600 * second, false));
        assert!(!both.is_due(1999, 599 * second, false) && both.is_due(7, second, true));
        let by_time = SaveInterval::new(0, 10.0);
        assert!(!by_time.is_due(1000, second, false) && by_time.is_due(1, 601 * second, false));
        let never = SaveInterval::new(0, 0.0);
        assert!(!never.is_due(1000, 9000 * second, false) && !never.is_due(1000, second, true));
    }
}
