//! Groups the requests of many clients into batches, and routes the outputs back to each request.
//!
//! A [`Batcher`] is a pipeline with its [`Queue`]; the [`Scheduler`] runs the batches of all batchers.

mod batcher;
mod queue;
mod scheduler;

pub use batcher::{BatchLimits, Batcher, Refused, Ticket};
pub use queue::{Item, Queue};
pub use scheduler::{Batch, Scheduler, Source, Taken};
