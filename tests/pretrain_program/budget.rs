//! Promise: `--budget` sets the size, the steps and the recipe; they are recorded, and a resumed run repeats them.

use std::fs;

use serde_json::json as value;

use crate::pretraining::{corpus, logged, weights};
use crate::program::{fail, object, run, succeed, success, text};

#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn a_run_with_a_budget_records_what_it_chose_and_is_resumed_bit_for_bit() {
    let directory = corpus();
    let at = directory.path();
    let options = "--batch-size 4 --eval-share 0.1 --device flex --save-every 5 --keep 2";
    let output = run(&format!("train --corpus corpus.txt --budget 30s {options} -o run"), at);
    success(&output);
    let message = text(&output.stderr);
    for part in ["budget 30s: 2 layers of 128; ", " passes over the corpus", "expected end: in "] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let run = || object(at.join("run/run.json"));
    let settings = run()["settings"].clone();
    for (name, expected) in [
        ("budget", value!("30s")),
        ("config", value!("tiny")),
        ("vocab_size", value!(8192)),
        ("nsp_mode", value!("balanced")),
        ("nsp_in_phase2", value!(true)),
        ("batch_size", value!(4)),
        ("max_seq_len", value!(32)),
        ("phase2_seq_len", value!(128)),
        ("shift_positions", value!(true)),
    ] {
        assert_eq!(settings[name], expected, "{name}");
    }
    assert_eq!(settings["optimizer"]["algorithm"], "muon");
    let steps = settings["steps"].as_u64().unwrap();
    let second = settings["phase2_steps"].as_u64().unwrap();
    assert!(0 < second && second < steps, "{settings}");
    let losses = ["mlm_loss", "nsp_loss"].map(|name| logged(&at.join("run"), name).len() as u64);
    assert_eq!(losses, [steps, second], "next sentences are predicted in phase 2 only");
    assert!(steps > 0 && run()["result"]["steps"] == steps, "{settings}");
    assert!(settings["learning_rate"].as_f64().unwrap() > 1e-4, "{settings}");
    // config.json keeps the dropout of fine-tuning.
    assert_eq!(object(at.join("run/config.json"))["hidden_dropout_prob"], 0.1);

    let before = weights(&at.join("run"));
    let newest = at.join(format!("run/checkpoints/step-{steps:08}"));
    fs::remove_dir_all(newest).unwrap();
    fs::remove_file(at.join("run/model.safetensors")).unwrap();
    let message = fail("train --resume -o run --budget 1h --lr 0.5", at, 1);
    for difference in ["budget = \"1h\"", "budget = \"30s\"", "learning_rate = 0.5"] {
        assert!(message.contains(difference), "{difference}: {message}");
    }
    succeed("train --resume -o run --budget 30s --quiet", at);
    assert_eq!(run()["settings"], settings);
    assert!(weights(&at.join("run")) == before, "the resumed run has other weights");
}

#[test]
fn a_budget_that_is_too_short_is_an_error_and_leaves_nothing() {
    let directory = corpus();
    let at = directory.path();
    // A million steps do not fit into five seconds.
    let options = "--batch-size 4 --max-seq-len 16 --phase2-steps 1000000 --phase2-seq-len 16 --vocab-size 300 --device flex --quiet";
    let message = fail(&format!("train --corpus corpus.txt --budget 5s {options} -o run"), at, 1);
    assert!(message.contains("--budget: found 5s, of which "), "{message}");
    assert!(message.contains(" s for one step, phase 2 and the evaluation"), "{message}");
    assert!(!at.join("run").exists(), "a run that never began left something behind");
}
