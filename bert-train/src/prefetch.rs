//! Prepares the batches of the next steps on a separate thread while the current step trains.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use bert_model::Result;
use serde_json::Value;

/// Everything that one optimizer step trains on.
#[derive(Debug)]
pub struct StepBatches<B> {
    /// The micro-batches, in order.
    pub batches: Vec<B>,
    /// Number of tokens in them, without padding.
    pub tokens: u64,
    /// Passes over the data so far, including this step; fractional within an epoch. A second phase counts anew.
    pub epoch: f64,
    /// Position of the source after this step, to be saved in a checkpoint.
    pub cursor: Value,
}

/// A source of batches: an iterator over steps in a fixed order.
pub trait StepSource: Send {
    /// A micro-batch, in host memory.
    type Batch: Send;

    /// The batches of the next step; `None` at the end of the data.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn next_step(&mut self) -> Result<Option<StepBatches<Self::Batch>>>;
}

/// Number of steps prepared in advance.
const READY_STEPS: usize = 2;

/// Runs `source` on a thread of `scope`; dropping the receiver stops it.
pub fn prefetch<'scope, S: StepSource + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut source: S,
) -> Receiver<Result<StepBatches<S::Batch>>>
where
    S::Batch: 'scope,
{
    let (sender, receiver) = sync_channel(READY_STEPS);
    scope.spawn(move || {
        while let Some(step) = source.next_step().transpose() {
            let failed = step.is_err();
            if sender.send(step).is_err() || failed {
                break;
            }
        }
    });
    receiver
}
