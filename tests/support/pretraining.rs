//! Short runs of `bert-pretrain` on a small corpus.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use bert_pretrain::sample;
use tempfile::TempDir;

use super::program;

/// A directory with a corpus.
pub fn corpus() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("corpus.txt"), sample::corpus(120, 7)).unwrap();
    directory
}

/// The command for a run of some short steps into `output`, with dropout.
pub fn short(output: &str, steps: usize, more: &str) -> String {
    // Options without effect are refused.
    let vocabulary = if more.contains("--tokenizer") || more.contains("--init") { "" } else { "--vocab-size 400" };
    let share = if more.contains("--eval-corpus") { "" } else { "--eval-share 0.1" };
    format!(
        "train --corpus corpus.txt {vocabulary} --max-seq-len 32 --batch-size 4 {share} \
         --device flex --quiet --json -o '{output}' --steps {steps} {more}"
    )
}

/// The bytes of a run's final weights.
pub fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model.safetensors")).unwrap()
}

/// A number of every step that a run has logged.
pub fn logged(run: &Path, name: &str) -> Vec<f64> {
    program::lines(run.join("metrics.jsonl")).iter().filter_map(|record| record[name].as_f64()).collect()
}
