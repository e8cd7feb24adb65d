//! Full disks, closed pipes, and the memory usage of long runs.

use std::fs;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Child;

use bert_train::Checkpoints;
use serde_json::Value;

use crate::pretraining::{corpus, short};
use crate::program::{command, failure, run_with_file_limit, spawn, succeed, text};
use crate::{assert_same_run, signal, wait_for_steps};

#[test]
fn a_full_disk_is_said_and_costs_nothing() {
    let directory = corpus();
    let at = directory.path();
    let mut child = spawn(&short("run", 30, "--save-every 2"), at);
    wait_for_steps(&mut child, &at.join("run"), 4);
    signal(&child, "TERM");
    child.wait().unwrap();
    let before = Checkpoints::open(at.join("run"), 2).unwrap().newest().unwrap().unwrap().step;
    let size = |name: &str| {
        let newest = at.join(format!("run/checkpoints/step-{before:08}"));
        fs::metadata(newest.join(name)).unwrap().len() / 1024
    };
    let resume = short("run", 30, "--save-every 2 --resume");
    // One limit is too small for the weights, the other one only for the optimizer's moments.
    for (limit, file) in [
        (size("model.safetensors") - 8, "model.safetensors"),
        (size("optimizer.safetensors") - 8, "optimizer.safetensors"),
    ] {
        let message = failure(&run_with_file_limit(limit, &resume, at), 1);
        assert!(message.contains(file) && message.contains("cannot write: File too large"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        let kept = Checkpoints::open(at.join("run"), 2).unwrap().newest().unwrap().unwrap();
        assert_eq!((kept.step, kept.warnings.len()), (before, 0));
    }
    succeed(&resume, at);
    succeed(&short("whole", 30, "--save-every 2"), at);
    assert_same_run(&at.join("run"), &at.join("whole"));
}

#[test]
fn a_full_disk_stops_a_run_that_can_no_longer_tell_what_it_does() {
    let directory = corpus();
    let at = directory.path();
    // Room for everything that is written before the first step, and for the metrics of a few hundred steps.
    let endless = short("run", 100_000, "--save-every 0");
    let message = failure(&run_with_file_limit(64, &endless, at), 1);
    assert!(message.contains("metrics.jsonl: cannot write: File too large"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let told = losses_until_cut(&at.join("run"));
    assert!(told > 100, "{told} steps");
}

/// The number of complete lines in a run's metrics.
fn losses_until_cut(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count()
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 2, ""), at);
    let ask = "fill-mask --model run 'a [MASK] .' --device flex --quiet";
    let to = |path: &str| {
        let file = fs::File::options().write(true).open(path).unwrap();
        command(ask, at).stdout(file).output().unwrap()
    };
    let message = failure(&to("/dev/full"), 1);
    assert_eq!(message, "error: standard output: cannot write: No space left on device\n");
    // `… | head` closes its end of the pipe: the program must end quietly and without failure.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(ask, at).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

/// The resident memory of a process in KiB, as reported by Linux: the minimum of several samples, since writing a
/// checkpoint takes some memory for a moment.
#[cfg(target_os = "linux")]
fn resident(child: &Child) -> u64 {
    let look = || -> u64 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (0..10).map(|_| look()).min().unwrap()
}

/// A leak grows in every stretch of 2,000 steps. What the allocator takes when two threads first reach their maximum at
/// the same time, it takes in one stretch. So at least one of the first three stretches must be flat.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn two_thousand_steps_more_take_no_more_memory() {
    let directory = corpus();
    let at = directory.path();
    let mut child = spawn(&short("run", 100_000, "--save-every 100"), at);
    // Skip the first checkpoints and the first pass over this small corpus, which allocate memory of their own.
    wait_for_steps(&mut child, &at.join("run"), 400);
    let mut seen = vec![resident(&child)];
    let flat = |seen: &[u64]| seen.windows(2).any(|pair| pair[1] as f64 <= pair[0] as f64 * 1.05);
    while seen.len() < 4 && !flat(&seen) {
        wait_for_steps(&mut child, &at.join("run"), 400 + 2000 * seen.len());
        seen.push(resident(&child));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    println!("KiB after 400 steps and every 2,000 more: {seen:?}");
    assert!(flat(&seen), "KiB after 400 steps and every 2,000 more: {seen:?}");
}
