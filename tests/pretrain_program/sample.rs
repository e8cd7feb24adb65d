//! `bert-pretrain` without a corpus, as the README runs it.

use std::path::Path;

use tempfile::TempDir;

use crate::program::{object, run, success, text};

/// Runs the program in a directory; gives the number of questions that it answered, and of the right answers.
fn answers(line: &str, at: &Path) -> (usize, usize) {
    let output = run(line, at);
    let stdout = success(&output);
    assert!(stdout.lines().all(|line| line.contains("[MASK]") && line.contains('→')), "{stdout}");
    let message = text(&output.stderr);
    assert!(message.contains("eval mlm_loss") && message.contains("runs/pretrain"), "{message}");
    (stdout.lines().count(), stdout.lines().filter(|line| line.starts_with("right ")).count())
}

#[test]
fn a_few_steps_on_the_sample() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let (asked, _) = answers("--steps 4", at);
    assert_eq!(asked, bert_pretrain::sample::questions().len());
    let described = object(at.join("runs/pretrain/run.json"));
    assert_eq!((&described["settings"]["warmup"], &described["settings"]["batch_size"]), (&0.1.into(), &16.into()));
    // Its own directory is written anew, and what is given counts.
    answers("--steps 4 --warmup 0.01", at);
    assert_eq!(object(at.join("runs/pretrain/run.json"))["settings"]["warmup"], 0.01);
}

#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn without_arguments_masks_are_filled_rightly() {
    let directory = TempDir::new().unwrap();
    let (asked, right) = answers("", directory.path());
    assert!(right * 4 >= asked * 3, "{right} of {asked} answers are right");
}
