//! Pretraining BERT: from text files to a model directory.
//!
//! In the order of the data: [`corpus`] → [`vocabulary`] → [`store`] (tokenized, on disk) → [`examples`] with [`masking`] →
//! [`stream`] → [`batch`] → [`objective`]; [`prepare`] and [`train`] put them together, [`settings`] holds what the command
//! line ([`args`]) asked for, [`sample`] is the corpus that is built in. [`report`] shows the result.

// Nothing that a user feeds us may panic; there are no exceptions.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod batch;
pub mod corpus;
pub mod examples;
pub mod masking;
pub mod objective;
pub mod prepare;
pub mod report;
pub mod sample;
pub mod settings;
pub mod store;
pub mod stream;
pub mod train;
pub mod vocabulary;
