//! Whole runs: seeds, resuming, trainable parameters, reports, presets.

use std::fs;
use std::path::Path;

use crate::program::{fail, json, run, succeed, text};
use crate::{on_file, train, workshop};

#[test]
fn the_same_seed_gives_the_same_bytes_and_resuming_changes_none() {
    let directory = workshop();
    let at = directory.path();
    for name in ["a", "b"] {
        succeed(&train(name, "--max-seq-len 12"), at);
    }
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "two runs with one seed differ");
    let before = weights("a");
    succeed(&train("a", "--max-seq-len 12 --resume"), at);
    assert!(before == weights("a"), "resuming a finished run changed it");
    // From the checkpoint before a damaged one.
    let checkpoints = fs::read_dir(at.join("a/checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(newest.join("model.safetensors"), "no").unwrap();
    let output = run(&train("a", "--max-seq-len 12 --resume"), at);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("skipped a damaged checkpoint"), "{message}");
    assert!(before == weights("a"), "resuming from the checkpoint before changed it");
}

#[test]
fn features_adapters_weights_and_seeds() {
    let directory = workshop();
    let at = directory.path();
    let before = fs::read(at.join("model/model.safetensors")).unwrap();
    let encoder = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor("bert.encoder.layer.0.output.dense.weight").unwrap().data().to_vec()
    };
    let original = encoder(&at.join("model/model.safetensors"));
    // (options, does the encoder change?)
    let cases = [
        ("frozen", "--freeze encoder --lr 3e-2 --epochs 30", false),
        ("embeddings", "--freeze embeddings --epochs 8", true),
        ("layer", "--freeze 1 --lr 1e-2 --epochs 30", false),
        ("lora", "--lora 4 --lr 1e-2 --epochs 12", true),
        ("weights", "--class-weights balanced --epochs 8", true),
    ];
    for (output, options, changes) in cases {
        let summary = json(&on_file("films.tsv", output, options), at);
        assert!(summary["eval"]["accuracy"].as_f64().unwrap() > 0.8, "{output}: {summary}");
        assert_eq!(encoder(&at.join(output).join("model.safetensors")) != original, changes, "{output}");
        let metrics = json(&format!("evaluate --model {output} --data films.tsv --json --quiet"), at);
        assert_eq!(metrics["accuracy"], summary["eval"]["accuracy"], "{output}: adapters are merged, all is saved");
    }
    assert_eq!(fs::read(at.join("model/model.safetensors")).unwrap(), before);

    let summary = json(&on_file("films.tsv", "seeds", "--seeds 3 --epochs 2"), at);
    let runs = summary["seeds"].as_array().unwrap();
    let accuracies: Vec<f64> = runs.iter().map(|run| run["eval"]["accuracy"].as_f64().unwrap()).collect();
    let mean = accuracies.iter().sum::<f64>() / 3.0;
    assert!((summary["mean"]["eval"]["accuracy"].as_f64().unwrap() - mean).abs() < 1e-12, "{summary}");
    assert!(accuracies.iter().all(|accuracy| *accuracy <= summary["eval"]["accuracy"].as_f64().unwrap()));
    assert_eq!(runs.iter().map(|run| run["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [42, 43, 44]);
    json("evaluate --model seeds --data films.tsv --json --quiet", at);
}

#[test]
fn the_report_shows_what_happened_and_can_be_written_again() {
    let directory = workshop();
    let at = directory.path();
    json(&on_file("films.tsv", "run", "--epochs 1 --lr 1e-5"), at);
    let page = fs::read_to_string(at.join("run/report.html")).unwrap();
    for part in ["Confusion matrix", "Classes", "The worst mistakes", "Loss", "Settings", "a good film"] {
        assert!(page.contains(part), "{part} is not in the report");
    }
    fs::remove_file(at.join("run/report.html")).unwrap();
    succeed("report --run run", at);
    assert_eq!(fs::read_to_string(at.join("run/report.html")).unwrap(), page);
    assert!(fail("report --run nowhere", at, 1).contains("nowhere"));
}

#[test]
fn presets_know_their_files() {
    let directory = workshop();
    let at = directory.path();
    let rows: String = (0..16).map(|i| format!("x\t{}\t\ta {} film\n", i % 2, ["good", "bad"][i % 2])).collect();
    fs::write(at.join("cola.tsv"), rows).unwrap();
    let summary = json(&on_file("cola.tsv", "cola", "--preset cola --epochs 8"), at);
    assert!(summary["eval"]["mcc"].as_f64().unwrap() > 0.9, "{summary}");
    let message = fail(&on_file("cola.tsv", "x", "--preset cola --task tagging"), at, 2);
    assert!(message.contains("the preset cola is for classification"), "{message}");
    let message = fail(&on_file("cola.tsv", "x", "--preset cola --metric pearson"), at, 2);
    assert!(message.contains("expected one of accuracy, f1, macro_f1, weighted_f1, mcc"), "{message}");
}
