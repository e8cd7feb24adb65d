//! What both programs share at their edges; neither the model nor training depends on it.
//!
//! In the order of a run: [`args`] defines the common options, [`program`] selects the device,
//! [`lines`] and [`input`] read texts, and [`program`] prints results and errors and sets the exit
//! code. [`allocator`] keeps one step's memory for the next.

#![warn(missing_docs)]
// Invalid user input must never panic.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod allocator;
pub mod args;
pub mod input;
pub mod lines;
pub mod program;
