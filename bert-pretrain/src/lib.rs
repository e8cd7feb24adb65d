//! Pretraining BERT: from text files to a model directory.
//!
//! In data-flow order: [`corpus`] → [`vocabulary`] → [`store`] (tokenized, on disk), [`split`] → [`examples`] with
//! [`masking`] → [`stream`] → [`batch`] → [`objective`]. [`prepare`], with [`held_out`], [`phases`], [`start`] and
//! [`train`] put these together, and [`shared`] gives them to all ranks; [`mod@evaluate`] runs without training;
//! [`advice`] tells the user what to expect. With a [`budget`] of time, [`budget_plan`] measures the speed and
//! completes the settings by the [`recipe`]. [`args`] is the command line, [`settings`] its validated form, and
//! [`effect`] rejects options that have no effect. [`sample`] is the built-in corpus. [`report`] displays the run.

// Invalid user input must never panic.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod advice;
pub mod args;
pub mod batch;
pub mod budget;
pub mod budget_plan;
pub mod corpus;
pub mod effect;
pub mod evaluate;
pub mod examples;
pub mod held_out;
mod hub;
pub mod masking;
pub mod objective;
pub mod phases;
pub mod prepare;
pub mod recipe;
pub mod report;
pub mod sample;
pub mod settings;
pub mod shared;
pub mod split;
pub mod start;
pub mod store;
pub mod stream;
pub mod train;
pub mod vocabulary;
