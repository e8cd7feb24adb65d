//! Promise: `bert-serve` answers what its models' heads can answer, to many clients at once, tells everybody else what is
//! wrong, and ends without losing a request.

mod batching;
mod command;
mod endings;
mod errors;
mod heads;
mod hostile;
mod http;
mod models;
mod page;
mod routes;
mod server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-serve");
