//! Tests of the directories that a run accepts, and of the files that it keeps and removes.

use super::*;
use serde_json::json;

#[test]
fn what_is_read_is_not_overwritten() {
    let temporary = tempfile::tempdir().unwrap();
    let run = temporary.path();
    fs::write(run.join("vocab.txt"), "").unwrap();
    fs::write(run.join("corpus.txt"), "").unwrap();
    let check = |if_exists, input: &Path| check_inputs(run, if_exists, [input]);
    for input in [run.to_path_buf(), run.join("vocab.txt"), run.join("../").join(run.file_name().unwrap())] {
        let error = check(IfExists::Overwrite, &input).unwrap_err().to_string();
        assert!(error.contains("an input inside the run directory, expected an output directory other"), "{error}");
        check(IfExists::Resume, &input).unwrap();
    }
    check(IfExists::Overwrite, &run.join("corpus.txt")).unwrap();
    check(IfExists::Overwrite, Path::new("texts/*.txt")).unwrap();
}

#[test]
#[cfg(unix)]
fn names_that_cannot_be_recorded_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let name = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"));
    let error = check_inputs(Path::new("run"), IfExists::Refuse, [name]).unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
}

#[test]
fn a_full_directory_is_refused_unless_told_otherwise() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("run");
    drop(RunDirectory::open(&path, IfExists::Refuse).unwrap());
    fs::write(path.join("mine.txt"), "keep me").unwrap();
    let error = RunDirectory::open(&path, IfExists::Refuse).unwrap_err().to_string();
    assert!(error.contains("--resume") && error.contains("not empty"), "{error}");
    drop(RunDirectory::open(&path, IfExists::Overwrite).unwrap());
    assert!(path.join("mine.txt").exists());
}

#[test]
fn a_run_that_never_began_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("run");
    let run = RunDirectory::open(&path, IfExists::Refuse).unwrap();
    fs::write(path.join("vocab.txt"), "learned").unwrap();
    assert!(run.prepared(Err::<(), _>(Error::Setting("no".into()))).is_err());
    drop(run);
    assert!(!path.exists());
    RunDirectory::open(&path, IfExists::Refuse).unwrap().describe(&json!({})).unwrap();
    let run = RunDirectory::open(&path, IfExists::Resume).unwrap();
    assert!(run.prepared(Err::<(), _>(Error::Setting("no".into()))).is_err());
    assert!(path.join(RUN).exists(), "what was there before stays");
}

#[test]
fn a_second_run_is_refused_while_the_first_is_at_work() {
    let temporary = tempfile::tempdir().unwrap();
    let first = RunDirectory::open(temporary.path(), IfExists::Refuse).unwrap();
    let error = RunDirectory::open(temporary.path(), IfExists::Resume).unwrap_err().to_string();
    assert!(error.contains("another run"), "{error}");
    drop(first);
    RunDirectory::open(temporary.path(), IfExists::Resume).unwrap();
}

#[test]
fn rewinding_drops_later_lines_and_a_torn_one() {
    let temporary = tempfile::tempdir().unwrap();
    let mut run = RunDirectory::open(temporary.path(), IfExists::Refuse).unwrap();
    for step in 0..=4 {
        run.log(&json!({"step": step})).unwrap();
    }
    run.metrics.write_all(b"{\"step\": 5, \"lo").unwrap();
    run.rewind_metrics(2).unwrap();
    run.log(&json!({"step": 3})).unwrap();
    let steps: Vec<_> = run.metrics().unwrap().iter().map(|record| record["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2, 3]);
    run.rewind_metrics(0).unwrap();
    assert!(run.metrics().unwrap().is_empty(), "a run that starts over writes all of them again");
}

#[test]
fn a_finished_run_has_a_result_and_a_model() {
    let temporary = tempfile::tempdir().unwrap();
    let run = RunDirectory::open(temporary.path(), IfExists::Refuse).unwrap();
    assert_eq!(result_of(run.path()).unwrap(), None);
    run.describe(&json!({"steps": 4})).unwrap();
    assert_eq!(result_of(run.path()).unwrap(), None);
    fs::write(run.file("model.safetensors"), "").unwrap();
    run.finish(&json!({"steps": 4, "seconds": 1.5})).unwrap();
    assert_eq!(result_of(run.path()).unwrap(), Some(json!({"steps": 4, "seconds": 1.5})));
    assert_eq!(read_run(run.path()).unwrap()["steps"], 4);
    fs::remove_file(run.file("model.safetensors")).unwrap();
    assert_eq!(result_of(run.path()).unwrap(), None, "without its model it is not finished");
}

#[test]
fn an_unfinished_run_is_not_taken_for_a_model() {
    let temporary = tempfile::tempdir().unwrap();
    let run = RunDirectory::open(temporary.path(), IfExists::Refuse).unwrap();
    check_has_model(run.path()).unwrap();
    run.describe(&json!({"program": "bert-pretrain"})).unwrap();
    let message = check_has_model(run.path()).unwrap_err().to_string();
    assert!(
        message.contains("found an unfinished run") && message.contains("bert-pretrain train --resume"),
        "{message}"
    );
    fs::write(run.file("config.json"), "{}").unwrap();
    check_has_model(run.path()).unwrap();
}

/// Reported bug: after a run that was interrupted while it read its corpus, the same command was refused and told to
/// resume, and resuming found no run.
#[test]
fn a_run_that_was_interrupted_before_it_was_prepared_may_begin_again() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("run");
    drop(RunDirectory::open(&path, IfExists::Refuse).unwrap());
    for name in ["corpus.partial", "vocab.txt"] {
        fs::write(path.join(name), "half").unwrap();
    }
    drop(RunDirectory::open(&path, IfExists::Refuse).unwrap());
    assert!(!path.join("corpus.partial").exists() && !path.join("vocab.txt").exists());
    // Not over files of others, or a model.
    for name in ["notes.txt", "model.safetensors"] {
        fs::write(path.join(name), "whole").unwrap();
        assert!(RunDirectory::open(&path, IfExists::Refuse).is_err(), "{name}");
        fs::remove_file(path.join(name)).unwrap();
    }
    RunDirectory::open(&path, IfExists::Refuse).unwrap();
}
