//! The command-line layer shared by the three programs. Neither the model nor training depends on it.
//!
//! In the order of a run: [`args`] defines the common options and [`given`] rejects those without effect; [`hub`]
//! resolves model names to directories; [`program`] selects the device; [`lines`], [`input`] and [`stream`] read texts;
//! [`answers`] and [`program`] print results and errors and set the exit code. [`resume`] determines which settings the
//! command line of a resumed run asks for. [`allocator`] reuses the memory of one training step for the next.

#![warn(missing_docs)]
// Invalid user input must never panic.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod allocator;
pub mod answers;
pub mod args;
mod binary;
pub mod given;
pub mod hub;
pub mod input;
pub mod lines;
pub mod program;
pub mod resume;
pub mod stream;
pub mod warning;
