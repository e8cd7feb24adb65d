//! Fine-tuning BERT: from a pretrained model directory and labeled data to a model for a task.
//!
//! [`data`] reads files, [`tasks`] defines each task's inputs, loss and answers, [`features`] computes what the heads
//! read, and [`metrics`] scores predictions. [`train`] fine-tunes, [`predict`] answers, [`mod@evaluate`] measures,
//! [`embed`] computes vectors and [`vectors`] writes them, [`similarity`], [`search`] and [`rank`] compare texts, and
//! [`report`] renders a run. [`description`] is what a model directory records about its head. [`args`] defines the
//! command line, with [`presets`], and [`settings`] is its validated form; [`effect`] rejects options without effect.
//! [`model_directory`] finds the parts of a model directory.
//! [`output`], [`meter`] and [`truncated`] report results, progress and truncated texts, and [`demo`] is the run
//! without options.

// Invalid user input must never panic.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod data;
pub mod demo;
pub mod description;
pub mod effect;
pub mod embed;
pub mod embedder;
pub mod evaluate;
pub mod features;
mod hub;
pub mod meter;
pub mod metrics;
pub mod model_directory;
pub mod nearest;
pub mod npy;
mod option_values;
pub mod output;
pub mod predict;
pub mod presets;
pub mod rank;
pub mod report;
pub mod resume;
pub mod search;
pub mod settings;
pub mod similarity;
pub mod tasks;
pub mod train;
pub mod truncated;
pub mod vectors;
