//! Promise: `bert-pretrain` does what its help says, from text files to a model directory, and names what is wrong.

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use bert_pretrain::sample;
use program::{fail, json, succeed};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-pretrain");

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
    let summary = json(&quick(&["run"]), at);
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

    let filled = json(
        &["fill-mask", "--model", "run", "Anna lives in [MASK] , a [MASK] .", "--top-k", "3", "--json", "--quiet"],
        at,
    );
    let masks = filled["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    assert_eq!(masks[0]["position"], 4);
    assert_eq!(masks[0]["predictions"].as_array().unwrap().len(), 3);

    // Texts of a file, whatever its form; the line of a text without a mask is named.
    let fill = ["fill-mask", "--model", "run", "--json", "--quiet", "--top-k", "1", "--input"];
    for (name, content, column) in [
        ("texts.txt", "Anna [MASK]\n[MASK] lives\n", "text"),
        ("texts.jsonl", "{\"text\": \"Anna [MASK]\"}\n{\"text\": \"[MASK] lives\"}\n", "text"),
        ("texts.csv", "id,words\n1,Anna [MASK]\n2,[MASK] lives\n", "words"),
    ] {
        fs::write(at.join(name), content).unwrap();
        let filled = succeed(&[&fill[..], &[name, "--text", column]].concat(), at);
        let filled: Vec<Value> = filled.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(filled.len(), 2, "{name}");
        assert_eq!((&filled[0]["text"], &filled[0]["masks"][0]["position"]), (&"Anna [MASK]".into(), &2.into()));
    }
    fs::write(at.join("texts.txt"), "nothing\n").unwrap();
    let message = fail(&[&fill[..], &["texts.txt"]].concat(), at, 1);
    assert!(message.contains("texts.txt:1: found no [MASK]"), "{message}");

    let next = json(&["next-sentence", "--model", "run", "--first", "a", "--second", "b", "--json", "--quiet"], at);
    assert!((0.0..=1.0).contains(&next["is_next"].as_f64().unwrap()));

    let judged =
        json(&["evaluate", "--model", "run", "--corpus", "corpus.txt", "--max-seq-len", "32", "--json", "--quiet"], at);
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
fn a_run_directory_is_not_overwritten_by_chance() {
    let directory = corpus();
    let at = directory.path();
    succeed(&quick(&["run"]), at);
    let message = fail(&quick(&["run"]), at, 1);
    assert!(message.contains("a directory that is not empty") && message.contains("--overwrite"), "{message}");
    succeed(&quick(&["run", "--overwrite"]), at);
    for input in [["--init", "run"], ["--tokenizer", "run/vocab.txt"]] {
        let message = fail(&quick(&[&["run", "--overwrite"][..], &input].concat()), at, 1);
        assert!(message.contains("an input inside the run directory"), "{message}");
    }
    assert!(at.join("run/model.safetensors").exists() && at.join("run/vocab.txt").exists());
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let directory = corpus();
    let at = directory.path();
    let first: Value = json(&quick(&["run"]), at);
    let weights = fs::read(at.join("run/model.safetensors")).unwrap();
    let metrics = fs::read(at.join("run/metrics.jsonl")).unwrap();
    let again: Value = json(&quick(&["run", "--resume"]), at);
    assert_eq!((&first["train"], &first["steps"]), (&again["train"], &again["steps"]));
    assert!(fs::read(at.join("run/metrics.jsonl")).unwrap() == metrics, "no step was taken");
    assert!(fs::read(at.join("run/model.safetensors")).unwrap() == weights);
    // Other settings are refused, even without a checkpoint.
    fs::remove_dir_all(at.join("run/checkpoints")).unwrap();
    let message = fail(&quick(&["run", "--lr", "0.5", "--resume"]), at, 1);
    assert!(message.contains("does not fit the run to be resumed"), "{message}");
    assert!(fs::read(at.join("run/model.safetensors")).unwrap() == weights);
}

/// A vocabulary by itself does not say whether it is cased; everything else does.
#[test]
fn casing_is_as_asked_for_or_refused() {
    let directory = corpus();
    let at = directory.path();
    succeed(&["vocab", "--corpus", "corpus.txt", "--size", "300", "--cased", "-o", "vocab.txt"], at);
    succeed(&quick(&["cased", "--tokenizer", "vocab.txt", "--cased"]), at);
    let config = fs::read_to_string(at.join("cased/tokenizer_config.json")).unwrap();
    assert!(config.contains("\"do_lower_case\": false"), "{config}");
    let output = program::run(&quick(&["uncased", "--tokenizer", "vocab.txt"]), at);
    let message = program::text(&output.stderr);
    assert!(
        output.status.success()
            && message.contains("vocab.txt: --vocab-size 400 has no effect, no vocabulary is learned"),
        "{message}"
    );
    let message = fail(&quick(&["x", "--tokenizer", "uncased", "--cased"]), at, 1);
    assert!(message.contains("--cased does not fit the uncased tokenizer of uncased"), "{message}");
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("empty.txt"), "").unwrap();
    fs::write(at.join("bad.jsonl"), "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    fs::write(at.join("strange.json"), "{\"hiden_size\": 128}").unwrap();
    fs::write(
        at.join("one.json"),
        "{\"type_vocab_size\": 1, \"hidden_size\": 24, \"num_attention_heads\": 3, \"num_hidden_layers\": 1}",
    )
    .unwrap();
    let with_corpus = |corpus: &'static str| ["train", "--corpus", corpus, "-o", "x", "--device", "flex", "--quiet"];
    for (arguments, expected) in [
        (&with_corpus("empty.txt")[..], "no text"),
        (&with_corpus("nowhere.txt"), "nowhere.txt"),
        (&with_corpus("bad.jsonl"), "bad.jsonl:2"),
        (&["train", "--corpus", "corpus.txt"], "-o DIR"),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--device", "abacus"], "device `abacus`: no such device"),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--device", "rocm"], "build with `--features rocm`"),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--config", "huge"], "expected one of tiny, mini"),
        (
            &["train", "--corpus", "corpus.txt", "-o", "x", "--config", "strange.json", "--device", "flex"],
            "`hiden_size` is an unknown key",
        ),
        (&["train", "--corpus", "corpus.txt", "-o", "x", "--mask-prob", "2"], "--mask-prob: found 2"),
        (&["fill-mask", "--model", "nowhere", "a [MASK]"], "nowhere"),
        (
            &["train", "--corpus", "corpus.txt", "-o", "x", "--phase2-steps", "1", "--phase2-seq-len", "2"],
            "--phase2-seq-len: found 2, expected at least 8",
        ),
        (
            &["train", "--corpus", "corpus.txt", "-o", "x", "--config", "one.json", "--device", "flex"],
            "a model of 1 token type",
        ),
    ] {
        let code = if expected.starts_with('-') { 2 } else { 1 };
        let message = fail(arguments, at, code);
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert!(!at.join("x").exists(), "{arguments:?}: a run that never began left something behind");
    }
    assert!(fail(&["train", "--stepz", "3"], at, 2).contains("--stepz"));
    assert!(fail(&["train", "--dupe-factor", "3"], at, 2).contains("--static-masking"));
    assert!(fail(&["train", "--phase2-seq-len", "64"], at, 2).contains("--phase2-steps"));
    assert!(fail(&["train", "--optimizer", "sgd"], at, 2).contains("none of adamw, lamb"));
    assert!(fail(&["train", "--precision", "f8"], at, 2).contains("none of f32, bf16, f16"));
}

#[test]
fn the_same_corpus_gives_the_same_vocabulary() {
    let directory = corpus();
    let at = directory.path();
    let learn = |name: &str| {
        succeed(&["vocab", "--corpus", "corpus.txt", "--size", "300", "-o", name, "--quiet"], at);
        fs::read(at.join(name)).unwrap()
    };
    let vocabulary = learn("0.txt");
    for process in 1..10 {
        assert_eq!(vocabulary, learn(&format!("{process}.txt")));
    }
    assert!(vocabulary.starts_with(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"));
    assert_eq!(vocabulary.iter().filter(|&&byte| byte == b'\n').count(), 300);
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
fn half_precision_learns_what_single_precision_does() {
    let directory = corpus();
    let at = directory.path();
    without_dropout(at);
    let common = ["train", "--corpus", "corpus.txt", "--config", "config.json", "--vocab-size", "400", "--max-seq-len"];
    let rest = ["32", "--steps", "20", "--lr", "3e-3", "--save-every", "10", "--quiet", "--json"];
    let train = |precision: &str, output: &str, more: &[&str]| {
        let which = ["--device", "flex", "--batch-size", "4", "--precision", precision, "-o", output];
        succeed(&[&common[..], &rest, &which, more].concat(), at);
        losses(&at.join(output))
    };
    let single = train("f32", "f32", &[]);
    assert!(single[19] < single[0] - 0.5, "{single:?}");
    for (precision, bound) in [("bf16", 0.02), ("f16", 0.01)] {
        let half = train(precision, precision, &[]);
        assert_ne!(single, half, "{precision} computes in f32");
        for (a, b) in single.iter().zip(&half) {
            assert!((a - b).abs() < bound * a, "{precision}: {single:?} and {half:?}");
        }
        // The scale of the loss goes with the checkpoint.
        fs::remove_dir_all(at.join(precision).join("checkpoints/step-00000020")).unwrap();
        assert_eq!(half, train(precision, precision, &["--resume"]));
    }
    let which = ["--device", "ndarray", "--precision", "bf16", "-o", "ndarray"];
    let message = fail(&[&common[..], &rest, &which].concat(), at, 1);
    assert!(message.contains("--precision: found BF16"), "{message}");
    assert!(!at.join("ndarray").exists());
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
