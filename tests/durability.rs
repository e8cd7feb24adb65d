//! Promise: nothing is lost. A checkpoint is whole or not there, a run that was killed goes on as if nothing had
//! happened, a full disk and bad numbers stop a run without harm, and long runs do not leak.
#![cfg(unix)]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bert_pretrain::sample;
use bert_train::Checkpoints;
use program::{command, fail, failure, run, run_with_file_limit, spawn, succeed, text};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-pretrain");

/// A directory with a corpus.
fn corpus() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("corpus.txt"), sample::corpus(120, 7)).unwrap();
    directory
}

/// Arguments of a run of `steps` short steps into `output`, with dropout.
fn short<'a>(output: &'a str, steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["train", "--corpus", "corpus.txt", "--vocab-size", "400", "--max-seq-len", "32", "--batch-size", "4"];
    let rest = ["--device", "flex", "--quiet", "--json", "--eval-share", "0.1", "-o", output, "--steps", steps];
    [&usual[..], &rest, more].concat()
}

/// Step and losses of every line of a run's metrics that has them.
fn losses(run: &Path) -> Vec<(Value, Value, Value)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| (record["step"].clone(), record["loss"].clone(), record["eval"].clone())).collect()
}

/// Asserts that two runs wrote the same losses, evaluations and final weights, bit for bit.
fn assert_same_run(a: &Path, b: &Path) {
    assert_eq!(losses(a), losses(b));
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
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

/// What a run of [`short`] that was killed left in its checkpoint directory, by the stage of saving.
fn stage(checkpoints: &Path) -> &'static str {
    let names = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).map_or(vec![], |entries| entries.flatten().map(|entry| entry.path()).collect())
    };
    let staging = names(checkpoints).into_iter().find(|path| path.file_name().unwrap().as_encoded_bytes()[0] == b'.');
    let Some(staging) = staging else { return "between" };
    let has = |name: &str| staging.join(name).exists();
    match () {
        () if has("state.json") => "before the rename",
        () if has("state.json.partial") => "in state.json",
        () if has("optimizer.safetensors") => "before state.json",
        () if has("optimizer.safetensors.partial") => "in the optimizer's means",
        () if has("model.safetensors") => "before the optimizer's means",
        () if has("model.safetensors.partial") => "in the weights",
        () => "before the weights",
    }
}

/// Steps that the metrics of a run tell of.
fn steps_told(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count()
}

/// Kills a run in every stage of saving and at any other moment, goes on after each kill, and compares with a run that
/// nobody touched.
#[test]
fn a_run_killed_a_hundred_times_is_the_run_that_was_not() {
    const KILLS: usize = 100;
    const STAGES: [&str; 5] =
        ["in the weights", "before the optimizer's means", "in the optimizer's means", "in state.json", "-"];
    let directory = corpus();
    let at = directory.path();
    let save = ["--save-every", "1", "--accumulate", "2"];
    let resume = [&save[..], &["--resume"]].concat();
    let (killed, checkpoints) = (at.join("killed"), at.join("killed/checkpoints"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut stages = std::collections::BTreeMap::<&str, usize>::new();
    let mut newest = 0;
    for kill in 0..KILLS {
        let mut child = spawn(&short("killed", "160", &resume), at);
        let told = steps_told(&killed);
        // Some die while they prepare; the others after a step, in the chosen stage of saving if it is seen in time.
        while kill % 10 != 0 && steps_told(&killed) <= told && child.try_wait().unwrap().is_none() {}
        let patience = Duration::from_micros(rng.random_range(0..80_000));
        let started = Instant::now();
        while started.elapsed() < patience && stage(&checkpoints) != STAGES[kill % 5] {}
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !checkpoints.exists() {
            continue;
        }
        *stages.entry(stage(&checkpoints)).or_default() += 1;
        let found = Checkpoints::open(&killed, 2).unwrap().newest().unwrap_or_else(|error| panic!("{kill}: {error}"));
        let step = found.map_or(0, |found| {
            assert!(found.warnings.is_empty(), "kill {kill}: {:?}", found.warnings);
            found.step
        });
        assert!(step >= newest, "kill {kill} lost the checkpoint of step {newest}; that of step {step} is left");
        newest = step;
    }
    println!("{} kills: {stages:?}; step {newest} reached", stages.values().sum::<usize>());
    assert!(stages.values().sum::<usize>() >= KILLS / 2 && stages.len() >= 3, "too few: {stages:?}");
    succeed(&short("killed", "160", &resume), at);
    succeed(&short("whole", "160", &save), at);
    assert_same_run(&at.join("killed"), &at.join("whole"));
}

/// Runs until the program dies at a fail point.
fn die(arguments: &[&str], directory: &Path, fail_point: &str) {
    let output = command(arguments, directory).env("BERT_FAIL_POINT", fail_point).output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{fail_point}: {}", text(&output.stderr));
}

/// Dies at every place at which saving the third checkpoint can be cut short.
#[test]
fn a_run_that_dies_while_it_saves_keeps_the_checkpoint_before() {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no fail points");
        return;
    }
    // The newest checkpoint that is left: until the rename, that of step 4.
    const PLACES: [(&str, u64); 9] = [
        ("staging", 4),
        ("in model.safetensors", 4),
        ("weights", 4),
        ("in optimizer.safetensors", 4),
        ("optimizer", 4),
        ("in state.json", 4),
        ("state", 4),
        ("renamed", 6),
        ("removed", 6),
    ];
    let directory = corpus();
    let at = directory.path();
    let save = ["--save-every", "2", "--keep", "2"];
    succeed(&short("whole", "8", &save), at);
    for (place, left) in PLACES {
        // Old checkpoints are removed from the third on.
        let times = if place == "removed" { 1 } else { 3 };
        die(&short(place, "8", &save), at, &format!("{times}:{place}"));
        let found = Checkpoints::open(at.join(place), 2).unwrap().newest().unwrap().unwrap();
        assert_eq!((found.step, found.warnings), (left, vec![]), "{place}");
        let entries = fs::read_dir(at.join(place).join("checkpoints")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name.as_encoded_bytes()[0] != b'.'), "{place}: not swept: {names:?}");
        succeed(&short(place, "8", &[&save[..], &["--resume"]].concat()), at);
        assert_same_run(&at.join("whole"), &at.join(place));
    }
    // A damaged checkpoint is in the way of the one that takes its place.
    let resume = short("staging", "8", &["--save-every", "2", "--keep", "2", "--resume"]);
    let checkpoints = at.join("staging/checkpoints");
    fs::write(checkpoints.join("step-00000008/model.safetensors"), "").unwrap();
    die(&resume, at, "1:replaced");
    assert!(!checkpoints.join("step-00000008").exists());
    let found = Checkpoints::open(at.join("staging"), 2).unwrap().newest().unwrap().unwrap();
    assert_eq!((found.step, found.warnings.len()), (6, 1));
    // What is kept is what is whole, even if it is one and the damaged one is of a later step.
    die(&short("staging", "8", &["--save-every", "1", "--keep", "1", "--resume"]), at, "2:removed");
    let found = Checkpoints::open(at.join("staging"), 1).unwrap().newest().unwrap().unwrap();
    assert_eq!((found.step, found.warnings.len()), (7, 0));
    succeed(&resume, at);
    assert_same_run(&at.join("whole"), &at.join("staging"));
}

#[test]
fn signals_save_and_end_with_their_code_and_a_resumed_run_is_the_same() {
    let directory = corpus();
    let at = directory.path();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = spawn(&short(name, "40", &["--save-every", "0"]), at);
        wait_for_steps(&mut child, &at.join(name), 3);
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let saved = fs::read_dir(at.join(name).join("checkpoints")).unwrap().count();
        assert_eq!(saved, 1, "one checkpoint, written at the end of the step");
        assert!(!at.join(name).join("model.safetensors").exists(), "a model that is not finished");
        succeed(&short(name, "40", &["--save-every", "0", "--resume"]), at);
    }
    assert_same_run(&at.join("INT"), &at.join("TERM"));
}

#[test]
fn a_second_signal_leaves_at_once() {
    let directory = corpus();
    let at = directory.path();
    // One step of these takes far longer than the test waits.
    let long = ["--accumulate", "4000", "--save-every", "0"];
    let mut child = spawn(&short("run", "9", &long), at);
    while !at.join("run/run.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Until the first step begins there is nothing to be saved, and the first signal would do.
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the end of the step");
    signal(&child, "INT");
    let asked = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_full_disk_is_said_and_costs_nothing() {
    let directory = corpus();
    let at = directory.path();
    let save = ["--save-every", "2"];
    let mut child = spawn(&short("run", "30", &save), at);
    wait_for_steps(&mut child, &at.join("run"), 4);
    signal(&child, "TERM");
    child.wait().unwrap();
    let before = Checkpoints::open(at.join("run"), 2).unwrap().newest().unwrap().unwrap().step;
    let size = |name: &str| {
        let newest = at.join(format!("run/checkpoints/step-{before:08}"));
        fs::metadata(newest.join(name)).unwrap().len() / 1024
    };
    let resume = short("run", "30", &["--save-every", "2", "--resume"]);
    // Too small for the weights, and for the optimizer's means alone.
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
    succeed(&short("whole", "30", &save), at);
    assert_same_run(&at.join("run"), &at.join("whole"));
}

#[test]
fn a_full_disk_stops_a_run_that_can_no_longer_tell_what_it_does() {
    let directory = corpus();
    let at = directory.path();
    // Room for everything that is written before the steps, and for the metrics of some hundred of them.
    let endless = short("run", "100000", &["--save-every", "0"]);
    let message = failure(&run_with_file_limit(64, &endless, at), 1);
    assert!(message.contains("metrics.jsonl: cannot write: File too large"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let told = losses_until_cut(&at.join("run"));
    assert!(told > 100, "{told} steps");
}

/// The number of whole lines of a run's metrics.
fn losses_until_cut(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count()
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", "2", &[]), at);
    let ask = ["fill-mask", "--model", "run", "a [MASK] .", "--device", "flex", "--quiet"];
    let to = |path: &str| {
        let file = fs::File::options().write(true).open(path).unwrap();
        program::command(&ask, at).stdout(file).output().unwrap()
    };
    let message = failure(&to("/dev/full"), 1);
    assert_eq!(message, "error: standard output: cannot write: No space left on device\n");
    // As `… | head` closes its end: quiet, and no failure.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program::command(&ask, at).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn two_runs_cannot_ruin_each_other() {
    let directory = corpus();
    let at = directory.path();
    let mut child = spawn(&short("run", "100000", &[]), at);
    wait_for_steps(&mut child, &at.join("run"), 2);
    for how in ["--resume", "--overwrite"] {
        let message = fail(&short("run", "100000", &[how]), at, 1);
        assert!(message.contains("another run at work in this directory"), "{message}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(&short("run", "4", &["--overwrite"]), at);
}

/// What a process holds in memory now, in KiB, as Linux tells it: the least of several looks, since a checkpoint that is
/// being written takes some for a moment.
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

/// A leak grows in every stretch of 2,000 steps; what the allocator takes when two threads first need their largest at
/// once, it takes in one. So there must be a flat stretch among the first three.
#[cfg(target_os = "linux")]
#[test]
fn two_thousand_steps_more_take_no_more_memory() {
    let directory = corpus();
    let at = directory.path();
    let mut child = spawn(&short("run", "100000", &["--save-every", "100"]), at);
    // Behind it: the first checkpoints and the first pass over this small corpus, which take memory of their own.
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

#[test]
fn a_resumed_run_is_bit_for_bit_the_uninterrupted_one() {
    let directory = corpus();
    let at = directory.path();
    let save = ["--save-every", "2", "--keep", "9", "--accumulate", "2"];
    succeed(&short("whole", "6", &save), at);
    succeed(&short("cut", "6", &save), at);
    // As if the run had been killed after step 4, in the middle of writing its metrics.
    fs::remove_dir_all(at.join("cut/checkpoints/step-00000006")).unwrap();
    fs::remove_file(at.join("cut/model.safetensors")).unwrap();
    succeed(&short("cut", "6", &[&save[..], &["--resume"]].concat()), at);
    assert_same_run(&at.join("whole"), &at.join("cut"));
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over() {
    let directory = corpus();
    let at = directory.path();
    let save = ["--save-every", "2", "--keep", "3"];
    let newest = at.join("run/checkpoints/step-00000006");
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let truncate = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    succeed(&short("run", "6", &save), at);
    let before = fs::read(at.join("run/model.safetensors")).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("model.safetensors", flip),
        ("optimizer.safetensors", truncate),
        ("state.json", truncate),
        ("state.json", Vec::clear),
    ];
    for (name, damage) in damages {
        let mut bytes = fs::read(newest.join(name)).unwrap();
        damage(&mut bytes);
        fs::write(newest.join(name), bytes).unwrap();
        let output = run(&short("run", "6", &[&save[..], &["--resume"]].concat()), at);
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert!(message.contains("damaged checkpoint passed over") && message.contains(name), "{message}");
        assert!(fs::read(at.join("run/model.safetensors")).unwrap() == before, "{name}");
    }
}

#[test]
fn a_run_is_not_resumed_with_other_settings_or_another_corpus() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", "4", &["--save-every", "2"]), at);
    let message = fail(&short("run", "4", &["--resume", "--lr", "0.5"]), at, 1);
    assert!(
        message.contains("learning_rate = 0.5 does not fit the run to be resumed, learning_rate = 0.0001"),
        "{message}"
    );
    fs::write(at.join("corpus.txt"), sample::corpus(120, 8)).unwrap();
    let message = fail(&short("run", "4", &["--resume"]), at, 1);
    assert!(message.contains("data_sha256") && message.contains("does not fit the run to be resumed"), "{message}");
}

#[test]
fn numbers_that_go_bad_stop_the_run_and_name_the_step() {
    let directory = corpus();
    let at = directory.path();
    let message = fail(&short("bad", "6", &["--lr", "1e38", "--clip", "0", "--save-every", "1"]), at, 1);
    assert!(message.contains("step ") && (message.contains("NaN") || message.contains("inf")), "{message}");
    assert!(!at.join("bad/model.safetensors").exists(), "a model of bad numbers was written");
}

#[test]
fn a_second_phase_has_longer_sequences_and_survives_an_interruption_between() {
    let directory = corpus();
    let at = directory.path();
    let phases = ["--phase2-steps", "3", "--phase2-seq-len", "64", "--save-every", "3"];
    succeed(&short("whole", "6", &phases), at);
    // As if it had been killed at the change of phases: the checkpoint of step 3 is the newest.
    succeed(&short("halves", "6", &phases), at);
    let checkpoints = at.join("halves/checkpoints");
    if checkpoints.join("step-00000006").exists() {
        fs::remove_dir_all(checkpoints.join("step-00000006")).unwrap();
    }
    assert!(checkpoints.join("step-00000003").exists());
    succeed(&short("halves", "6", &[&phases[..], &["--resume"]].concat()), at);
    assert_same_run(&at.join("whole"), &at.join("halves"));
    // With sequences as short as before, the first phase is the same and the second is not.
    succeed(&short("even", "6", &["--phase2-steps", "3", "--phase2-seq-len", "32"]), at);
    let (long, even) = (losses(&at.join("whole")), losses(&at.join("even")));
    assert!(long[..3] == even[..3] && long[3..6].iter().zip(&even[3..6]).all(|(long, even)| long != even));
}
