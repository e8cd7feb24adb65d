//! What pretraining and fine-tuning share: everything about a run that knows neither masks nor labels.
//!
//! [`schedule`] → [`optimizer`] (with [`gradients`] and [`precision`]) → [`trainer`], the loop itself, which changes a
//! [`state`]; around it [`mod@prefetch`] prepares batches, [`permutation`] shuffles them, [`adaptation`] says what learns,
//! [`checkpoint`] makes runs resumable, [`interrupt`] ends them politely, [`run_directory`] keeps their files, [`progress`]
//! and [`report`] show them.

// Nothing that a user feeds us may panic; there are no exceptions.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod adaptation;
pub mod checkpoint;
pub mod gradients;
pub mod interrupt;
pub mod optimizer;
pub mod permutation;
pub mod precision;
pub mod prefetch;
pub mod progress;
pub mod report;
pub mod run_directory;
pub mod schedule;
pub mod state;
pub mod trainer;

pub use adaptation::Adaptation;
pub use checkpoint::Checkpoints;
pub use gradients::GradientSum;
pub use interrupt::Interrupt;
pub use optimizer::{Algorithm, Optimizer, OptimizerConfig};
pub use precision::{LossScale, Precision};
pub use prefetch::{StepBatches, StepSource, prefetch};
pub use progress::Progress;
pub use run_directory::{IfExists, RunDirectory};
pub use schedule::{Decay, Schedule};
pub use state::TrainingState;
pub use trainer::{Ended, Losses, Objective, Plan, Step, take_step, train};
