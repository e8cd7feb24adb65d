//! Everything about a training run that pretraining and fine-tuning share.
//!
//! [`trainer`] is the training loop, which follows a [`plan`]. Each [`step`] updates a [`state`] for an [`objective`]
//! with an [`optimizer`], using a learning rate from a [`schedule`] and [`gradients`] computed at some [`precision`],
//! which a [`tree_sum`] adds in the order of a [`tree`] over the shards of all [`cores`] and, by a [`reduction`], over
//! all processes of a [`communicator`], which send gradients in the format of a [`wire`]. Around it, [`mod@prefetch`]
//! prepares batches, [`permutation`] shuffles them, [`adaptation`] selects the trainable parameters, [`checkpoint`] makes
//! runs resumable, [`interrupt`] handles signals, [`run_directory`] manages the files of a run, [`progress`] and
//! [`report`] display it, [`parameters`] visits a model's parameters by name, [`launch`] finds out whether several
//! processes were started, [`sharing`] gives all of them the state of the first, and `ownership` divides the optimizer's
//! among them.

#![warn(missing_docs)]
// Invalid user input must never panic.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod adaptation;
pub mod checkpoint;
pub mod communicator;
pub mod cores;
pub mod gradients;
pub mod interrupt;
pub mod launch;
#[cfg(feature = "mpi")]
mod mpi;
pub mod objective;
pub mod optimizer;
mod ownership;
pub mod parameters;
pub mod permutation;
pub mod plan;
pub mod precision;
pub mod prefetch;
pub mod progress;
pub mod reduction;
pub mod report;
pub mod run_directory;
pub mod schedule;
pub mod sharing;
pub mod state;
pub mod step;
pub mod trainer;
pub mod tree;
pub mod tree_sum;
pub mod wire;

pub use adaptation::Adaptation;
pub use checkpoint::Checkpoints;
pub use communicator::{Communicator, Patience, Solo};
pub use gradients::GradientSum;
pub use interrupt::Interrupt;
pub use objective::{Evaluation, Losses, Masks, Objective};
pub use optimizer::{Algorithm, Optimizer, OptimizerConfig};
pub use plan::{Plan, SaveInterval};
pub use precision::{LossScale, Precision};
pub use prefetch::{StepBatches, StepSource, prefetch};
pub use progress::Progress;
pub use run_directory::{IfExists, RunDirectory};
pub use schedule::{Decay, Schedule};
pub use state::TrainingState;
pub use step::{PendingStep, Step, take_step};
pub use trainer::{Ended, train};
pub use wire::Wire;
