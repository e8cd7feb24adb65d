//! What both programs do at their edges, and neither model nor training knows of.
//!
//! In the order of a run: [`args`] are typed, [`program`] picks the device, [`lines`] and [`input`] read texts, [`program`]
//! prints results, errors and exit codes; [`allocator`] keeps the memory of one step for the next.

// Nothing that a user feeds us may panic; there are no exceptions.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod allocator;
pub mod args;
pub mod input;
pub mod lines;
pub mod program;
