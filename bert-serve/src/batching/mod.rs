//! From requests of many clients to batches, and from their outputs back to each request.
//!
//! [`Batcher`] is a pipeline with its [`Queue`]; the [`Scheduler`] runs the batches of all of them.

mod batcher;
mod queue;
mod scheduler;

pub use batcher::{BatchLimits, Batcher, Refused, Ticket};
pub use queue::{Item, Queue};
pub use scheduler::{Batch, Scheduler, Source, Taken};
