//! Rows without a gold label, and undefined metrics.

use std::fs;

use serde_json::Value;

use crate::program::{json, object, run, success, text};
use crate::{on_file, workshop};

/// Reported bug: SNLI's `-` and -1 were learned as a fourth class.
#[test]
fn rows_without_a_gold_label_are_left_out_of_training_and_evaluation() {
    let directory = workshop();
    let at = directory.path();
    for (name, labels) in [("snli", ["yes", "no", "maybe", "-"]), ("numbers", ["0", "1", "2", "-1"])] {
        let row = |i: usize, label: &str| format!("a {}\tfilm\t{label}\n", ["good", "bad", "fine", "poor"][i % 4]);
        let rows = |mark: &str| -> String {
            let label = |i: usize| if i % 4 == 3 { mark } else { labels[i % 4] };
            (0..32).map(|i| row(i, label(i))).collect()
        };
        let header = "text\tpair\tlabel\n";
        fs::write(at.join(format!("{name}.tsv")), header.to_string() + &rows(labels[3])).unwrap();
        fs::write(at.join("empty.tsv"), header.to_string() + &rows("")).unwrap();
        let output = run(&on_file(&format!("{name}.tsv"), name, "--text-pair pair --epochs 1 --max-seq-len 12"), at);
        success(&output);
        let warning = format!("{name}.tsv: 8 example(s) without a gold label skipped");
        assert!(text(&output.stderr).contains(&warning), "{}", text(&output.stderr));
        let described = object(at.join(name).join("run.json"));
        assert_eq!(described["labels"].as_array().unwrap().len(), 3);
        assert_eq!(described["examples"]["train"], 24);
        for file in [format!("{name}.tsv"), "empty.tsv".into()] {
            let output = run(&format!("evaluate --model {name} --data {file} --json --quiet"), at);
            assert!(text(&output.stderr).contains("8 example(s) without a gold label skipped"));
            let metrics: Value = serde_json::from_str(&success(&output)).unwrap();
            assert_eq!(metrics["examples"], 24, "{file}");
        }
    }
}

#[test]
fn minus_one_is_a_value_or_a_class_where_it_must_be() {
    let directory = workshop();
    let at = directory.path();
    for (name, options, count) in [("scale", "--task regression", 24), ("sign", "", 24)] {
        let rows: String =
            (0..24).map(|i| format!("a {}\t{}\n", ["good", "a", "bad"][i % 3], 1 - (i as i64 % 3))).collect();
        fs::write(at.join(format!("{name}.tsv")), format!("text\tlabel\n{rows}")).unwrap();
        let summary =
            json(&on_file(&format!("{name}.tsv"), name, &format!("{options} --epochs 1 --max-seq-len 12")), at);
        assert_eq!(summary["eval"]["examples"], count, "{name}");
    }
    assert_eq!(object(at.join("sign/run.json"))["labels"], serde_json::json!(["-1", "0", "1"]));
}

/// Reported bug: with one held-out row the correlation is undefined, and the first of three epochs was kept.
#[test]
fn an_undefined_metric_leaves_the_choice_to_the_loss() {
    let directory = workshop();
    let at = directory.path();
    let rows: String = (0..8).map(|i| format!("a {} film,{}\n", ["good", "bad"][i % 2], i % 2)).collect();
    fs::write(at.join("few.csv"), format!("text,label\n{rows}")).unwrap();
    let line = "train --model model --train few.csv --task regression --max-seq-len 12 --epochs 4 --device flex --json";
    let output = run(&format!("{line} --lr 1e-2 -o run"), at);
    let summary: Value = serde_json::from_str(&success(&output)).unwrap();
    assert!(summary["eval"]["pearson"].is_null(), "{summary}");
    assert!(text(&output.stderr).contains("pearson is undefined on the held-out examples"));
    let losses: Vec<f64> = crate::program::lines(at.join("run/metrics.jsonl"))
        .iter()
        .filter_map(|record| record["eval"]["loss"].as_f64())
        .collect();
    let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!((losses.len(), summary["eval"]["loss"].as_f64()), (4, Some(lowest)), "{losses:?}");
}

/// Reported bug: in a data set of GLUE with two classes, the mark of unlabeled rows was learned as a third one.
#[test]
fn minus_one_is_no_class_of_a_known_data_set() {
    let directory = workshop();
    let at = directory.path();
    let row = |i: usize| format!("a {}\t{}\n", ["good", "bad", "film"][i % 3], ["0", "1", "-1"][i % 3]);
    fs::write(at.join("sst.tsv"), format!("sentence\tlabel\n{}", (0..24).map(row).collect::<String>())).unwrap();
    let output = run(&on_file("sst.tsv", "sst", "--preset sst2 --epochs 1"), at);
    assert_eq!(serde_json::from_str::<Value>(&success(&output)).unwrap()["eval"]["examples"], 16);
    assert!(text(&output.stderr).contains("sst.tsv: 8 example(s) without a gold label skipped"));
    assert_eq!(object(at.join("sst/run.json"))["labels"], serde_json::json!(["0", "1"]));
    // Where nothing is known, it may be the lowest of three grades, which is said.
    fs::write(at.join("own.tsv"), fs::read_to_string(at.join("sst.tsv")).unwrap().replace("sentence", "text")).unwrap();
    let output = run(&on_file("own.tsv", "own", "--epochs 1"), at);
    success(&output);
    assert!(text(&output.stderr).contains("the label -1 is learned as a class"), "{}", text(&output.stderr));
}

/// Reported bug: words without a gold tag had one named `""`, `-100` or `-1`, which was learned.
#[test]
fn words_without_a_gold_tag_are_left_out_of_training_and_evaluation() {
    let directory = workshop();
    let at = directory.path();
    let sentence = |mark: &str| format!("{{\"tokens\":[\"a\",\"good\",\"film\"],\"ner_tags\":[0,1,{mark}]}}\n");
    let blank = "{\"tokens\":[\"bad\"],\"ner_tags\":[null]}\n";
    fs::write(at.join("known.jsonl"), "{\"tokens\":[\"a\",\"good\"],\"ner_tags\":[0,1]}\n".repeat(16)).unwrap();
    for (name, mark) in [("null", "null"), ("torch", "-100"), ("minus", "\"-1\"")] {
        let file = format!("{name}.jsonl");
        fs::write(at.join(&file), sentence(mark).repeat(16) + blank).unwrap();
        let output = run(&on_file(&file, name, "--task tagging --epochs 2"), at);
        success(&output);
        let warned = text(&output.stderr);
        assert!(
            warned.contains(&format!("{file}: 17 word(s) without a gold tag (null, -100 or -1) left out")),
            "{warned}"
        );
        assert!(warned.contains("1 example(s) without a gold label skipped"), "{warned}");
        assert_eq!(object(at.join(name).join("run.json"))["labels"], serde_json::json!(["0", "1"]), "{name}");
        // The third word, whatever is predicted for it, counts in no figure.
        let [marked, known] = [&file, "known.jsonl"]
            .map(|data| json(&format!("evaluate --model {name} --data {data} --json --quiet"), at)["accuracy"].clone());
        assert_eq!(marked, known, "{name}");
        let rows = at.join("rows.jsonl");
        run(&format!("evaluate --model {name} --data {file} --predictions rows.jsonl --quiet"), at);
        assert!(fs::read_to_string(rows).unwrap().contains("\"expected\":[\"0\",\"1\",null]"), "{name}");
    }
}
