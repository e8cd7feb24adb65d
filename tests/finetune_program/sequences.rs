//! Tasks on whole texts: classification, regression and multi-label.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{fail, in_row, json, objects, run, succeed, success, text};
use crate::{WORDS, on_file, train, workshop};

#[test]
fn classification_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    let summary = json(&train("run", "--batch-size 8 --max-seq-len 12"), at);
    assert_eq!(summary["eval"]["accuracy"], 1.0, "{summary}");
    assert_eq!(summary["test"]["accuracy"], 1.0, "{summary}");
    assert!(summary["best_epoch"].as_u64().unwrap() >= 1);

    let metrics = json("evaluate --model run --data films.tsv --json --quiet --predictions out.jsonl", at);
    assert_eq!((&metrics["accuracy"], &metrics["examples"]), (&Value::from(1.0), &Value::from(64)));
    for name in ["f1", "macro_f1", "mcc", "precision", "recall", "loss"] {
        assert!(metrics[name].is_number(), "{name}: {metrics}");
    }
    assert_eq!(fs::read_to_string(at.join("out.jsonl")).unwrap().lines().count(), 64);

    let answer = json("predict --model run 'a fine book' --json --quiet", at);
    assert_eq!(answer["label"], "good");
    let probabilities = answer["probabilities"].as_object().unwrap();
    let sum: f64 = probabilities.values().filter_map(Value::as_f64).sum();
    assert!(probabilities.len() == 2 && (sum - 1.0).abs() < 1e-5, "{answer}");

    let texts = "a poor film\na good book which nobody of us could finish in a single night .\n\na bad film\n";
    fs::write(at.join("texts.txt"), texts).unwrap();
    let answers = objects(&succeed("predict --model run --input texts.txt --json --quiet", at));
    assert_eq!(answers.len(), 4, "one answer a line, in order");
    assert_eq!((&answers[0]["label"], &answers[3]["label"]), (&"bad".into(), &"bad".into()));
    let output = run("predict --model run --input texts.txt --quiet", at);
    assert_eq!(text(&output.stderr), "warning: 1 text longer than 12 tokens was truncated: row 2\n");
}

#[test]
fn a_trained_head_is_used_on_other_tables_and_goes_on_learning() {
    let directory = workshop();
    let at = directory.path();
    json(&train("run", "--batch-size 8 --max-seq-len 12"), at);
    // Another table, with different columns, and with label indices instead of names.
    fs::write(at.join("other.csv"), "y,review\n1,a good film\n0,a bad film\n0,a poor book\n").unwrap();
    let elsewhere = "evaluate --model run --data other.csv --text review --label y --json --quiet";
    let metrics = json(elsewhere, at);
    assert_eq!((&metrics["accuracy"], &metrics["examples"]), (&Value::from(1.0), &Value::from(3)));
    fs::write(at.join("other.csv"), "y,review\n2,a good film\n").unwrap();
    let message = fail(elsewhere, at, 1);
    assert!(message.contains("other.csv:2: found the label \"2\", expected one of bad, good"), "{message}");

    // Texts in a table without a header need no label.
    fs::write(at.join("bare.csv"), "1,a good film\n2,a bad film\n").unwrap();
    let answers = objects(&succeed("predict --model run --input bare.csv --no-header --text 2 --json --quiet", at));
    assert_eq!((&answers[0]["label"], &answers[1]["label"]), (&"good".into(), &"bad".into()));

    // The head continues to learn, regardless of the order of its labels; a head for other labels is replaced.
    let onward = |output: &str| {
        let data = "train --model run --train films.tsv --eval films.tsv --lr 0 --epochs 1";
        run(&format!("{data} --device flex --seed 43 --json -o {output}"), at)
    };
    let accuracy = |output: &std::process::Output| objects(&success(output))[0]["eval"]["accuracy"].as_f64().unwrap();
    assert_eq!(accuracy(&onward("onward")), 1.0);
    let config = fs::read_to_string(at.join("run/config.json")).unwrap();
    fs::write(at.join("run/config.json"), config.replace("\"bad\"", "\"?\"").replace("\"good\"", "\"!\"")).unwrap();
    let other = onward("other");
    assert!(text(&other.stderr).contains("its task head has different labels"));
    assert!(accuracy(&other) < 1.0);
}

/// Whether the second text is "film", regardless of the first one.
#[test]
fn pairs_of_texts() {
    let directory = workshop();
    let at = directory.path();
    let things = ["film", "book"];
    let rows = (0..64).map(|i| {
        let (thing, asked) = (things[i % 2], things[i / 2 % 2]);
        format!("a {} {thing}\t{asked}\t{}\n", WORDS[i / 4 % 4], if asked == "film" { "yes" } else { "no" })
    });
    fs::write(at.join("pairs.tsv"), "text\tpair\tlabel\n".to_string() + &rows.collect::<String>()).unwrap();
    let options = "--text-pair pair --epochs 30 --max-seq-len 12 --lr 1e-3";
    let summary = json(&on_file("pairs.tsv", "pairs", options), at);
    assert!(summary["eval"]["accuracy"].as_f64().unwrap() > 0.9, "{summary}");
    let answer = json("predict --model pairs --json --quiet 'a good film' --pair film", at);
    fs::write(at.join("pairs.txt"), "a good film\tfilm\n").unwrap();
    fs::write(at.join("pairs.jsonl"), "{\"pair\": \"film\", \"text\": \"a good film\"}\n").unwrap();
    for file in ["pairs.txt", "pairs.jsonl"] {
        let found = json(&format!("predict --model pairs --json --quiet --input {file}"), at);
        assert_eq!(found, in_row(1, &answer), "{file}");
    }
    let message = fail("predict --model pairs --json --quiet 'a good film' film", at, 2);
    assert!(message.contains("pass the second text with --pair"), "{message}");
}

#[test]
fn regression_and_multi_label() {
    let directory = workshop();
    let at = directory.path();
    let (mut values, mut sets) = (String::from("text,score\n"), String::from("text,labels\n"));
    for i in 0..64 {
        let (word, thing) = (WORDS[i % 4], ["film", "book"][i / 4 % 2]);
        values += &format!("a {word} film,{}\n", [1.0, 0.5, -0.5, -1.0][i % 4]);
        sets += &format!("a {word} {thing},{thing}{}\n", ["|good", "|good", "", ""][i % 4]);
    }
    fs::write(at.join("values.csv"), values).unwrap();
    fs::write(at.join("sets.csv"), sets).unwrap();
    let common = "--epochs 40 --max-seq-len 12 --lr 1e-3";
    let regression = on_file("values.csv", "value", &format!("--task regression --label score {common}"));
    let summary = json(&regression, at);
    assert!(summary["eval"]["pearson"].as_f64().unwrap() > 0.95, "{summary}");
    let value = |text: &str| {
        let answer = json(&format!("predict --model value '{text}' --json --quiet"), at);
        answer["value"].as_f64().unwrap()
    };
    assert!(value("a good film") > value("a poor film") && value("a fine film") > value("a bad film"));

    let multi = on_file("sets.csv", "set", &format!("--task multi-label --label labels {common}"));
    let summary = json(&multi, at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 0.95, "{summary}");
    let answer = json("predict --model set 'a good book' --json --quiet", at);
    assert_eq!(answer["labels"], value!(["book", "good"]), "{answer}");
    let loss = summary["eval"]["loss"].as_f64().unwrap();
    assert!(loss > 0.0 && loss < 0.3, "{summary}");

    // With a column for each label, a label that no training text has is still a label.
    let rows = "a good film,1,0\na bad film,0,0\n".repeat(4);
    fs::write(at.join("flags.csv"), format!("text,good,rare\n{rows}")).unwrap();
    for (output, columns) in [("flags", "good,rare"), ("numbers", "2,3")] {
        json(&on_file("flags.csv", output, &format!("--task multi-label --label {columns} --epochs 1")), at);
        let answer = json(&format!("predict --model {output} 'a good book' --json --quiet"), at);
        assert_eq!(answer["probabilities"].as_object().unwrap().keys().collect::<Vec<_>>(), ["good", "rare"]);
    }
}
