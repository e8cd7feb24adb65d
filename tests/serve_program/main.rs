//! Promise: `bert-serve` answers whatever its models' heads support, for many clients at once, reports what is wrong
//! with any other request, and shuts down without losing a request.

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
