//! Promise: `bert-pretrain` does what its help says, from text files to a model directory, and its errors name the
//! cause.

mod budget;
mod commands;
mod hub;
#[path = "../support/hub_server.rs"]
mod hub_server;
mod models;
mod options;
#[path = "../support/pretraining.rs"]
mod pretraining;
#[path = "../support/program.rs"]
mod program;
mod sample;
mod training;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-pretrain");
