//! What cannot work is refused before anything is written, with one message and exit code 2.

use std::path::Path;
use std::process::Command;

use crate::pretraining::{corpus, short};
use crate::program::{args, command, failure, object, spawn};
use crate::{PROGRAM, fail, has_mpirun, mpirun, on_ranks, succeed_on};

/// Asserts that a command is refused with one message that contains `expected`.
fn refused(command: Command, code: i32, expected: &str, at: &Path) {
    let (output, errors) = fail(command, 60);
    assert_eq!(output.status.code(), Some(code), "{errors:?}");
    assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:?}");
    assert!(!at.join("run").exists(), "{expected}: something was written");
}

#[test]
fn what_ranks_cannot_do_is_refused_once_before_anything_is_written() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let line = short("run", 4, "");
    let ranks = |more: &str| on_ranks(2, &format!("{line} {more}"), at);
    refused(ranks("--lr x"), 2, "invalid value 'x' for '--lr", at);
    refused(ranks("--warmup=-1"), 2, "--warmup", at);
    refused(ranks("--budget 1h"), 2, "--", at);
    refused(on_ranks(2, &line.replace("corpus.txt", "nothing.txt"), at), 1, "nothing.txt", at);
    refused(on_ranks(2, "fill-mask --model run 'a [MASK]'", at), 2, "only `train` runs in several", at);
    // Four examples in a step.
    refused(on_ranks(5, &line, at), 2, "5 ranks cannot share a step of 1 micro-batch(es) of 4 example(s)", at);
    // Another setting on one rank.
    let mut differing = mpirun(at);
    differing.args(["-n", "1", PROGRAM]).args(args(&line)).args([":", "-n", "1", PROGRAM]).args(args(&line));
    differing.args(["--lr", "0.5"]);
    refused(differing, 2, "rank 1 on", at);
    // A launcher that starts processes which do not find each other.
    let mut alone = command(&line, at);
    alone.env("SLURM_NTASKS", "2");
    refused(alone, 2, "this job has 2 tasks, but the process is alone", at);
}

#[test]
fn more_ranks_than_parts_split_further_and_the_run_remembers() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let line = short("run", 3, "--save-every 2 --keep 2").replace(" --quiet", "");
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores >= 4 {
        println!("skipped: this machine has a core for each of the four examples of a step");
        return;
    }
    let output = on_ranks(4, &line, at).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    assert!(message.contains("4 ranks share a step of 1 micro-batch(es): each is split into 4 parts"), "{message}");
    assert_eq!(object(at.join("run/run.json"))["settings"]["parts"], 4);
    // In one process, the parts are computed in turn.
    let bytes = std::fs::read(at.join("run/model.safetensors")).unwrap();
    std::fs::remove_file(at.join("run/model.safetensors")).unwrap();
    crate::program::succeed("train --resume -o run --quiet --json", at);
    assert!(std::fs::read(at.join("run/model.safetensors")).unwrap() == bytes);
}

#[test]
fn a_second_run_in_the_same_directory_is_refused() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let mut first = spawn(&short("run", 100_000, ""), at);
    crate::signals::wait_for_steps(&at.join("run"), 2);
    let (output, errors) = fail(on_ranks(2, "train --resume -o run --json --quiet", at), 60);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.len() == 1 && errors[0].contains("another run in progress"), "{errors:?}");
    first.kill().unwrap();
    first.wait().unwrap();
    succeed_on(2, &short("run", 4, "--overwrite"), at);
    // A finished run has nothing to resume on any number of ranks.
    succeed_on(2, "train --resume -o run --json --quiet", at);
    let output = on_ranks(2, &short("run", 4, ""), at).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.matches("found a directory that is not empty").count() == 1, "{message}");
    failure(&crate::program::run(&short("run", 4, ""), at), 1);
}
