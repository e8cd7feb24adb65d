//! Tables and texts in `.parquet` files.

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;

use crate::program::{command, fail, json, objects, succeed, success};
use crate::workshop;

/// Copies a file from `tests/golden/parquet` to a directory.
fn bring(name: &str, at: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet").join(name);
    fs::copy(path, at.join(name)).unwrap();
}

#[test]
fn texts_of_a_column_have_the_vectors_that_they_have_in_any_file() {
    let directory = workshop();
    let at = directory.path();
    bring("documents.parquet", at);
    fs::write(at.join("a.jsonl"), "{\"text\": \"One.\\nTwo.\\n\\nThree.\"}\n{\"text\": \"\"}\n{\"text\": \"Four.\"}\n")
        .unwrap();
    let embed = "embed --model model --device flex --quiet";
    let expected = succeed(&format!("{embed} --input a.jsonl"), at);
    assert_eq!(objects(&expected).len(), 3);
    assert_eq!(succeed(&format!("{embed} --input documents.parquet"), at), expected);
    let mut piped = command(&format!("{embed} - --input-format parquet"), at);
    piped.stdin(File::open(at.join("documents.parquet")).unwrap());
    assert_eq!(success(&piped.output().unwrap()), expected);
    let message = fail(&format!("{embed} --input documents.parquet --text body"), at, 1);
    assert!(message.contains("found no column `body`, expected one of `id`, `text`"), "{message}");
}

#[test]
fn a_model_learns_from_a_table_in_any_compression() {
    let directory = workshop();
    let at = directory.path();
    let figures: Vec<Value> = ["snappy.parquet", "zstd.parquet", "gzip.parquet"]
        .into_iter()
        .map(|name| {
            bring(name, at);
            let columns = "--text text --text-pair pair --label label";
            let run = name.replace('.', "-");
            json(
                &format!(
                    "train --model model --train {name} --eval {name} {columns} --epochs 1 --batch-size 8 \
                     --max-seq-len 16 --device flex --quiet --json -o {run}"
                ),
                at,
            );
            json(&format!("evaluate --model {run} --data {name} --device flex --quiet --json"), at)
        })
        .collect();
    assert_eq!(figures[0]["examples"], 40);
    assert!(figures.iter().all(|found| found == &figures[0]), "{figures:?}");
}

#[test]
fn tagged_words_and_questions() {
    let directory = workshop();
    let at = directory.path();
    bring("tags.parquet", at);
    let common = "--epochs 1 --batch-size 2 --max-seq-len 16 --device flex --quiet --json";
    json(&format!("train --task tagging --model model --train tags.parquet --eval tags.parquet {common} -o tags"), at);
    let labels = fs::read_to_string(at.join("tags/config.json")).unwrap();
    assert!(labels.contains("B-PER") && labels.contains("B-LOC"), "{labels}");
    let answers = objects(&succeed("predict --model tags --input tags.parquet --json --device flex --quiet", at));
    assert_eq!(answers[0]["words"], serde_json::json!(["Anna", "lives", "in", "Bonn"]));
    bring("squad.parquet", at);
    let line = format!(
        "train --task question-answering --model model --train squad.parquet --eval squad.parquet --doc-stride 4 \
         {common} -o answers"
    );
    json(&line, at);
    let answers = objects(&succeed("predict --model answers --input squad.parquet --json --device flex --quiet", at));
    assert_eq!(answers.len(), 2);
}

#[test]
fn what_is_no_parquet_is_one_line() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.parquet"), "text,label\na,b\n".repeat(9)).unwrap();
    for line in ["embed --model model --input a.parquet", "train --model model --train a.parquet --max-seq-len 12 -o x"]
    {
        let message = fail(&format!("{line} --device flex --quiet"), at, 1);
        assert!(message.contains("a.parquet: found ") && message.lines().count() == 1, "{message}");
    }
}
