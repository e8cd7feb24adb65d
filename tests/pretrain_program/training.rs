//! Runs that must be identical, and runs that start from the weights of another one.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::pretraining::{corpus, logged, short, weights};
use crate::program::{fail, json, lines, succeed};

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let directory = corpus();
    let at = directory.path();
    for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        succeed(&short(name, 6, &format!("--seed {seed}")), at);
    }
    let weights = |name: &str| weights(&at.join(name));
    assert!(weights("a") == weights("b"), "two runs with one seed differ");
    assert!(weights("a") != weights("c"), "the seed does nothing");
}

#[test]
fn a_run_directory_is_not_overwritten_by_chance() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 6, ""), at);
    let message = fail(&short("run", 6, ""), at, 1);
    assert!(message.contains("a directory that is not empty") && message.contains("--overwrite"), "{message}");
    succeed(&short("run", 6, "--overwrite"), at);
    for input in ["--init run", "--tokenizer run/vocab.txt", "--config run/config.json"] {
        let message = fail(&short("run", 6, &format!("--overwrite {input}")), at, 1);
        assert!(message.contains("an input inside the run directory"), "{message}");
    }
    assert!(at.join("run/model.safetensors").exists() && at.join("run/vocab.txt").exists());
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let directory = corpus();
    let at = directory.path();
    let run = at.join("run");
    let first: Value = json(&short("run", 6, ""), at);
    let before = weights(&run);
    let metrics = fs::read(run.join("metrics.jsonl")).unwrap();
    let again: Value = json(&short("run", 6, "--resume"), at);
    assert_eq!((&first["train"], &first["steps"]), (&again["train"], &again["steps"]));
    assert!(fs::read(run.join("metrics.jsonl")).unwrap() == metrics, "no step was taken");
    assert!(weights(&run) == before);
    // Different settings are rejected, even without a checkpoint.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let message = fail(&short("run", 6, "--lr 0.5 --resume"), at, 1);
    assert!(message.contains("does not fit the run to resume"), "{message}");
    assert!(weights(&run) == before);
}

/// Writes a configuration without dropout, so that runs differ only in the option under test.
fn without_dropout(directory: &Path) {
    let config = serde_json::json!({
        "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
}

const WITHOUT_DROPOUT: &str =
    "train --corpus corpus.txt --config config.json --vocab-size 400 --max-seq-len 32 --quiet --json";

#[test]
fn accumulated_steps_are_the_steps_of_the_large_batch() {
    let directory = corpus();
    let at = directory.path();
    without_dropout(at);
    let losses = |output: &str, options: &str| {
        succeed(&format!("{WITHOUT_DROPOUT} --steps 5 --lr 1e-2 --device flex -o {output} {options}"), at);
        logged(&at.join(output), "loss")
    };
    let large = losses("large", "--batch-size 12");
    for other in [
        losses("small", "--batch-size 4 --accumulate 3"),
        losses("checkpointed", "--batch-size 12 --gradient-checkpointing"),
    ] {
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
    let base = format!("{WITHOUT_DROPOUT} --steps 20 --lr 3e-3 --save-every 10 --keep 2");
    let train = |precision: &str, more: &str| {
        let which = format!("--device flex --batch-size 4 --precision {precision} -o {precision}");
        succeed(&format!("{base} {which} {more}"), at);
        logged(&at.join(precision), "loss")
    };
    let single = train("f32", "");
    assert!(single[19] < single[0] - 0.5, "{single:?}");
    for (precision, bound) in [("bf16", 0.02), ("f16", 0.01)] {
        let half = train(precision, "");
        assert_ne!(single, half, "{precision} computes in f32");
        for (a, b) in single.iter().zip(&half) {
            assert!((a - b).abs() < bound * a, "{precision}: {single:?} and {half:?}");
        }
        // The loss scale is stored in the checkpoint.
        fs::remove_dir_all(at.join(precision).join("checkpoints/step-00000020")).unwrap();
        fs::remove_file(at.join(precision).join("model.safetensors")).unwrap();
        assert_eq!(half, train(precision, "--resume"));
    }
    let message = fail(&format!("{base} --device ndarray --precision bf16 -o ndarray"), at, 1);
    assert!(message.contains("precision: found BF16"), "{message}");
    assert!(!at.join("ndarray").exists());
}

#[test]
fn pretraining_goes_on_from_weights_and_masks_may_be_static() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("first", 6, "--lr 1e-3"), at);
    let data =
        "train --corpus corpus.txt --init first --max-seq-len 32 --batch-size 8 --eval-share 0.1 --eval-every 30";
    let run = "--steps 60 --lr 3e-3 --static-masking --dupe-factor 2 --device flex --quiet --json -o second";
    let result: Value = json(&format!("{data} {run}"), at);
    let judged = |run: &str| -> Vec<f64> {
        let metrics = lines(at.join(run).join("metrics.jsonl"));
        metrics.iter().filter_map(|record| record["eval"]["mlm_loss"].as_f64()).collect()
    };
    let (before, judged) = (judged("first"), judged("second"));
    assert!(judged.last().unwrap() < &(before.last().unwrap() - 0.3), "{before:?} and then {judged:?}");
    // The model that goes on is evaluated first, on the same held-out text.
    assert!((judged[0] - before.last().unwrap()).abs() < 1e-4, "{before:?} and then {judged:?}");
    assert!((result["eval_before"]["mlm_loss"].as_f64().unwrap() - judged[0]).abs() < 1e-9, "{result}");
}
