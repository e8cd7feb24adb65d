//! Fine-tuning BERT: from a model directory and a labeled file to a model that answers.
//!
//! [`data`] reads files, [`tasks`] turn their rows into inputs, losses and answers, [`features`] are what the heads read,
//! [`metrics`] count how good the answers are; [`train`] learns, [`predict`] answers, [`vectors`] writes embeddings, [`report`]
//! shows a run. [`description`] is what a model directory says of its head, [`args`] with its [`presets`] and [`settings`]
//! the command line, [`output`] what it prints; [`demo`] is the run without any option.

// Nothing that a user feeds us may panic; there are no exceptions.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod data;
pub mod demo;
pub mod description;
pub mod features;
pub mod metrics;
mod option_values;
pub mod output;
pub mod predict;
pub mod presets;
pub mod report;
pub mod settings;
pub mod tasks;
pub mod train;
pub mod vectors;
