//! The same bits for every number of ranks.

use std::fs;
use std::path::{Path, PathBuf};

use bert_pretrain::sample;

use crate::pretraining::{corpus, logged, short};
use crate::program::{object, succeed as alone, success};
use crate::{assert_same_run, has_mpirun, on_ranks, succeed_on, with_last};

/// The files of the checkpoints of a run, without the time that it took.
fn checkpoints(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for checkpoint in fs::read_dir(run.join("checkpoints")).unwrap() {
        let path = checkpoint.unwrap().path();
        for name in ["model.safetensors", "optimizer.safetensors"] {
            files.push((path.file_name().unwrap().into(), fs::read(path.join(name)).unwrap()));
        }
        let state = object(path.join("state.json"));
        files.push((path.file_name().unwrap().into(), format!("{} {}", state["step"], state["cursor"]).into()));
    }
    files.sort();
    files
}

#[test]
fn every_number_of_ranks_gives_the_losses_checkpoints_and_weights_of_one_process() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let save = "--accumulate 6 --save-every 3 --keep 9 --eval-every 3";
    for (name, options) in [
        ("adamw", ""),
        ("lamb", "--optimizer lamb --phase2-steps 2 --phase2-seq-len 64 --shift-positions --precision bf16"),
        ("checkpointing", "--gradient-checkpointing --no-nsp"),
    ] {
        let run = |ranks: usize| short(&format!("{name}-{ranks}"), 6, &format!("{save} {options}"));
        alone(&run(0), at);
        let expected = at.join(format!("{name}-0"));
        let counts: &[usize] = if name == "adamw" { &[1, 2, 3, 4, 6] } else { &[3] };
        for &ranks in counts {
            succeed_on(ranks, &run(ranks), at);
            let found = at.join(format!("{name}-{ranks}"));
            assert_same_run(&expected, &found);
            assert!(checkpoints(&expected) == checkpoints(&found), "{name} on {ranks} ranks: other checkpoints");
        }
    }
    // A single micro-batch: its parts are shared.
    alone(&short("single-0", 4, ""), at);
    let parts = object(at.join("single-0/run.json"))["settings"]["parts"].as_u64().unwrap() as usize;
    if parts > 1 {
        succeed_on(parts.min(4), &short("single", 4, ""), at);
        assert_same_run(&at.join("single-0"), &at.join("single"));
    }
}

#[test]
fn a_run_moves_between_ranks_and_one_process() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let save = "--accumulate 4 --save-every 2 --keep 9";
    alone(&short("whole", 8, save), at);
    succeed_on(3, &short("moved", 8, save), at);
    assert_same_run(&at.join("whole"), &at.join("moved"));
    for (ranks, step) in [(2, 4), (1, 6), (4, 2)] {
        // As after a kill.
        for later in (step + 1)..=8 {
            let _ = fs::remove_dir_all(at.join(format!("moved/checkpoints/step-{later:08}")));
        }
        fs::remove_file(at.join("moved/model.safetensors")).unwrap();
        let resume = "train --resume -o moved --quiet --json";
        match ranks {
            1 => drop(alone(resume, at)),
            _ => drop(succeed_on(ranks, resume, at)),
        }
        assert_same_run(&at.join("whole"), &at.join("moved"));
    }
}

/// Each rank keeps a part of the optimizer's state; a checkpoint has all of it, and any number of ranks may go on.
#[test]
fn a_divided_optimizer_changes_no_bit_and_its_checkpoints_are_whole() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    for optimizer in ["adamw", "muon"] {
        let line = |name: &str| {
            short(
                &format!("{optimizer}-{name}"),
                6,
                &format!("--optimizer {optimizer} --accumulate 3 --save-every 2 --keep 9"),
            )
        };
        alone(&line("whole"), at);
        succeed_on(3, &format!("{} --shard-optimizer", line("divided")), at);
        let [whole, divided] = ["whole", "divided"].map(|name| at.join(format!("{optimizer}-{name}")));
        assert_same_run(&whole, &divided);
        assert!(checkpoints(&whole) == checkpoints(&divided), "{optimizer}: other checkpoints");
        for (ranks, step) in [(2, 4), (1, 2)] {
            for later in (step + 1)..=6 {
                let _ = fs::remove_dir_all(divided.join(format!("checkpoints/step-{later:08}")));
            }
            fs::remove_file(divided.join("model.safetensors")).unwrap();
            let resume = format!("train --resume -o {optimizer}-divided --quiet --json");
            match ranks {
                1 => drop(alone(&resume, at)),
                _ => drop(succeed_on(ranks, &resume, at)),
            }
            assert_same_run(&whole, &divided);
        }
    }
    let refused = crate::program::fail(&short("x", 2, "--shard-optimizer"), at, 2);
    assert!(refused.contains("--shard-optimizer has no effect here") && !at.join("x").exists(), "{refused}");
}

/// Rounding moves the losses by little, and every rank takes the same step: a checkpoint compares their weights.
#[test]
fn gradients_travel_in_bf16_if_asked_for() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    alone(&short("whole", 4, "--accumulate 2"), at);
    succeed_on(2, &short("rounded", 4, "--accumulate 2 --bf16-exchange --save-every 2 --keep 9"), at);
    let [whole, rounded] = ["whole", "rounded"].map(|run| logged(&at.join(run), "loss"));
    assert!(whole != rounded && whole[0] == rounded[0], "the first loss is that of the same weights");
    assert!(whole.iter().zip(&rounded).all(|(whole, rounded)| (rounded / whole - 1.0).abs() < 1e-3));
    assert_eq!(object(at.join("rounded/run.json"))["settings"]["bf16_exchange"], true);
    // The setting is the run's own: one process takes it over and has no use for it.
    fs::remove_file(at.join("rounded/model.safetensors")).unwrap();
    alone("train --resume -o rounded --quiet --json", at);
    let refused = crate::program::fail(&short("x", 2, "--bf16-exchange"), at, 2);
    assert!(refused.contains("--bf16-exchange has no effect here") && !at.join("x").exists(), "{refused}");
}

/// A late rank delays the others and changes nothing else.
#[test]
fn a_slow_rank_changes_no_bit() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    alone(&short("whole", 5, "--accumulate 3"), at);
    let line = short("slow", 5, "--accumulate 3");
    success(&with_last(3, &line, ("BERT_FAIL_POINT", "1:step:100"), at).output().unwrap());
    assert_same_run(&at.join("whole"), &at.join("slow"));
}

/// The first rank prepares in a directory that the last one does not see: it is hidden in a namespace of mounts.
#[test]
fn ranks_that_see_no_common_directory_train_the_same_model() {
    let hides = std::process::Command::new("unshare").args(["-m", "true"]).output();
    if !has_mpirun() || !hides.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs the right to hide a directory from a process (unshare -m)");
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let line = short("hidden", 4, "--accumulate 2 --eval-corpus eval.txt");
    fs::write(at.join("eval.txt"), sample::corpus(20, 8)).unwrap();
    alone(&line.replace("'hidden'", "'whole'"), at);
    let script = at.join("program.sh");
    let hide = format!(
        "#!/bin/sh\nif [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then\n  exec unshare -m sh -c 'mount -t tmpfs none \"{0}\" && cd / \
         && exec \"$0\" \"$@\"' {1} \"$@\"\nfi\nexec {1} \"$@\"\n",
        at.display(),
        crate::PROGRAM
    );
    fs::write(&script, hide).unwrap();
    std::process::Command::new("chmod").args(["+x", script.to_str().unwrap()]).status().unwrap();
    let mut command = crate::mpirun(at);
    command.args(["-n", "2", script.to_str().unwrap()]).args(crate::program::args(&line));
    success(&command.output().unwrap());
    assert_same_run(&at.join("whole"), &at.join("hidden"));
}

#[test]
#[ignore = "slow: cargo test --workspace --features mpi -- --include-ignored"]
fn twenty_runs_with_random_delays_have_one_result() {
    if !has_mpirun() {
        return;
    }
    let directory = corpus();
    let at = directory.path();
    let line = |name: &str| short(name, 8, "--accumulate 6");
    alone(&line("whole"), at);
    for repetition in 0..20 {
        let delay = format!("1:step:{}", repetition * 37 % 60);
        let mut command = with_last(3, &format!("{} --overwrite", line("again")), ("BERT_FAIL_POINT", &delay), at);
        success(&command.output().unwrap());
        assert_same_run(&at.join("whole"), &at.join("again"));
    }
    success(&on_ranks(6, &line("six"), at).output().unwrap());
    assert_same_run(&at.join("whole"), &at.join("six"));
}
