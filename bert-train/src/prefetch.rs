//! Prepares the batches of the next steps on a thread of their own while the current step trains.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use bert_model::Result;
use serde_json::Value;

/// Everything that one optimizer step trains on.
#[derive(Debug)]
pub struct StepBatches<B> {
    /// The micro-batches, in order.
    pub batches: Vec<B>,
    /// Tokens in them, padding left out.
    pub tokens: u64,
    /// Passes over the data so far, this step included.
    pub epoch: f64,
    /// Where the source stands after this step; what a checkpoint keeps.
    pub cursor: Value,
}

/// Where batches come from: an iterator over steps in a fixed order.
pub trait StepSource: Send {
    /// A micro-batch on the host.
    type Batch: Send;

    /// The next step's batches; `None` when the data has ended for good.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn next_step(&mut self) -> Result<Option<StepBatches<Self::Batch>>>;
}

/// How many steps may lie ready.
const READY_STEPS: usize = 2;

/// Runs `source` on a thread of `scope`; dropping the receiver ends it.
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
