//! A signal to any rank, or to mpirun, saves after the same step on all.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::pretraining::{corpus, short};
use crate::program::{succeed as alone, text};
use crate::{assert_same_run, has_mpirun, on_ranks, succeed_on};

/// Waits until a run has logged `steps` steps.
pub fn wait_for_steps(run: &Path, steps: usize) {
    let started = Instant::now();
    while fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count() < steps {
        assert!(started.elapsed() < Duration::from_secs(120), "{}: no steps", run.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that run the program with this output directory, in the order in which they were started, without
/// mpirun.
pub fn ranks_of(run: &Path) -> Vec<u32> {
    let directory = run.parent().unwrap().canonicalize().unwrap();
    let name = run.file_name().unwrap().as_encoded_bytes();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = arguments.split(|&byte| byte == 0).collect();
        let is_here = fs::read_link(process.path().join("cwd")).is_ok_and(|at| at == directory);
        let is_program = arguments.first().is_some_and(|program| program.ends_with(b"bert-pretrain"));
        // A killed process whose parent has not noticed yet.
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        if is_here && is_program && arguments.contains(&name) && !status.contains("State:\tZ") {
            found.push(id);
        }
    }
    found.sort_unstable();
    found
}

pub fn signal(process: u32, name: &str) {
    Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap();
}

#[test]
fn a_signal_to_one_rank_or_to_mpirun_saves_on_all_and_the_run_resumes() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 0 --accumulate 3";
    alone(&short("whole", 60, save), at);
    // Open MPI's mpirun forwards USR1 and goes on; after TERM it kills its ranks within a second or two.
    for (name, to_mpirun, code) in [("TERM", false, 143), ("INT", false, 130), ("USR1", true, 138)] {
        let run = at.join(name);
        let mut command = on_ranks(3, &short(name, 60, save), at);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_steps(&run, 3);
        signal(if to_mpirun { child.id() } else { ranks_of(&run)[2] }, name);
        let output = child.wait_with_output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {message}");
        assert!(message.matches("stopping after this step").count() == 1, "{message}");
        assert!(message.matches("continue with --resume").count() == 1, "{message}");
        assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 1, "{name}");
        succeed_on(2, &format!("train --resume -o {name} --quiet --json"), at);
        assert_same_run(&at.join("whole"), &run);
    }
}

/// What a scheduler does that gives up on a job: the newest checkpoint counts.
#[test]
fn a_run_whose_mpirun_is_terminated_resumes_from_its_newest_checkpoint() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 5 --accumulate 2";
    alone(&short("whole", 60, save), at);
    let mut child =
        on_ranks(2, &short("cut", 60, save), at).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_steps(&at.join("cut"), 12);
    signal(child.id(), "TERM");
    assert!(!child.wait().unwrap().success());
    let started = Instant::now();
    while !ranks_of(&at.join("cut")).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "ranks are left");
        std::thread::sleep(Duration::from_millis(50));
    }
    alone("train --resume -o cut --quiet --json", at);
    assert_same_run(&at.join("whole"), &at.join("cut"));
}
