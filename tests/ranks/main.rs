//! Promise: a run on several ranks is the run in one process, bit for bit, for every number of ranks; what fails on one
//! rank ends all of them, with a message that names it; and whatever ends a run, it can be resumed on any number of
//! ranks.
//!
//! Needs `mpirun` of the MPI library that the program was built with. Without it, each test says so and passes.
#![cfg(unix)]

mod failures;
mod launches;
#[path = "../support/mpirun.rs"]
mod mpirun;
#[path = "../support/pretraining.rs"]
mod pretraining;
#[path = "../support/program.rs"]
mod program;
mod same_bits;
mod signals;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use mpirun::{has_mpirun, mpirun, on_ranks, succeed_on};
use pretraining::weights;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-pretrain");

/// The command that runs the program on several ranks, with an environment variable for the last one.
fn with_last(ranks: usize, line: &str, (name, value): (&str, &str), directory: &Path) -> Command {
    let mut command = mpirun(directory);
    command.args(["-n", &(ranks - 1).to_string(), PROGRAM]).args(program::args(line));
    command.args([":", "-n", "1", "-x", &format!("{name}={value}"), PROGRAM]).args(program::args(line));
    command
}

/// Runs what should fail, within some seconds; gives its output and the lines of stderr that are the program's.
fn fail(mut command: Command, within: u64) -> (Output, Vec<String>) {
    let started = Instant::now();
    let output = command.output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(within), "hung");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    let lines = text.lines().filter(|line| line.starts_with("error: ")).map(str::to_string).collect();
    (output, lines)
}

/// Asserts that two runs wrote the same losses, evaluations and final weights, bit for bit.
fn assert_same_run(a: &Path, b: &Path) {
    let numbers = |run: &Path| -> Vec<_> {
        let records = program::lines(run.join("metrics.jsonl"));
        let names = ["step", "loss", "mlm_loss", "nsp_loss", "grad_norm", "lr", "eval"];
        records.into_iter().map(|record| names.map(|name| record[name].clone())).collect()
    };
    assert_eq!(numbers(a), numbers(b), "{}", b.display());
    assert!(weights(a) == weights(b), "{}: the final weights differ", b.display());
}
