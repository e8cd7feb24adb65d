//! Kills and signals at arbitrary times.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bert_train::Checkpoints;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::pretraining::{corpus, short};
use crate::program::{command, fail, spawn, succeed, text};
use crate::{assert_same_run, signal, wait_for_steps};

/// The stage of saving at which a run of [`short`] was killed, judging by its checkpoint directory.
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

/// The number of steps recorded in the metrics of a run.
fn steps_told(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count()
}

/// Kills a run in every stage of saving and at other random moments, resumes after each kill, and compares with an
/// undisturbed run.
#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn a_run_killed_a_hundred_times_is_the_run_that_was_not() {
    const KILLS: usize = 100;
    const STAGES: [&str; 5] =
        ["in the weights", "before the optimizer's means", "in the optimizer's means", "in state.json", "-"];
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 1 --accumulate 2";
    let resume = short("killed", 160, &format!("{save} --resume"));
    let (killed, checkpoints) = (at.join("killed"), at.join("killed/checkpoints"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut stages = std::collections::BTreeMap::<&str, usize>::new();
    let mut newest = 0;
    for kill in 0..KILLS {
        let mut child = spawn(&resume, at);
        let told = steps_told(&killed);
        // Some runs are killed during preparation; the others after a step, in the chosen stage of saving if it is
        // observed in time.
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
    succeed(&resume, at);
    succeed(&short("whole", 160, save), at);
    assert_same_run(&at.join("killed"), &at.join("whole"));
}

/// Runs until the program dies at a fail point.
fn die(line: &str, directory: &Path, fail_point: &str) {
    let output = command(line, directory).env("BERT_FAIL_POINT", fail_point).output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{fail_point}: {}", text(&output.stderr));
}

/// Kills the program at every point where saving the third checkpoint can be interrupted.
#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn a_run_that_dies_while_it_saves_keeps_the_checkpoint_before() {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no fail points");
        return;
    }
    // The fail points, and the newest checkpoint that remains: that of step 4 until the rename.
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
    let save = "--save-every 2 --keep 2";
    succeed(&short("whole", 8, save), at);
    for (place, left) in PLACES {
        // Old checkpoints are removed from the third one on.
        let times = if place == "removed" { 1 } else { 3 };
        die(&short(place, 8, save), at, &format!("{times}:{place}"));
        let found = Checkpoints::open(at.join(place), 2).unwrap().newest().unwrap().unwrap();
        assert_eq!((found.step, found.warnings), (left, vec![]), "{place}");
        let entries = fs::read_dir(at.join(place).join("checkpoints")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name.as_encoded_bytes()[0] != b'.'), "{place}: not swept: {names:?}");
        succeed(&short(place, 8, &format!("{save} --resume")), at);
        assert_same_run(&at.join("whole"), &at.join(place));
    }
    // A damaged checkpoint stands where its replacement must be written.
    let resume = short("staging", 8, "--save-every 2 --keep 2 --resume");
    let checkpoints = at.join("staging/checkpoints");
    fs::write(checkpoints.join("step-00000008/model.safetensors"), "").unwrap();
    // Without its model, the run is not finished.
    fs::remove_file(at.join("staging/model.safetensors")).unwrap();
    die(&resume, at, "1:replaced");
    assert!(!checkpoints.join("step-00000008").exists());
    let found = Checkpoints::open(at.join("staging"), 2).unwrap().newest().unwrap().unwrap();
    assert_eq!((found.step, found.warnings.len()), (6, 1));
    // An intact checkpoint is kept, even if only one may be and a damaged one is of a later step.
    die(&short("staging", 8, "--save-every 1 --keep 1 --resume"), at, "2:removed");
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
        let mut child = spawn(&short(name, 40, "--save-every 0"), at);
        wait_for_steps(&mut child, &at.join(name), 3);
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let saved = fs::read_dir(at.join(name).join("checkpoints")).unwrap().count();
        assert_eq!(saved, 1, "one checkpoint, written at the end of the step");
        assert!(!at.join(name).join("model.safetensors").exists(), "a model that is not finished");
        succeed(&short(name, 40, "--save-every 0 --resume"), at);
    }
    assert_same_run(&at.join("INT"), &at.join("TERM"));
}

/// Starts a run with a step far longer than a test waits, and returns once that step has begun.
fn endless_step(at: &Path) -> Child {
    let line = short("run", 9, "--accumulate 4000 --save-every 0");
    let mut child = command(&line, at).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !at.join("run/run.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Before the first step begins there is nothing to save, and the first signal would end the program.
    std::thread::sleep(Duration::from_secs(1));
    child
}

#[test]
fn the_first_signal_says_what_it_does_and_a_later_one_leaves_at_once() {
    let directory = corpus();
    let mut child = endless_step(directory.path());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let asked = Instant::now();
    // `timeout` signals both the process and its group.
    signal(&child, "INT");
    signal(&child, "TERM");
    let line = lines.next().unwrap().unwrap();
    assert_eq!(line, "saving and stopping after this step; interrupt again to quit without saving");
    assert!(asked.elapsed() < Duration::from_secs(2), "said too late");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none(), "a second signal within a second counts as the first");
    signal(&child, "INT");
    let asked = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[test]
fn two_signals_at_once_save_as_one_does() {
    let directory = corpus();
    let at = directory.path();
    let line = short("run", 100_000, "--save-every 0 --accumulate 8");
    let mut child = command(&line, at).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_steps(&mut child, &at.join("run"), 2);
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(fs::read_dir(at.join("run/checkpoints")).unwrap().count(), 1);
    let message = text(&output.stderr);
    assert!(message.contains("continue with --resume -o run"), "{message}");
    // Until the run is finished, it is not a model directory.
    let message = fail("fill-mask --model run 'a [MASK]'", at, 1);
    assert!(message.contains("run: found an unfinished run") && message.contains("train --resume -o run"), "{message}");
}

#[test]
fn two_runs_cannot_ruin_each_other() {
    let directory = corpus();
    let at = directory.path();
    let mut child = spawn(&short("run", 100_000, ""), at);
    wait_for_steps(&mut child, &at.join("run"), 2);
    for how in ["--resume", "--overwrite"] {
        let message = fail(&short("run", 100_000, how), at, 1);
        assert!(message.contains("another run in progress in this directory"), "{message}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(&short("run", 4, "--overwrite"), at);
}
