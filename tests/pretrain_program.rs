//! Promise: `bert-pretrain` does what its help says, from text files to a model directory, and names what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bert_pretrain::sample;
use serde_json::Value;
use tempfile::TempDir;

fn run(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bert-pretrain")).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs what should succeed; gives stdout.
fn succeed(arguments: &[&str], directory: &Path) -> String {
    let output = run(arguments, directory);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs what should fail with `code`; gives stderr, which is one line after the device's.
fn fail(arguments: &[&str], directory: &Path, code: i32) -> String {
    let output = run(arguments, directory);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}: wrote to stdout");
    assert!(!message.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
    message
}

/// A directory with a corpus, and a run of a few steps on it.
fn corpus() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("corpus.txt"), sample::corpus(120, 7)).unwrap();
    directory
}

const QUICK: [&str; 18] = [
    "train",
    "--corpus",
    "corpus.txt",
    "--vocab-size",
    "400",
    "--max-seq-len",
    "32",
    "--batch-size",
    "4",
    "--steps",
    "6",
    "--device",
    "flex",
    "--quiet",
    "--json",
    "--eval-share",
    "0.1",
    "-o",
];

fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&QUICK[..], more].concat()
}

fn lines(path: PathBuf) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_leaves_a_model_directory_that_can_be_used() {
    let directory = corpus();
    let at = directory.path();
    let summary: Value = serde_json::from_str(&succeed(&quick(&["run"]), at)).unwrap();
    assert_eq!(summary["steps"], 6);
    for key in ["loss", "mlm_loss", "nsp_loss"] {
        assert!(summary["train"][key].as_f64().unwrap() > 0.0, "{summary}");
    }
    for key in ["mlm_loss", "perplexity", "mlm_accuracy", "nsp_accuracy"] {
        assert!(summary["eval"][key].is_f64(), "{summary}");
    }
    for file in ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "run.json"]
    {
        assert!(at.join("run").join(file).exists(), "{file}");
    }
    let metrics = lines(at.join("run/metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|record| record["loss"].is_f64()).collect();
    assert_eq!(steps.len(), 6);
    for key in ["step", "epoch", "loss", "mlm_loss", "nsp_loss", "lr", "grad_norm", "tokens_per_second"] {
        assert!(steps.iter().all(|record| record[key].is_number()), "{key}: {metrics:?}");
    }
    assert!(metrics.iter().any(|record| record["eval"].is_object()));

    let filled = succeed(
        &["fill-mask", "--model", "run", "Anna lives in [MASK] , a [MASK] .", "--top-k", "3", "--json", "--quiet"],
        at,
    );
    let filled: Value = serde_json::from_str(&filled).unwrap();
    let masks = filled["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    assert_eq!(masks[0]["position"], 4);
    assert_eq!(masks[0]["predictions"].as_array().unwrap().len(), 3);

    let next = succeed(&["next-sentence", "--model", "run", "--first", "a", "--second", "b", "--json", "--quiet"], at);
    let next: Value = serde_json::from_str(&next).unwrap();
    assert!((0.0..=1.0).contains(&next["is_next"].as_f64().unwrap()));

    let judged = succeed(
        &["evaluate", "--model", "run", "--corpus", "corpus.txt", "--max-seq-len", "32", "--json", "--quiet"],
        at,
    );
    let judged: Value = serde_json::from_str(&judged).unwrap();
    assert!(judged["perplexity"].as_f64().unwrap() > 1.0);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let directory = corpus();
    let at = directory.path();
    for (name, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        succeed(&quick(&[name, "--seed", seed]), at);
    }
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "two runs with one seed differ");
    assert!(weights("a") != weights("c"), "the seed does nothing");
}

#[test]
fn a_resumed_run_is_bit_for_bit_the_uninterrupted_one() {
    let directory = corpus();
    let at = directory.path();
    succeed(&quick(&["whole", "--save-every", "2", "--keep", "9", "--accumulate", "2"]), at);
    succeed(&quick(&["cut", "--save-every", "2", "--keep", "9", "--accumulate", "2"]), at);
    // As if the run had been killed after step 4, in the middle of writing its metrics.
    fs::remove_dir_all(at.join("cut/checkpoints/step-00000006")).unwrap();
    fs::remove_file(at.join("cut/model.safetensors")).unwrap();
    let more = ["cut", "--save-every", "2", "--keep", "9", "--accumulate", "2", "--resume"];
    succeed(&quick(&more), at);
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    assert!(weights("whole") == weights("cut"), "weights differ");
    let losses = |name: &str| {
        let metrics = lines(at.join(name).join("metrics.jsonl"));
        metrics.iter().map(|record| (record["step"].clone(), record["loss"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(losses("whole"), losses("cut"));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_other_settings_are_refused() {
    let directory = corpus();
    let at = directory.path();
    succeed(&quick(&["run", "--save-every", "2", "--keep", "3"]), at);
    let newest = at.join("run/checkpoints/step-00000006/model.safetensors");
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let output = run(&quick(&["run", "--save-every", "2", "--keep", "3", "--resume"]), at);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("damaged checkpoint passed over"), "{}", text(&output.stderr));
    let message = fail(&quick(&["run", "--resume", "--lr", "0.5"]), at, 1);
    assert!(message.contains("learning_rate = 0.5 does not fit the run to be resumed"), "{message}");
}

#[test]
fn a_run_directory_is_not_overwritten_by_chance() {
    let directory = corpus();
    let at = directory.path();
    succeed(&quick(&["run"]), at);
    let message = fail(&quick(&["run"]), at, 1);
    assert!(message.contains("a directory that is not empty") && message.contains("--overwrite"), "{message}");
    succeed(&quick(&["run", "--overwrite"]), at);
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("empty.txt"), "").unwrap();
    fs::write(at.join("bad.jsonl"), "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    fs::write(at.join("strange.json"), "{\"hiden_size\": 128}").unwrap();
    let with_corpus =
        |corpus: &'static str| ["train", "--corpus", corpus, "-o", "x", "--overwrite", "--device", "flex", "--quiet"];
    for (arguments, expected) in [
        (&with_corpus("empty.txt")[..], "no text"),
        (&with_corpus("nowhere.txt"), "nowhere.txt"),
        (&with_corpus("bad.jsonl"), "bad.jsonl:2"),
        (&["train", "--corpus", "corpus.txt"], "-o DIR"),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--device", "abacus"], "device `abacus`: no such device"),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--device", "rocm"], "build with `--features rocm`"),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--config", "huge"], "expected one of tiny, mini"),
        (
            &[
                "train",
                "--corpus",
                "corpus.txt",
                "-o",
                "x",
                "--overwrite",
                "--config",
                "strange.json",
                "--device",
                "flex",
            ],
            "`hiden_size` is an unknown key",
        ),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--mask-prob", "2"], "--mask-prob: found 2"),
        (&["fill-mask", "--model", "nowhere", "a [MASK]"], "nowhere"),
    ] {
        let message = fail(arguments, at, 1);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    assert!(fail(&["train", "--stepz", "3"], at, 2).contains("--stepz"));
    assert!(fail(&["train", "--optimizer", "sgd"], at, 2).contains("none of adamw, lamb"));
}

#[test]
fn the_same_corpus_gives_the_same_vocabulary() {
    let directory = corpus();
    let at = directory.path();
    let learn = |name: &str| {
        succeed(&["vocab", "--corpus", "corpus.txt", "--size", "300", "-o", name, "--quiet"], at);
        fs::read(at.join(name)).unwrap()
    };
    let vocabulary = learn("a.txt");
    assert_eq!(vocabulary, learn("b.txt"));
    assert!(vocabulary.starts_with(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"));
    assert_eq!(vocabulary.iter().filter(|&&byte| byte == b'\n').count(), 300);
}

#[cfg(unix)]
#[test]
fn sigterm_saves_and_exits_143() {
    let directory = corpus();
    let at = directory.path();
    let mut arguments = quick(&["run", "--save-every", "0"]);
    let steps = arguments.iter().position(|argument| *argument == "6").unwrap();
    arguments[steps] = "100000";
    let mut child = Command::new(env!("CARGO_BIN_EXE_bert-pretrain"))
        .args(&arguments)
        .current_dir(at)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let metrics = at.join("run/metrics.jsonl");
    while fs::read_to_string(&metrics).unwrap_or_default().lines().count() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let saved = fs::read_dir(at.join("run/checkpoints")).unwrap().count();
    assert_eq!(saved, 1, "one checkpoint, written at the end of the step");
}

/// The losses of a run's steps.
fn losses(directory: &Path) -> Vec<f64> {
    lines(directory.join("metrics.jsonl")).iter().filter_map(|record| record["loss"].as_f64()).collect()
}

/// A configuration without dropout, so that runs differ in nothing but what is asked about.
fn without_dropout(directory: &Path) {
    let config = serde_json::json!({
        "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn accumulated_steps_are_the_steps_of_the_large_batch() {
    let directory = corpus();
    let at = directory.path();
    without_dropout(at);
    let common = ["train", "--corpus", "corpus.txt", "--config", "config.json", "--vocab-size", "400", "--max-seq-len"];
    let rest = ["32", "--steps", "5", "--lr", "1e-2", "--device", "flex", "--quiet", "--json"];
    let base = [&common[..], &rest[..]].concat();
    succeed(&[&base[..], &["--batch-size", "12", "-o", "large"]].concat(), at);
    succeed(&[&base[..], &["--batch-size", "4", "--accumulate", "3", "-o", "small"]].concat(), at);
    succeed(&[&base[..], &["--batch-size", "12", "--gradient-checkpointing", "-o", "checkpointed"]].concat(), at);
    let large = losses(&at.join("large"));
    for other in ["small", "checkpointed"] {
        let other = losses(&at.join(other));
        assert_eq!(other.len(), 5);
        for (a, b) in large.iter().zip(&other) {
            assert!((a - b).abs() < 1e-4 * a, "{large:?} and {other:?}");
        }
    }
}

#[test]
fn a_second_phase_has_longer_sequences_and_survives_an_interruption_between() {
    let directory = corpus();
    let at = directory.path();
    let phases = ["--phase2-steps", "3", "--phase2-seq-len", "64", "--save-every", "3"];
    succeed(&[&quick(&["whole"])[..], &phases].concat(), at);
    assert_eq!(losses(&at.join("whole")).len(), 6);
    // As if it had been killed at the change of phases: the checkpoint of step 3 is the newest.
    succeed(&[&quick(&["halves"])[..], &phases].concat(), at);
    let checkpoints = at.join("halves/checkpoints");
    if checkpoints.join("step-00000006").exists() {
        fs::remove_dir_all(checkpoints.join("step-00000006")).unwrap();
    }
    assert!(checkpoints.join("step-00000003").exists());
    succeed(&[&quick(&["halves"])[..], &phases, &["--resume"]].concat(), at);
    let weights = |run: &str| fs::read(at.join(run).join("model.safetensors")).unwrap();
    assert!(weights("whole") == weights("halves"), "the second phase is another after a resumption");
    assert_eq!(losses(&at.join("whole")), losses(&at.join("halves")));
}

#[test]
fn pretraining_goes_on_from_weights_and_masks_may_be_static() {
    let directory = corpus();
    let at = directory.path();
    succeed(&[&quick(&["first"])[..], &["--lr", "1e-3"]].concat(), at);
    let base = ["train", "--corpus", "corpus.txt", "--init", "first", "--max-seq-len", "32", "--batch-size", "8"];
    let rest = ["--steps", "60", "--lr", "3e-3", "--device", "flex", "--quiet", "--json", "--eval-share", "0.1"];
    let more = ["--static-masking", "--dupe-factor", "2", "--eval-every", "30", "-o", "second"];
    succeed(&[&base[..], &rest[..], &more[..]].concat(), at);
    let metrics = lines(at.join("second/metrics.jsonl"));
    let judged: Vec<f64> = metrics.iter().filter_map(|record| record["eval"]["mlm_loss"].as_f64()).collect();
    let before = lines(at.join("first/metrics.jsonl"));
    let before = before.iter().filter_map(|record| record["eval"]["mlm_loss"].as_f64()).next_back().unwrap();
    assert!(judged.last().unwrap() < &(before - 0.3), "{before} and then {judged:?}");
}

#[test]
fn numbers_that_go_bad_stop_the_run_and_name_the_step() {
    let directory = corpus();
    let at = directory.path();
    let message = fail(&[&quick(&["bad"])[..], &["--lr", "1e38", "--clip", "0", "--save-every", "1"]].concat(), at, 1);
    assert!(message.contains("step ") && (message.contains("NaN") || message.contains("inf")), "{message}");
    assert!(!at.join("bad/model.safetensors").exists(), "a model of bad numbers was written");
}
