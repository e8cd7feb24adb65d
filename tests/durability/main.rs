//! Promise: nothing is lost. A checkpoint is complete or absent, a killed run resumes bit for bit, a full disk or
//! non-finite numbers stop a run without damage, and long runs do not leak memory.
#![cfg(unix)]

mod disk;
mod kills;
#[path = "../support/pretraining.rs"]
mod pretraining;
#[path = "../support/program.rs"]
mod program;
mod resume;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use pretraining::weights;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-pretrain");

/// The step and the losses of every line of a run's metrics that has losses.
fn losses(run: &Path) -> Vec<(Value, Value, Value)> {
    let records = program::lines(run.join("metrics.jsonl"));
    records.iter().map(|record| (record["step"].clone(), record["loss"].clone(), record["eval"].clone())).collect()
}

/// Asserts that two runs wrote the same losses, evaluations and final weights, bit for bit.
fn assert_same_run(a: &Path, b: &Path) {
    assert_eq!(losses(a), losses(b));
    assert!(weights(a) == weights(b), "the final weights differ");
}

/// Waits until the run has taken `steps` steps.
fn wait_for_steps(child: &mut Child, run: &Path, steps: usize) {
    let metrics = run.join("metrics.jsonl");
    while fs::read_to_string(&metrics).unwrap_or_default().lines().count() < steps {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
}
