//! Fine-tuning BERT: from a model directory and a labelled file to a model that answers.
//!
//! [`data`] reads files, [`tasks`] turn their rows into inputs, losses and answers, [`metrics`] count how good these are;
//! [`train`] learns, [`predict`] answers, [`embed`] gives vectors. [`description`] is what a model directory says of its
//! head, [`sample`] the labelled file that is built in, [`args`] and [`settings`] the command line.

pub mod args;
pub mod data;
pub mod description;
pub mod embed;
pub mod metrics;
pub mod predict;
pub mod sample;
pub mod settings;
pub mod tasks;
pub mod train;
pub mod vectors;
