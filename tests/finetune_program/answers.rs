//! Answers appear as texts arrive, and each can be matched to its row.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{converse, feed, json, lines, object, objects, run, succeed, success, text};
use crate::{CHOICE, on_file, train, two_questions, workshop};

const TABLE: &str = "id,text,label\n7,a good film,x\n8,a bad film,y\n";

/// The values of a field in lines of JSON.
fn field(lines: &[Value], name: &str) -> Vec<Value> {
    lines.iter().map(|line| line[name].clone()).collect()
}

/// A program that writes a text and waits for its answer gets it while the input is still open.
#[test]
fn an_answer_comes_before_the_next_text() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    let answers = converse("predict --model run - --quiet", at, &["a good film", "a bad film"]);
    assert!(answers[0].starts_with("good ") && answers[1].starts_with("bad "), "{answers:?}");
    let records = ["{\"text\": \"a film\"}", "{\"text\": \"a book\"}"];
    let answers = converse("embed --model model - --input-format jsonl --quiet", at, &records);
    let texts: Vec<Value> = answers.iter().flat_map(|answer| field(&objects(answer), "text")).collect();
    assert_eq!(texts, ["a film", "a book"]);
}

/// The answers and their order do not depend on how texts are divided into batches.
#[test]
fn batches_of_any_size_give_the_same_answers() {
    let directory = workshop();
    let at = directory.path();
    let texts: String = (0..40).map(|i| format!("a {} film number {i}\n", ["good", "bad"][i % 2])).collect();
    fs::write(at.join("texts.txt"), &texts).unwrap();
    let embed = |more: &str| objects(&succeed(&format!("embed --model model --quiet {more}"), at));
    let expected = embed("--input texts.txt");
    for found in [
        embed("--input texts.txt --batch-size 1"),
        embed("--input texts.txt --batch-size 7"),
        objects(&success(&feed("embed --model model - --quiet", at, &texts))),
    ] {
        assert_eq!(field(&found, "row"), (1..=40).map(Value::from).collect::<Vec<_>>());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found["text"], expected["text"]);
            let numbers = |line: &Value| -> Vec<f64> {
                line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
            };
            assert!(numbers(found).iter().zip(numbers(expected)).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}

/// Regression test: a table from a pipe was embedded line by line, including its labels.
#[test]
fn a_table_from_stdin_has_columns_in_every_command() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    let rows = "good\ta good film\nbad\ta bad film\n";
    let columns = "--input-format tsv --no-header --text 2 --quiet";
    let embedded = objects(&success(&feed(&format!("embed --model model - {columns}"), at, rows)));
    assert_eq!(field(&embedded, "text"), ["a good film", "a bad film"]);
    let predicted = success(&feed(&format!("predict --model run - {columns} --json"), at, rows));
    assert_eq!(field(&objects(&predicted), "label"), ["good", "bad"]);
    let judged = success(&feed(&format!("evaluate --model run --data - {columns} --label 1 --json"), at, rows));
    assert_eq!((&objects(&judged)[0]["accuracy"], &objects(&judged)[0]["examples"]), (&value!(1.0), &value!(2)));
    // Without a given format, the first line determines it.
    let lines = "{\"text\": \"a good film\", \"label\": \"good\"}\n";
    let judged = success(&feed("evaluate --model run --data - --json --quiet", at, lines));
    assert_eq!(objects(&judged)[0]["examples"], 1);
    // The annotated answers to a text are in the file.
    let tags = "good B-X\nfilm O\n\n";
    fs::write(at.join("tags.conll"), tags.repeat(8)).unwrap();
    json(&on_file("tags.conll", "tags", "--task tagging --epochs 1"), at);
    let judged = success(&feed("evaluate --model tags --data - --json --quiet", at, tags));
    assert_eq!(objects(&judged)[0]["examples"], 1);
}

#[test]
fn columns_are_carried_into_answers() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    fs::write(at.join("films.csv"), TABLE).unwrap();
    fs::write(at.join("films.jsonl"), "{\"text\": \"a good film\", \"id\": {\"a\": 1}}\n{\"text\": \"a\"}\n").unwrap();
    let answers = objects(&succeed("predict --model run --input films.csv --keep id,label --json --quiet", at));
    assert_eq!(field(&answers, "row"), [1, 2]);
    assert_eq!(field(&answers, "id"), ["7", "8"]);
    // If an answer already has a field of that name, the field keeps its name.
    assert_eq!(
        (field(&answers, "input_label"), field(&answers, "label")),
        (vec!["x".into(), "y".into()], vec!["good".into(), "bad".into()])
    );
    let plain = succeed("predict --model run --input films.csv --keep id --quiet", at);
    let starts: Vec<&str> = plain.lines().filter_map(|line| line.rsplit_once(' ')).map(|(start, _)| start).collect();
    assert_eq!(starts, ["7\tgood", "8\tbad"]);
    let answers = objects(&succeed("predict --model run --input films.jsonl --keep id --json --quiet", at));
    assert_eq!(field(&answers, "id"), [value!({"a": 1}), Value::Null]);

    let embedded = objects(&succeed("embed --model model --input films.csv --keep id --quiet", at));
    assert_eq!(
        (field(&embedded, "row"), field(&embedded, "id")),
        (vec![value!(1), value!(2)], vec![value!("7"), value!("8")])
    );
    succeed("embed --model model --input films.csv --keep id -o new/vectors.jsonl --quiet", at);
    assert_eq!(lines(at.join("new/vectors.jsonl")), embedded);

    // Tagged words have a row number, too.
    fs::write(at.join("tags.conll"), "good B-X\nfilm O\n\n".repeat(8)).unwrap();
    json(&on_file("tags.conll", "tags", "--task tagging --epochs 1"), at);
    let words = "{\"words\": [\"a\"], \"id\": 5}\n{\"text\": \"a film\", \"id\": 6}\n";
    let tagged = "predict --model tags - --input-format jsonl --keep id --json --quiet";
    let tagged = objects(&success(&feed(tagged, at, words)));
    assert_eq!((field(&tagged, "row"), field(&tagged, "id")), (vec![value!(1), value!(2)], vec![value!(5), value!(6)]));
    assert_eq!(tagged[1]["words"], value!(["a", "film"]));
}

#[test]
fn predictions_have_row_text_truth_and_answer() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12 --predictions out/test.jsonl"), at);
    let of_test = lines(at.join("out/test.jsonl"));
    assert_eq!(of_test.len(), 64);
    let first = &of_test[0];
    assert_eq!([&first["row"], &first["text"]], [&value!(1), &value!("a good film")]);
    assert_eq!([&first["expected"], &first["label"]], [&value!("good"), &value!("good")]);

    fs::write(at.join("films.csv"), "id,text,label\n7,a good film,bad\n8,a bad film,bad\n").unwrap();
    let evaluate = "evaluate --model run --data films.csv --predictions out.jsonl --keep id --json --quiet";
    assert_eq!(json(evaluate, at)["accuracy"], 0.5);
    let predictions = lines(at.join("out.jsonl"));
    assert_eq!(
        (field(&predictions, "row"), field(&predictions, "id")),
        (vec![value!(1), value!(2)], vec![value!("7"), value!("8")])
    );
    assert_eq!(
        (field(&predictions, "expected"), field(&predictions, "label")),
        (vec![value!("bad"); 2], vec![value!("good"), value!("bad")])
    );

    // The rows of held-out examples are those of the training file.
    succeed(
        "train --model model --train films.tsv --epochs 1 --device flex --quiet -o held --predictions held.jsonl",
        at,
    );
    let films = fs::read_to_string(at.join("films.tsv")).unwrap();
    let films: Vec<&str> = films.lines().skip(1).collect();
    let held_out = lines(at.join("held.jsonl"));
    assert_eq!(held_out.len(), object(at.join("held/run.json"))["examples"]["eval"].as_u64().unwrap() as usize);
    for line in &held_out {
        let row = films[line["row"].as_u64().unwrap() as usize - 1];
        assert_eq!(row, format!("{}\t{}", line["text"].as_str().unwrap(), line["expected"].as_str().unwrap()));
    }
}

/// The predictions of every task contain the input and the expected answer.
#[test]
fn predictions_of_every_task_tell_what_was_expected() {
    let directory = workshop();
    let at = directory.path();
    let row = |first: &str, second: &str| format!("a {first} film,{second}\n");
    for (file, content, options, expected) in [
        (
            "values.csv",
            format!("text,label\n{}", row("good", "0.1") + &row("bad", "3")),
            "--task regression",
            value!(0.1),
        ),
        (
            "sets.csv",
            format!("text,label\n{}", row("good", "x|y") + &row("bad", "")),
            "--task multi-label",
            value!(["x", "y"]),
        ),
        ("tags.conll", "good B-X\nfilm O\n\n".repeat(2), "--task tagging", value!(["B-X", "O"])),
        ("squad.json", two_questions(), "--task question-answering", value!(["bad"])),
        ("choices.jsonl", CHOICE.repeat(2), "--task multiple-choice --choices a,b", value!(1)),
    ] {
        fs::write(at.join(file), content).unwrap();
        json(&on_file(file, "run", &format!("{options} --epochs 1 --overwrite")), at);
        json(&format!("evaluate --model run --data {file} --predictions out.jsonl --json --quiet"), at);
        let first = &lines(at.join("out.jsonl"))[0];
        assert_eq!([&first["row"], &first["expected"]], [&value!(1), &expected], "{file}: {first}");
        assert!(first["text"].is_string() || first["question"].is_string(), "{file}: {first}");
        let predicted = ["value", "labels", "tags", "answer", "choice"].iter().filter(|name| !first[**name].is_null());
        assert_eq!(predicted.count(), 1, "{file}: {first}");
    }
}

#[test]
fn truncated_texts_are_named_by_their_rows() {
    let directory = workshop();
    let at = directory.path();
    let long = "a good film . ".repeat(9);
    fs::write(at.join("texts.txt"), format!("a film\n{long}\n").repeat(7)).unwrap();
    let output = run("embed --model model --input texts.txt --quiet -o x.npy --batch-size 3", at);
    let expected = "warning: 7 texts longer than 16 tokens were truncated: rows 2, 4, 6, 8, 10, …\n";
    assert_eq!(text(&output.stderr), expected);
    let output = run(&format!("embed --model model 'a film' '{long}' --quiet"), at);
    assert_eq!(text(&output.stderr), "warning: 1 text longer than 16 tokens was truncated: text 2\n");
    succeed(&train("run", "--max-seq-len 12"), at);
    fs::write(at.join("long.tsv"), format!("text\tlabel\na film\tgood\n{long}\tbad\n")).unwrap();
    let output = run("evaluate --model run --data long.tsv --quiet", at);
    assert_eq!(text(&output.stderr), "warning: 1 text longer than 12 tokens was truncated: row 2\n");
}
