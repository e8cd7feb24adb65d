//! Errors about arguments and files.

use std::fs;

use crate::program::{fail, failure, feed, json};
use crate::{on_file, workshop};

#[test]
fn what_is_wrong_is_named() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("one.tsv"), "text\tlabel\na\tgood\nb\tgood\n").unwrap();
    fs::write(at.join("other.tsv"), "text\tlabel\na good film\tgreat\n").unwrap();
    fs::write(at.join("numbers.tsv"), "text\tlabel\na\t0.5\n").unwrap();
    fs::write(at.join("empty.tsv"), "").unwrap();
    fs::write(at.join("latin.tsv"), b"text\tlabel\ncaf\xe9\tgood\n").unwrap();
    for (options, expected) in [
        ("--train one.tsv", "one label only, \"good\""),
        ("--train empty.tsv", "empty.tsv"),
        ("--train latin.tsv", "latin.tsv:2"),
        ("--train nowhere.tsv", "nowhere.tsv: cannot"),
        ("--train films.tsv --text sentence", "sentence"),
        ("--train films.tsv --eval other.tsv", "other.tsv:2: found the label \"great\", expected one of bad, good"),
        ("--train numbers.tsv --task regression", "numbers.tsv: found 1 example, expected more"),
    ] {
        let message = fail(&format!("train --model model {options} --max-seq-len 12 -o x --quiet"), at, 1);
        assert!(message.contains(expected), "{options}: {message}");
    }
    for (line, expected) in [
        ("train --model model --train films.tsv --max-seq-len 128 -o x --quiet", "--max-seq-len 128 does not fit"),
        (
            "train --model model --train films.tsv --max-seq-len 12 --overwrite -o model",
            "an input inside the run directory",
        ),
        ("predict --model model x", "a fine-tuned model"),
        ("train --train films.tsv -o x", "--model DIR is required"),
        ("embed --model nowhere x", "nowhere"),
        ("embed --model model x --max-seq-len 1000", "--max-seq-len: found 1000, expected at most the model's 16"),
        ("embed --model model x --batch-size 0", "at least 1"),
        ("embed --model model films.tsv", "`films.tsv` is a file; did you mean --input films.tsv?"),
        ("similarity --model model films.tsv x", "`films.tsv` is a file; pass the text itself"),
        ("embed --model model x -o out.csv", "out.csv: found the extension `csv`, expected .jsonl, .npy or"),
        (
            "embed --model model x -o out.jsonl.gz",
            "the extension `jsonl.gz`, expected .jsonl, .npy or .safetensors, not",
        ),
    ] {
        let is_usage = ["is required", "at most the model's 16", "at least 1", "is a file"];
        let code = if is_usage.iter().any(|part| expected.contains(part)) { 2 } else { 1 };
        let message = fail(line, at, code);
        assert!(message.contains(expected), "{line}: {message}");
    }
    let message = fail(&on_file("films.tsv", "x", "--freeze 9"), at, 2);
    assert!(message.contains("--freeze: found 9"), "{message}");
    assert!(!at.join("x").exists(), "nothing is left behind by a run that never began");
}

/// For a file that is not a table, the error says how to convert it, or which task reads it.
#[test]
fn a_file_of_another_kind_says_what_to_do_with_it() {
    let directory = workshop();
    let at = directory.path();
    for (file, expected) in [
        ("words.conll", "--task tagging"),
        ("table.json", "jq -c '.[]' FILE"),
        ("table.xlsx", "save the sheet as `.csv`"),
        ("TREC.train", "expected `.csv`, `.tsv`, `.txt` (tabs) or `.jsonl`"),
    ] {
        fs::write(at.join(file), "LOC:city Which city is it ?\n").unwrap();
        let message = fail(&on_file(file, "x", ""), at, 1);
        assert!(message.contains(file) && message.contains(expected), "{message}");
    }
    fs::write(at.join("texts"), "a film\n").unwrap();
    let message = fail("embed --model model --input texts", at, 1);
    assert!(message.contains("texts: found no extension, expected") && message.contains("--input-format"), "{message}");
}

/// Some files have no extension, such as the SMS spam collection, with a label, a tab and a text in every line.
#[test]
fn a_table_without_extension_is_told_by_its_first_line() {
    let directory = workshop();
    let at = directory.path();
    let films = fs::read_to_string(at.join("films.tsv")).unwrap();
    let row = |line: &str| line.split_once('\t').map(|(text, label)| format!("{label}\t{text}\n")).unwrap();
    fs::write(at.join("Films"), films.lines().skip(1).map(row).collect::<String>()).unwrap();
    let summary = json(&on_file("Films", "run", "--no-header --label 1 --text 2 --epochs 1"), at);
    assert_eq!(summary["eval"]["examples"], 64, "{summary}");
}

#[test]
fn the_line_of_a_bad_row_of_the_standard_input_is_named() {
    let directory = workshop();
    let output = feed("embed --model model - --input-format csv --quiet", directory.path(), "text,id\na film,1\nx\n");
    let message = failure(&output, 1);
    assert!(message.contains("<stdin>:3: found 1 field(s), expected 2"), "{message}");
}
