//! Which files are tables, which column is the text, and which lines are headers.

use std::fs;

use serde_json::json as value;

use crate::program::{fail, in_row, json, objects, run, succeed, success, text};
use crate::{on_file, workshop};

/// Reported bug: a table named .txt gave an answer for its header, and the columns of training were ignored.
#[test]
fn a_table_called_txt_means_the_same_to_every_command() {
    let directory = workshop();
    let at = directory.path();
    let films = fs::read_to_string(at.join("films.tsv")).unwrap();
    let numbered: String = films.lines().enumerate().map(|(i, line)| format!("{i}\t{line}\n")).collect();
    for name in ["films.txt", "numbered.tsv"] {
        fs::write(at.join(name), numbered.replacen("0\ttext", "id\ttext", 1)).unwrap();
    }
    let summary = json(&on_file("films.txt", "run", "--epochs 2 --max-seq-len 12"), at);
    let metrics = json("evaluate --model run --data films.txt --json --quiet", at);
    assert_eq!(metrics["accuracy"], summary["eval"]["accuracy"]);
    let answers = succeed("predict --model run --input films.txt --json --quiet", at);
    assert_eq!(objects(&answers).len(), 64);
    assert_eq!(answers, succeed("predict --model run --input numbered.tsv --json --quiet", at));
    fs::write(at.join("sms.txt"), "ham\ta good film\nspam\ta bad film\n").unwrap();
    let message = fail("predict --model run --input sms.txt --json --quiet", at, 1);
    assert!(message.contains("sms.txt:1: found 2 tab-separated fields") && message.contains("--text"), "{message}");
}

/// Reported bug: the header of a table was read as a row, and a row as the header.
#[test]
fn a_line_that_may_be_a_header_is_shown() {
    let directory = workshop();
    let at = directory.path();
    let rows: String = (0..16).map(|i| format!("{i}\ta {} film\n", ["good", "bad"][i % 2])).collect();
    fs::write(at.join("rows.tsv"), &rows).unwrap();
    fs::write(at.join("headed.tsv"), format!("id\ttext\n{rows}")).unwrap();
    fs::write(at.join("named.tsv"), format!("id\tsentence\n{rows}")).unwrap();
    let embed = |options: &str| {
        let output = run(&format!("embed --model model --quiet --input {options}"), at);
        (success(&output).lines().count(), text(&output.stderr))
    };
    let (count, warning) = embed("rows.tsv --text 2");
    assert_eq!(count, 15);
    assert!(warning.contains("rows.tsv:1: treated as a header") && warning.contains("0\\ta good film"), "{warning}");
    assert_eq!(embed("rows.tsv --text 2 --no-header"), (16, String::new()));
    assert_eq!(embed("headed.tsv"), (16, String::new()));
    let (count, warning) = embed("named.tsv --text 2 --no-header");
    assert_eq!(count, 17);
    assert!(warning.contains("named.tsv:1: treated as a row although it looks like a header"), "{warning}");
}

/// Reported bug: after training without a header, `text` in JSON was not found, and a header was answered.
#[test]
fn text_is_a_second_guess_for_the_column_of_training() {
    let directory = workshop();
    let at = directory.path();
    let rows: String = (0..32).map(|i| format!("{}\ta {0} film\n", ["good", "bad"][i % 2])).collect();
    fs::write(at.join("rows.tsv"), rows).unwrap();
    json(&on_file("rows.tsv", "run", "--no-header --text 2 --label 1 --epochs 2 --max-seq-len 12"), at);
    let expected = json("predict --model run 'a good film' --json --quiet", at);
    fs::write(at.join("q.jsonl"), "{\"text\": \"a good film\"}\n").unwrap();
    fs::write(at.join("q.csv"), "text,id\na good film,1\n").unwrap();
    for (file, warning) in [
        ("q.jsonl", "q.jsonl: no column `2`, which was used in training; reading `text` instead"),
        ("q.csv", "q.csv:1: treated as a header because it names a column `text`"),
    ] {
        let output = run(&format!("predict --model run --input {file} --json --quiet"), at);
        assert_eq!(objects(&success(&output)), [in_row(1, &expected)], "{file}");
        assert!(text(&output.stderr).contains(warning), "{}", text(&output.stderr));
    }
}

/// Reported bug: a table in .tsv was read as CoNLL columns, although its column was named.
#[test]
fn a_column_that_is_named_is_tagged() {
    let directory = workshop();
    let at = directory.path();
    let conll = "a O\ngood B-X\nfilm I-X\n\n".repeat(8);
    fs::write(at.join("a.conll"), &conll).unwrap();
    json(&on_file("a.conll", "tags", "--task tagging --epochs 1"), at);
    for (file, content) in [
        ("t.tsv", "id\ttext\tbody\n1\ta good\ta film\n2\tx\tpoor book\n"),
        ("t.csv", "id,text,body\n1,a good,a film\n2,x,poor book\n"),
        ("t.txt", "id\ttext\tbody\n1\ta good\ta film\n2\tx\tpoor book\n"),
        ("t.jsonl", "{\"text\":\"a good\",\"body\":\"a film\",\"words\":[\"x\"]}\n{\"body\":\"poor book\"}\n"),
    ] {
        fs::write(at.join(file), content).unwrap();
        let answers = objects(&succeed(&format!("predict --model tags --input {file} --text body --json --quiet"), at));
        let words: Vec<_> = answers.iter().map(|answer| answer["words"].clone()).collect();
        assert_eq!(words, [value!(["a", "film"]), value!(["poor", "book"])], "{file}");
    }
    // The usual column name in a header is recognized; tagged words are not mistaken for a table or for lines of text.
    let usual = objects(&succeed("predict --model tags --input t.tsv --json --quiet", at));
    assert_eq!(usual[0]["words"], value!(["a", "good"]));
    for file in ["words.tsv", "words.txt"] {
        fs::write(at.join(file), "text\tO\ngood\tB-X\n\nfilm\tO\n").unwrap();
        let answers = objects(&succeed(&format!("predict --model tags --input {file} --json --quiet"), at));
        assert_eq!((answers.len(), &answers[0]["words"]), (2, &value!(["text", "good"])), "{file}");
    }
    let message = fail("predict --model tags --input a.conll --text body --json --quiet", at, 2);
    assert!(message.contains("--text has no effect here: the input has no columns"), "{message}");
    let message = fail("evaluate --model tags --data a.conll --text body --json --quiet", at, 2);
    assert!(message.contains("--text"), "{message}");
}

/// Reported bug: a file with classic Mac OS line ends was read as one line.
#[test]
fn a_file_with_old_mac_line_ends_has_all_its_rows() {
    let directory = workshop();
    let at = directory.path();
    json(&on_file("films.tsv", "run", "--epochs 2 --max-seq-len 12"), at);
    fs::write(at.join("mac.csv"), "text,label\ra good film,good\ra bad film,bad\ra poor film,bad\r").unwrap();
    fs::write(at.join("unix.csv"), "text,label\na good film,good\na bad film,bad\na poor film,bad\n").unwrap();
    for line in ["evaluate --model run --data FILE --json --quiet", "predict --model run --input FILE --json --quiet"] {
        assert_eq!(succeed(&line.replace("FILE", "mac.csv"), at), succeed(&line.replace("FILE", "unix.csv"), at));
    }
}
