//! The `bert-serve` program: parses the command line, serves, and turns an error into one line and an exit code.

#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]

use std::process::ExitCode;

use bert_cli::program::exit;
use bert_serve::args::Args;
use bert_serve::serve;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit(serve::run(&Args::parse()))
}
