//! Question files as found in practice. Each test is named after what used to fail.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{json, lines, objects, run, succeed, success, text};
use crate::{on_file, workshop};

const TASK: &str = "--task question-answering --epochs 20 --max-seq-len 16 --doc-stride 4";

/// Questions about one text, every second one without an answer; `flag` adds `is_impossible`.
fn half_impossible(flag: bool) -> String {
    let question = |i: usize| {
        let mut entry = match i % 2 {
            0 => value!({"id": i, "question": "film", "answers": [{"text": "bad", "answer_start": 2}]}),
            _ => value!({"id": i, "question": "book", "answers": []}),
        };
        if flag {
            entry["is_impossible"] = value!(i % 2 == 1);
        }
        entry
    };
    let qas: Vec<Value> = (0..32).map(question).collect();
    value!({"data": [{"paragraphs": [{"context": "a bad film .", "qas": qas}]}]}).to_string()
}

/// Reported bug: without `is_impossible`, questions without an answer were learned as if they had one.
#[test]
fn no_answers_make_a_question_impossible_with_and_without_the_flag() {
    let directory = workshop();
    let at = directory.path();
    let trained = ["flag", "bare"].map(|name| {
        let file = format!("{name}.json");
        fs::write(at.join(&file), half_impossible(name == "flag")).unwrap();
        let summary = json(&on_file(&file, name, TASK), at);
        assert!(summary["eval"]["exact_match"].as_f64().unwrap() > 95.0, "{name}: {summary}");
        summary["eval"].clone()
    });
    assert_eq!(trained[0], trained[1]);
}

/// Reported bug: for a third-party model, `evaluate` counted "no answer" at a threshold of 0, yet wrote answers without
/// a threshold.
#[test]
fn metrics_and_predictions_are_one_decision() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.json"), half_impossible(true)).unwrap();
    json(&on_file("a.json", "answers", TASK), at);
    fs::remove_file(at.join("answers/finetune.json")).unwrap();
    for threshold in ["", "--no-answer-threshold -50", "--no-answer-threshold 50"] {
        let line = format!("evaluate --model answers --data a.json --json --quiet --predictions p.jsonl {threshold}");
        let metrics = json(&line, at);
        let answers = lines(at.join("p.jsonl"));
        let is_right = |(found, gold): &(&Value, &&str)| found["answer"] == **gold;
        let right = answers.iter().zip(["bad", ""].iter().cycle()).filter(is_right).count();
        let share = right as f64 / 32.0 * 100.0;
        assert_eq!(metrics["exact_match"].as_f64(), Some(share), "{threshold}: {metrics}");
    }
}

/// Reported bug: a text without WordPieces gave a threshold of 1.7e38, and the model never answered "none" again.
#[test]
fn an_empty_text_has_no_part_in_the_threshold() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.json"), half_impossible(false)).unwrap();
    for (name, context) in [("empty", ""), ("blank", " \\t"), ("invisible", "\\u200b")] {
        let empty = format!("{{\"context\":\"{context}\",\"qas\":[{{\"question\":\"book\",\"answers\":[]}}]}}");
        let row =
            value!({"context": "a bad film .", "question": "film", "answers": {"text": ["bad"], "answer_start": [2]}});
        let file = format!("{name}.json");
        fs::write(at.join(&file), format!("[{empty},{row}]")).unwrap();
        let line = format!("train --model model --train a.json --eval {file} {TASK} --device flex --quiet --json");
        let summary = json(&format!("{line} --lr 3e-3 --batch-size 8 -o {name}"), at);
        let threshold = summary["eval"]["no_answer_threshold"].as_f64().unwrap();
        assert!(threshold.abs() < 100.0, "{name}: {threshold}");
        let saved = fs::read_to_string(at.join(name).join("finetune.json")).unwrap();
        let saved: Value = serde_json::from_str(&saved).unwrap();
        assert_eq!(saved["no_answer_threshold"].as_f64(), Some(threshold));
    }
}

/// Reported bug: a single wrong `answer_start` made `predict` and training fail.
#[test]
fn a_wrong_answer_start_is_passed_over_in_training_alone() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.json"), half_impossible(true)).unwrap();
    let wrong = half_impossible(true).replacen("\"answer_start\":2", "\"answer_start\":3", 3);
    fs::write(at.join("wrong.json"), wrong).unwrap();
    let output = run(&on_file("wrong.json", "answers", TASK), at);
    let summary: Value = serde_json::from_str(&success(&output)).unwrap();
    let warning = text(&output.stderr);
    assert!(
        warning.contains("wrong.json: 3 example(s) not used for training, because their answer is not at"),
        "{warning}"
    );
    assert_eq!(summary["eval"]["examples"], 32, "all are counted in metrics");
    assert!(summary["eval"]["exact_match"].as_f64().unwrap() > 95.0, "{summary}");
    assert_eq!(object_of_run(at)["examples"]["train"], 29);
    let answers = |file: &str| succeed(&format!("predict --model answers --input {file} --json --quiet"), at);
    assert_eq!((objects(&answers("wrong.json")).len(), answers("wrong.json")), (32, answers("a.json")));
    let metrics = |file: &str| json(&format!("evaluate --model answers --data {file} --json --quiet"), at);
    assert_eq!(metrics("wrong.json")["exact_match"], metrics("a.json")["exact_match"]);
}

fn object_of_run(at: &std::path::Path) -> Value {
    crate::program::object(at.join("answers/run.json"))
}

/// Reported bug: files without ids, with numeric ids, with a null title or flag, and flat exports were rejected.
#[test]
fn question_files_of_other_tools_are_read() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.json"), half_impossible(true)).unwrap();
    json(&on_file("a.json", "answers", &TASK.replace("20", "1")), at);
    let context = "\"context\":\"a bad film .\"";
    let answers = "\"answers\":[{\"text\":\"bad\",\"answer_start\":2}]";
    let nested = |title: &str, entry: &str| {
        format!(
            "{{\"data\":[{{{title}\"paragraphs\":[{{{context},\"qas\":[{{{entry}\"question\":\"film\",{answers}}}]}}]}}]}}"
        )
    };
    let row = format!(
        "{{\"id\":\"a\",\"title\":\"t\",{context},\"question\":\"film\",\
         \"answers\":{{\"text\":[\"bad\"],\"answer_start\":[2]}}}}"
    );
    for (file, content) in [
        ("noid.json", nested("", "")),
        ("intid.json", nested("", "\"id\":7,")),
        ("nullid.json", nested("", "\"id\":null,")),
        ("titlenull.json", nested("\"title\":null,", "")),
        ("impnull.json", nested("", "\"is_impossible\":null,")),
        ("flat.json", format!("{{\"data\":[{row}]}}")),
        ("array.json", format!("[{row}]")),
        ("rows.jsonl", format!("{row}\n")),
        ("rows.json", format!("{row}\n")),
    ] {
        fs::write(at.join(file), content).unwrap();
        let answer = succeed(&format!("predict --model answers --input {file} --json --quiet"), at);
        assert_eq!(objects(&answer).len(), 1, "{file}");
        let metrics = json(&format!("evaluate --model answers --data {file} --json --quiet"), at);
        assert_eq!(metrics["examples"], 1, "{file}");
    }
}

#[test]
fn a_question_without_gold_is_not_scored_and_counted() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.json"), half_impossible(true)).unwrap();
    json(&on_file("a.json", "answers", &TASK.replace("20", "1")), at);
    let row = |answers: &str| format!("{{\"context\":\"a bad film .\",\"question\":\"film\"{answers}}}\n");
    let labeled = row(",\"answers\":{\"text\":[\"bad\"],\"answer_start\":[2]}");
    fs::write(at.join("some.jsonl"), labeled.clone() + &row("") + &row(",\"answers\":null")).unwrap();
    fs::write(at.join("one.jsonl"), labeled).unwrap();
    fs::write(at.join("none.jsonl"), row("")).unwrap();
    let line = "evaluate --model answers --data some.jsonl --json --quiet --predictions p.jsonl";
    let output = run(line, at);
    assert!(text(&output.stderr).contains("some.jsonl: 2 example(s) without a gold label skipped"));
    assert_eq!(success(&output), succeed("evaluate --model answers --data one.jsonl --json --quiet", at));
    assert_eq!(lines(at.join("p.jsonl")).len(), 3, "an answer for each row");
    let none = json("evaluate --model answers --data none.jsonl --json --quiet", at);
    assert_eq!(none, value!({"f1": null, "loss": null, "examples": 0}));
}
