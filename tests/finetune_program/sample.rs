//! `bert-finetune` without a training file, as the README runs it.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::program::{json, object, run, success, text};
use crate::workshop;

/// Runs the program in a directory. Returns the accuracies from the pretrained model and from random weights.
fn accuracies(line: &str, at: &Path) -> (f64, f64) {
    let output = run(line, at);
    let stdout = success(&output);
    let accuracy = |start: &str| -> f64 {
        let line = stdout.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{stdout}"));
        line.split_whitespace().next_back().unwrap().parse().unwrap()
    };
    assert_eq!(stdout.lines().filter(|line| line.contains('→')).count(), 2, "{stdout}");
    (accuracy("held-out accuracy from the pretrained model"), accuracy("held-out accuracy from random weights"))
}

#[test]
fn an_epoch_on_the_sample_from_the_model_that_pretraining_left() {
    let directory = workshop();
    let at = directory.path();
    fs::create_dir(at.join("runs")).unwrap();
    fs::rename(at.join("model"), at.join("runs/pretrain")).unwrap();
    let (pretrained, random) = accuracies("--epochs 1", at);
    assert!((0.0..=1.0).contains(&pretrained) && (0.0..=1.0).contains(&random));
    let settings = &object(at.join("runs/finetune/run.json"))["settings"];
    assert_eq!((&settings["batch_size"], &settings["learning_rate"]), (&16.into(), &3e-4.into()));
    // The sample's own directory is overwritten, and the output is a single object.
    let summary = json("--epochs 1 --json --quiet", at);
    assert!(summary["eval"]["accuracy"].is_f64() && summary["random_weights"]["accuracy"].is_f64(), "{summary}");
}

#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn without_arguments_a_model_is_pretrained_first_and_is_worth_it() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let (pretrained, random) = accuracies("", at);
    assert!(pretrained > random + 0.1, "{pretrained} and {random}");
    assert!(at.join("runs/pretrain/model.safetensors").exists());
    let again = run("", at);
    success(&again);
    assert!(!text(&again.stderr).contains("pretraining one"), "the model is there already");
}
