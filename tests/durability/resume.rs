//! Runs that can be resumed, and runs that must not be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bert_pretrain::sample;

use crate::pretraining::{corpus, short};
use crate::program::{fail, json, object, run, succeed, text};
use crate::{assert_same_run, losses};

#[test]
fn a_resumed_run_is_bit_for_bit_the_uninterrupted_one() {
    let directory = corpus();
    let at = directory.path();
    for optimizer in ["adamw", "lamb", "muon"] {
        let save = format!("--save-every 2 --keep 9 --accumulate 2 --optimizer {optimizer} --overwrite");
        succeed(&short("whole", 6, &save), at);
        succeed(&short("cut", 6, &save), at);
        // The state after a kill that followed step 4 and interrupted writing the metrics.
        fs::remove_dir_all(at.join("cut/checkpoints/step-00000006")).unwrap();
        fs::remove_file(at.join("cut/model.safetensors")).unwrap();
        succeed(&short("cut", 6, &save.replace("--overwrite", "--resume")), at);
        assert_same_run(&at.join("whole"), &at.join("cut"));
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over() {
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 2 --keep 3";
    let newest = at.join("run/checkpoints/step-00000006");
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let truncate = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 2);
    succeed(&short("run", 6, save), at);
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
        // Without its model, the run is not finished.
        fs::remove_file(at.join("run/model.safetensors")).unwrap();
        let output = run(&short("run", 6, &format!("{save} --resume")), at);
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert!(message.contains("skipped a damaged checkpoint") && message.contains(name), "{message}");
        assert!(fs::read(at.join("run/model.safetensors")).unwrap() == before, "{name}");
    }
}

/// Regression tests: a run was removed although the one that was to replace it could not be prepared, and so was a
/// model that no run had written.
#[test]
fn what_is_to_be_overwritten_is_kept_until_the_new_run_is_prepared() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 4, "--save-every 2 --keep 9"), at);
    let before = contents(&at.join("run"));
    fs::write(at.join("bad.txt"), b"A text. Another.\n\nIt ends in \xff\n").unwrap();
    for (options, expected) in [
        ("--eval-corpus corpus.txt", "the only text, for training and for evaluation"),
        ("--eval-corpus bad.txt", "bad.txt:3: found byte 0xff"),
        ("--vocab-size 20", "a vocabulary of 20 pieces is too small"),
    ] {
        let line = short("run", 4, &format!("--overwrite {options}"));
        let line = if options.contains("vocab") { line.replace("--vocab-size 400 ", "") } else { line };
        let message = fail(&line, at, 1);
        assert!(message.contains(expected), "{options}: {message}");
        assert!(contents(&at.join("run")) == before, "{options}");
    }
    // As after a kill during the preparation, and on the way there and back: the next run puts the old one back.
    let set_aside = |place: &str, first: &str| {
        fs::create_dir(at.join("run").join(place)).unwrap();
        for entry in fs::read_dir(at.join("run")).unwrap() {
            let name = entry.unwrap().file_name();
            if name.to_str().unwrap() > first {
                fs::rename(at.join("run").join(&name), at.join("run").join(place).join(&name)).unwrap();
            }
        }
    };
    for (place, first) in [(".replaced", "/"), (".moving", "/"), (".moving", "m"), (".moving", "r")] {
        set_aside(place, first);
        fail(&short("run", 4, "--overwrite --eval-corpus corpus.txt"), at, 1);
        assert!(contents(&at.join("run")) == before, "{place} {first}");
        set_aside(place, first);
        let message = text(&run("train --resume -o run", at).stderr);
        assert!(
            message.contains("run is finished") && contents(&at.join("run")) == before,
            "{place} {first}: {message}"
        );
    }
    set_aside(".replaced", "/");
    let message = fail("fill-mask --model run 'a [MASK]'", at, 1);
    assert!(message.contains("a run that was being overwritten"), "{message}");
    succeed(&short("run", 2, "--overwrite"), at);
    assert!(!at.join("run/.replaced").exists() && object(at.join("run/run.json"))["steps"] == 2);
    fs::create_dir(at.join("model")).unwrap();
    fs::copy(at.join("run/config.json"), at.join("model/config.json")).unwrap();
    let message = fail(&short("model", 4, "--overwrite"), at, 1);
    assert!(message.contains("model: found a directory that is not empty and holds no run"), "{message}");
    assert!(at.join("model/config.json").exists());
}

#[test]
fn a_run_is_not_resumed_with_other_settings_or_another_corpus() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 4, "--save-every 2"), at);
    let message = fail(&short("run", 4, "--resume --lr 0.5"), at, 1);
    assert!(
        message.contains("learning_rate = 0.5 does not fit the run to resume, learning_rate = 0.0001"),
        "{message}"
    );
    // All differing settings are named at once.
    let message = fail(&short("run", 5, "--resume --warmup 0.5 --lr 1e-3"), at, 1);
    for difference in ["learning_rate = 0.001", "warmup = 0.5", "steps = 5", "steps = 4"] {
        assert!(message.contains(difference), "{difference}: {message}");
    }
    fs::remove_file(at.join("run/model.safetensors")).unwrap();
    fs::write(at.join("corpus.txt"), sample::corpus(120, 8)).unwrap();
    let before = contents(&at.join("run"));
    let message = fail(&short("run", 4, "--resume"), at, 1);
    assert!(message.contains("data_sha256") && message.contains("does not fit the run to resume"), "{message}");
    assert!(contents(&at.join("run")) == before, "a refused run wrote something");
}

/// All files of a directory with their contents.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| match path.is_dir() {
        true => contents(&path),
        false => BTreeMap::from([(path.clone(), fs::read(path).unwrap())]),
    };
    entries.flat_map(read).collect()
}

#[test]
fn resume_alone_continues_with_the_settings_of_the_run() {
    let directory = corpus();
    let at = directory.path();
    // Numbers with many digits must not change on the way through run.json.
    let options = "--lr 0.0032659863237109042 --warmup 0.5 --no-nsp --save-every 2 --keep 5";
    succeed(&short("whole", 6, options), at);
    succeed(&short("cut", 6, options), at);
    fs::remove_file(at.join("cut/model.safetensors")).unwrap();
    fs::remove_dir_all(at.join("cut/checkpoints/step-00000006")).unwrap();
    succeed("train --resume -o cut --quiet", at);
    assert_same_run(&at.join("whole"), &at.join("cut"));
    assert!(at.join("cut/checkpoints/step-00000002").exists(), "the options of the run count, too");
    fs::remove_file(at.join("cut/model.safetensors")).unwrap();
    succeed(&short("cut", 6, &format!("{options} --resume")), at);
    let described = |name: &str| object(at.join(name).join("run.json"));
    assert_eq!(described("whole")["settings"], described("cut")["settings"]);
    let message = fail("train --resume -o nowhere", at, 1);
    assert!(message.contains("nowhere: found no run to resume"), "{message}");
    // A finished run needs no corpus, an unfinished one finds its relative path only where it was started.
    succeed("train --resume -o . --quiet", &at.join("cut"));
    fs::remove_file(at.join("cut/model.safetensors")).unwrap();
    let before = contents(&at.join("cut"));
    let message = fail("train --resume -o .", &at.join("cut"), 1);
    assert!(message.contains("corpus.txt: found no such file here"), "{message}");
    assert!(message.contains(&at.display().to_string()), "{message}");
    assert!(contents(&at.join("cut")) == before, "a refused run wrote something");
    assert!(!at.join("nowhere").exists());
}

/// A mistyped directory with `--resume`, or a mistake beside `--overwrite`, used to cost what was in the directory.
#[test]
fn what_is_in_a_directory_is_kept_until_the_new_run_is_known_to_be_possible() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 4, "--keep 1"), at);
    fs::create_dir(at.join("model")).unwrap();
    for file in ["config.json", "model.safetensors", "vocab.txt"] {
        fs::copy(at.join("run").join(file), at.join("model").join(file)).unwrap();
    }
    let (model, finished) = (contents(&at.join("model")), contents(&at.join("run")));
    let message = fail(&short("model", 4, "--resume"), at, 1);
    assert!(message.contains("not empty and holds no run"), "{message}");
    assert!(contents(&at.join("model")) == model);
    let message = fail(&short("run", 4, "--overwrite").replace("--max-seq-len 32", "--max-seq-len 4000"), at, 1);
    assert!(message.contains("a sequence length of 4000"), "{message}");
    assert!(contents(&at.join("run")) == finished);
    // The configuration file that a run was started with must not change.
    fs::write(at.join("own.json"), fs::read(at.join("run/config.json")).unwrap()).unwrap();
    let line = "train --corpus corpus.txt --config own.json --steps 6 --max-seq-len 16 --save-every 2 --keep 5 --quiet";
    succeed(&format!("{line} --eval-share 0 --vocab-size 300 -o own"), at);
    fs::remove_file(at.join("own/model.safetensors")).unwrap();
    let changed = fs::read_to_string(at.join("own.json")).unwrap().replace("gelu", "relu");
    fs::write(at.join("own.json"), changed).unwrap();
    let message = fail("train --resume -o own --quiet", at, 1);
    assert!(message.contains("hidden_act = \"relu\""), "{message}");
}

/// A run that was given a vocabulary cannot be resumed with a learned one, and is left unchanged.
#[test]
fn a_refused_resume_writes_nothing() {
    let directory = corpus();
    let at = directory.path();
    succeed("vocab --corpus corpus.txt --size 300 -o vocab300.txt --quiet", at);
    succeed(&short("run", 4, "--tokenizer vocab300.txt --lr 1e-3 --save-every 2 --keep 2"), at);
    fs::remove_file(at.join("run/model.safetensors")).unwrap();
    let before = contents(&at.join("run"));
    let message = fail("train --corpus corpus.txt --resume -o run --lr 1e-4 --vocab-size 500 --cased", at, 1);
    for difference in ["learning_rate = 0.0001", "vocab_size = 500", "cased = true", "cased = false"] {
        assert!(message.contains(difference), "{difference}: {message}");
    }
    assert!(contents(&at.join("run")) == before, "a refused run wrote something");
    // Without a corpus, it is not mistaken for a run on the built-in sample.
    succeed("train --resume -o run --quiet", at);
    assert!(!at.join("run/sample.txt").exists());
}

#[test]
fn a_finished_run_keeps_no_checkpoints_unless_asked_and_says_that_it_is_finished() {
    let directory = corpus();
    let at = directory.path();
    let checkpoints = |run: &str| fs::read_dir(at.join(run).join("checkpoints")).unwrap().count();
    succeed(&short("run", 6, "--save-every 2"), at);
    assert_eq!(checkpoints("run"), 0);
    succeed(&short("kept", 6, "--save-every 2 --keep 2"), at);
    assert_eq!(checkpoints("kept"), 2);
    let before = contents(&at.join("run"));
    for resume in ["train --resume -o run".to_string(), short("run", 6, "--resume --save-every 2")] {
        let output = run(&resume, at);
        let message = text(&output.stderr);
        assert!(output.status.success() && message.contains("run is finished after 6 steps"), "{message}");
    }
    assert!(contents(&at.join("run")) == before);
}

#[test]
fn checkpoints_are_written_after_minutes_too() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 4, "--save-every 0 --save-minutes 1e-6 --keep 9"), at);
    assert_eq!(fs::read_dir(at.join("run/checkpoints")).unwrap().count(), 4);
    let message = fail(&short("x", 4, "--save-minutes nan"), at, 2);
    assert!(message.contains("--save-minutes: found NaN, expected 0 or more"), "{message}");
}

/// The time of a run in two halves is that of both, not just that of the second one.
#[test]
fn the_seconds_of_a_resumed_run_are_those_of_all_its_parts() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 6, "--save-every 2 --keep 9"), at);
    fs::remove_file(at.join("run/model.safetensors")).unwrap();
    let path = at.join("run/checkpoints/step-00000006/state.json");
    let mut state = object(&path);
    state["seconds"] = 1000.0.into();
    fs::write(&path, state.to_string()).unwrap();
    let summary = json("train --resume -o run --quiet --json", at);
    assert!(summary["seconds"].as_f64().unwrap() > 1000.0, "{summary}");
}

#[test]
fn numbers_that_go_bad_stop_the_run_and_name_the_step() {
    let directory = corpus();
    let at = directory.path();
    let message = fail(&short("bad", 6, "--lr 1e38 --clip 0 --save-every 1"), at, 1);
    assert!(message.contains("step ") && (message.contains("NaN") || message.contains("inf")), "{message}");
    assert!(!at.join("bad/model.safetensors").exists(), "a model of bad numbers was written");
}

#[test]
fn a_second_phase_has_longer_sequences_and_survives_an_interruption_between() {
    let directory = corpus();
    let at = directory.path();
    let phases = "--phase2-steps 3 --phase2-seq-len 64 --save-every 3 --keep 2";
    succeed(&short("whole", 6, phases), at);
    // The state after a kill at the change of phases: the newest checkpoint is that of step 3.
    succeed(&short("halves", 6, phases), at);
    let checkpoints = at.join("halves/checkpoints");
    if checkpoints.join("step-00000006").exists() {
        fs::remove_dir_all(checkpoints.join("step-00000006")).unwrap();
    }
    assert!(checkpoints.join("step-00000003").exists());
    fs::remove_file(at.join("halves/model.safetensors")).unwrap();
    succeed(&short("halves", 6, &format!("{phases} --resume")), at);
    assert_same_run(&at.join("whole"), &at.join("halves"));
    // With sequences as short as before, the first phase is the same, but the second one is not.
    succeed(&short("even", 6, "--phase2-steps 3 --phase2-seq-len 32"), at);
    let (long, even) = (losses(&at.join("whole")), losses(&at.join("even")));
    assert!(long[..3] == even[..3] && long[3..6].iter().zip(&even[3..6]).all(|(long, even)| long != even));
}
