//! What fails on one rank ends all ranks, soon, with a message that names it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bert_train::Checkpoints;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::pretraining::{corpus, short};
use crate::program::{succeed as alone, text};
use crate::signals::{ranks_of, signal, wait_for_steps};
use crate::{assert_same_run, fail, has_mpirun, on_ranks, succeed_on, with_last};

/// The processes of a run, by its output directory.
fn assert_nobody_is_left(at: &Path) {
    let started = Instant::now();
    while !ranks_of(at).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(10), "left: {:?}", ranks_of(at));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_panic_or_an_error_of_one_rank_ends_all_and_is_told_once() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let line = |name: &str| short(name, 8, "--accumulate 2 --eval-every 2 --save-every 2");
    for place in ["2:step:panic", "1:evaluation:panic"] {
        let name = place.replace(':', "-");
        let (output, errors) = fail(with_last(2, &line(&name), ("BERT_FAIL_POINT", place), at), 60);
        assert_eq!(output.status.code(), Some(101), "{errors:?}");
        assert!(
            errors.len() == 1 && errors[0].starts_with("error: rank 1 on ") && errors[0].contains("panicked"),
            "{errors:?}"
        );
        assert_nobody_is_left(&at.join(&name));
    }
    // A rank that cannot store its copy of the data.
    let (output, errors) = fail(with_last(2, &line("temporary"), ("TMPDIR", "/nowhere"), at), 60);
    assert_eq!(output.status.code(), Some(1), "{errors:?}");
    assert!(
        errors.len() == 1 && errors[0].starts_with("error: rank 1 on ") && errors[0].contains("/nowhere"),
        "{errors:?}"
    );
    assert_nobody_is_left(&at.join("temporary"));
    // All ranks have the same error, and one tells it.
    let (output, errors) = fail(on_ranks(2, &format!("{} --lr 1e30 --warmup 0 --clip 0", line("diverges")), at), 60);
    assert_eq!(output.status.code(), Some(1), "{errors:?}");
    assert!(errors.len() == 1 && errors[0].contains("training stopped"), "{errors:?}");
    assert_nobody_is_left(&at.join("diverges"));
}

/// The first rank dies while it saves; the run goes on from the checkpoint before, on another number of ranks.
#[test]
fn a_run_whose_first_rank_dies_while_saving_is_resumed_on_other_ranks() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let save = "--accumulate 4 --save-every 2 --keep 2";
    alone(&short("whole", 8, save), at);
    for (place, ranks) in [("2:weights", 2), ("2:state", 3), ("2:renamed", 4)] {
        let name = place.replace(':', "-");
        let mut command = on_ranks(2, &short(&name, 8, save), at);
        // Only the first rank reaches these places.
        command.env("BERT_FAIL_POINT", place);
        fail(command, 60);
        assert_nobody_is_left(&at.join(&name));
        let found = Checkpoints::open(at.join(&name), 2).unwrap().newest().unwrap().unwrap();
        assert_eq!((found.step, found.warnings), (if place == "2:renamed" { 4 } else { 2 }, vec![]), "{place}");
        succeed_on(ranks, &format!("train --resume -o {name} --quiet --json"), at);
        assert_same_run(&at.join("whole"), &at.join(&name));
    }
}

/// A stopped process stands for a machine that hangs.
#[test]
fn a_rank_that_hangs_is_named_and_then_given_up() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let mut command = on_ranks(2, &short("run", 100_000, "--accumulate 2"), at);
    command.env("BERT_RANKS_PATIENCE", "2,4").stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_steps(&at.join("run"), 2);
    let stopped = ranks_of(&at.join("run"))[1];
    signal(stopped, "STOP");
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    signal(stopped, "KILL");
    assert!(asked.elapsed() < Duration::from_secs(30), "hung");
    let message = text(&output.stderr);
    assert!(!output.status.success());
    let missing = ["warning: rank 0 on ", ": no message for ", " s from rank 1 on "];
    assert!(message.lines().any(|line| missing.iter().all(|part| line.contains(part))), "{message}");
    assert!(message.contains("giving up"), "{message}");
    assert_nobody_is_left(&at.join("run"));
}

/// Nobody is impatient while the first rank prepares the data.
#[test]
fn a_long_preparation_is_waited_for() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let mut command = on_ranks(2, &short("run", 2, "--accumulate 2"), at);
    command.env("BERT_RANKS_PATIENCE", "1,2").env("BERT_FAIL_POINT", "1:preparation:5000");
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert!(output.status.success() && !message.contains("no message"), "{message}");
}

#[test]
#[ignore = "slow: cargo test --workspace --features mpi -- --include-ignored"]
fn a_run_killed_thirty_times_on_changing_ranks_is_the_run_that_was_not() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 1 --accumulate 4";
    alone(&short("whole", 300, save), at);
    let line = short("killed", 300, &format!("{save} --resume"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut kills = 0;
    for round in 0..30 {
        let mut child = on_ranks(round % 3 + 2, &line, at).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(300..1500)));
        let ranks = ranks_of(&at.join("killed"));
        if child.try_wait().unwrap().is_some() || ranks.is_empty() {
            child.wait().unwrap();
            continue;
        }
        signal(ranks[rng.random_range(0..ranks.len())], "KILL");
        let asked = Instant::now();
        assert!(!child.wait().unwrap().success());
        assert_nobody_is_left(&at.join("killed"));
        assert!(asked.elapsed() < Duration::from_secs(20), "hung");
        kills += 1;
        if at.join("killed/checkpoints").exists() {
            let newest = Checkpoints::open(at.join("killed"), 2).unwrap().newest().unwrap();
            assert!(newest.is_none_or(|found| found.warnings.is_empty()), "a damaged checkpoint");
        }
    }
    println!("{kills} kills");
    assert!(kills >= 10, "only {kills} kills");
    succeed_on(3, &line, at);
    assert_same_run(&at.join("whole"), &at.join("killed"));
}
