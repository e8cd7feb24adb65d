//! Options of `train` that the tests of the tasks do not use: each has the effect described in its help.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{json, lines, object};
use crate::{on_file, workshop};

/// Options, and the field of `run.json` that records them with its value. The resulting weights differ from those
/// without the options.
#[test]
fn every_option_is_in_run_json_and_changes_the_run() {
    let rows: [(&str, &str, Value); 10] = [
        ("--optimizer lamb", "/settings/optimizer", value!("lamb")),
        ("--weight-decay 0.5", "/settings/weight_decay", value!(0.5)),
        ("--schedule constant", "/settings/decay", value!("constant")),
        ("--schedule cosine", "/settings/decay", value!("cosine")),
        ("--warmup 0", "/settings/warmup", value!(0.0)),
        ("--warmup 7", "/settings/warmup", value!(7.0)),
        ("--clip 0.1", "/settings/clip", value!(0.1)),
        ("--from-scratch", "/settings/from_scratch", value!(true)),
        ("--seed 7", "/settings/seed", value!(7)),
        ("--class-weights balanced", "/settings/class_weights", value!(true)),
    ];
    let directory = workshop();
    let at = directory.path();
    let films = fs::read_to_string(at.join("films.tsv")).unwrap();
    // A second label, which only every eighth text has.
    let row = |(number, line): (usize, &str)| match number {
        0 => format!("{line}\tother\n"),
        _ => format!("{line}\t{}\n", if number.is_multiple_of(8) { "rare" } else { "usual" }),
    };
    fs::write(at.join("films.tsv"), films.lines().enumerate().map(row).collect::<String>()).unwrap();
    let weights = || fs::read(at.join("run/model.safetensors")).unwrap();
    json(&on_file("films.tsv", "run", "--label other --epochs 2"), at);
    let (plain, described) = (weights(), object(at.join("run/run.json")));
    for (options, key, expected) in rows {
        json(&on_file("films.tsv", "run", &format!("--label other --epochs 2 --overwrite {options}")), at);
        assert_eq!(object(at.join("run/run.json")).pointer(key), Some(&expected), "{options}");
        assert_ne!(described.pointer(key), Some(&expected), "{options} is what a run does anyway");
        assert!(weights() != plain, "{options} changes nothing");
    }
}

#[test]
fn training_stops_when_the_metric_no_longer_improves() {
    let directory = workshop();
    let at = directory.path();
    let summary = json(&on_file("films.tsv", "run", "--lr 0 --epochs 9 --early-stop 2"), at);
    assert_eq!(summary["best_epoch"], 1, "{summary}");
    let metrics = lines(at.join("run/metrics.jsonl"));
    assert_eq!(metrics.iter().filter(|record| record["eval"].is_object()).count(), 3);
}

#[test]
fn random_weights_have_the_form_of_the_model_and_none_of_its_weights() {
    let directory = workshop();
    let at = directory.path();
    json(&on_file("films.tsv", "run", "--lr 0 --epochs 1"), at);
    json(&on_file("films.tsv", "scratch", "--lr 0 --epochs 1 --from-scratch"), at);
    let embeddings = |directory: &str| {
        let bytes = fs::read(at.join(directory).join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor("bert.embeddings.word_embeddings.weight").unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    };
    let (model, run, scratch) = (embeddings("model"), embeddings("run"), embeddings("scratch"));
    assert!(model == run && model.0 == scratch.0 && model.1 != scratch.1);
}

#[test]
fn words_and_tags_may_stand_in_any_column() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("columns.conll"), "1 B-X a _\n2 O film _\n\n1 B-X good _\n2 O book _\n\n".repeat(8)).unwrap();
    let options = "--task tagging --token-column 3 --tag-column 2 --epochs 12";
    let summary = json(&on_file("columns.conll", "tags", options), at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 0.9, "{summary}");
    let answer = json("predict --model tags 'good film' --json --quiet", at);
    assert_eq!(answer["tags"], value!(["B-X", "O"]));
}
