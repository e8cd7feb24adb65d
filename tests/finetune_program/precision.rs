//! `--precision`: other answers than in single precision, but nearly the same, with every command that has it.

use std::fs;

use serde_json::Value;

use crate::program::{fail, json, lines, objects, succeed};
use crate::{CHOICE, on_file, two_questions, workshop};

/// The numbers of an answer that are not places in a file.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64()),
        Value::Array(values) => values.iter().for_each(|value| numbers(value, found)),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| !["index", "row", "rank"].contains(&name.as_str()));
            fields.for_each(|(_, value)| numbers(value, found));
        }
        _ => {}
    }
}

#[test]
fn answers_are_nearly_those_in_single_precision() {
    let directory = workshop();
    let at = directory.path();
    json(&on_file("films.tsv", "run", "--epochs 8"), at);
    let values = "a good film\t1\na bad book\t0\na fine film\t0.9\n".repeat(4);
    fs::write(at.join("values.tsv"), format!("text\tlabel\n{values}")).unwrap();
    json(&on_file("values.tsv", "ranker", "--task regression --metric pearson --epochs 2"), at);
    fs::write(at.join("corpus.txt"), "a good film\na bad book\na poor film\n").unwrap();
    for command in [
        "embed --model model 'a good film' 'a bad book .'",
        "similarity --model model 'a good film' 'a bad book .' --json",
        "predict --model run 'a good film' 'a bad book' --json",
        "evaluate --model run --data films.tsv --json",
        "search --model model --corpus corpus.txt --query 'a fine film' --json",
        "search --model model --corpus corpus.txt --query 'a fine film' --rerank ranker --json",
        "rank --model ranker --query 'a fine film' 'a good film' 'a bad book' --top-k 1 --json",
    ] {
        let answers = ["f32", "bf16", "int8"].map(|precision| {
            let mut found = Vec::new();
            let output = succeed(&format!("{command} --device flex --quiet --precision {precision}"), at);
            objects(&output).iter().for_each(|answer| numbers(answer, &mut found));
            if command.starts_with("search") {
                // Hits with nearly the same score may change places.
                found.sort_by(f64::total_cmp);
            }
            found
        });
        let [single, rounded @ ..] = &answers;
        assert!(!single.is_empty(), "{command}");
        for (name, rounded) in ["bf16", "int8"].iter().zip(rounded) {
            let worst = single.iter().zip(rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(single.len() == rounded.len() && 0.0 < worst && worst < 0.5, "{command} in {name}: {worst}");
        }
    }
}

#[test]
fn training_in_half_precision_has_nearly_the_losses_of_single_precision() {
    let directory = workshop();
    let at = directory.path();
    for (file, content, options) in [
        ("classes.csv", "text,label\na good film,good\na bad film,bad\n".to_string(), ""),
        ("values.csv", "text,label\na good film,0.1\na bad film,3\n".to_string(), "--task regression"),
        ("sets.csv", "text,label\na good film,x|y\na bad film,\n".to_string(), "--task multi-label"),
        ("tags.conll", "good B-X\nfilm O\n\n".repeat(2), "--task tagging"),
        ("squad.json", two_questions(), "--task question-answering"),
        ("choices.jsonl", CHOICE.repeat(2), "--task multiple-choice --choices a,b"),
        (
            "pairs.csv",
            "text,other\na good film,a fine film\na bad book,a poor book\n".to_string(),
            "--task embedding --text-pair other",
        ),
    ] {
        fs::write(at.join(file), content).unwrap();
        let losses = ["f32", "bf16", "f16"].map(|precision| -> Vec<f64> {
            let options = format!("{options} --epochs 4 --precision {precision} --overwrite");
            json(&on_file(file, "run", &options), at);
            lines(at.join("run/metrics.jsonl")).iter().filter_map(|record| record["loss"].as_f64()).collect()
        });
        let [single, bf16, f16] = &losses;
        assert!(single != bf16 && single != f16, "{file}: {single:?}");
        // In f16 the first steps find the loss scale, and may change nothing.
        for (a, b) in single.iter().zip(bf16).chain(single.iter().zip(f16).take(1)) {
            assert!((a - b).abs() < 0.03 * (1.0 + a), "{file}: {single:?}, bf16 {bf16:?}, f16 {f16:?}");
        }
    }
    let message = fail(&on_file("films.tsv", "other", "--precision int8"), at, 2);
    assert!(message.contains("unknown precision `int8`, expected f32, bf16 or f16"), "{message}");
    let line = "train --model model --train films.tsv --device ndarray --precision bf16 -o other";
    let message = fail(line, at, 1);
    assert!(message.contains("precision: found BF16"), "{message}");
    assert!(!at.join("other").exists());
}

#[test]
fn what_a_device_does_not_compute_in_is_refused() {
    let directory = workshop();
    let at = directory.path();
    let message = fail("embed --model model 'a film' --precision f16", at, 2);
    assert!(message.contains("none of f32, bf16, int8"), "{message}");
    for command in ["embed 'a film'", "predict 'a film' --task classification", "search --corpus films.tsv --query a"] {
        for precision in ["bf16", "int8"] {
            let message = fail(&format!("{command} --model model --device ndarray --precision {precision}"), at, 1);
            let expected = format!("precision: found {precision}, which this device does not compute in");
            assert!(message.lines().any(|line| line.starts_with("error: ") && line.contains(&expected)), "{message}");
        }
    }
}
