//! Promise: `bert-finetune` trains, evaluates, predicts and embeds as its help says, and names what is wrong.

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::io::Write;
use std::path::Path;

use bert_model::text::tokenizer::Normalization;
use bert_model::{BertConfig, BertForPreTraining, Pretrained, Tokenizer, save};
use burn::tensor::Device;
use program::{json, succeed};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-finetune");

const WORDS: [&str; 8] = ["good", "fine", "bad", "poor", "a", "film", "book", "."];

/// A directory with a tiny random model and a labeled table that four words decide.
fn workshop() -> TempDir {
    let directory = TempDir::new().unwrap();
    let pieces: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].iter().chain(&WORDS).map(|piece| piece.to_string()).collect();
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
    let config = BertConfig {
        hidden_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 64,
        max_position_embeddings: 16,
        // Wide enough that so small a model learns within a few steps.
        initializer_range: 0.2,
        ..BertConfig::default()
    }
    .with_vocab_size(pieces.len());
    let model = BertForPreTraining::init_seeded(&config, 1, &Device::flex());
    save(directory.path().join("model"), &model, &config, &tokenizer).unwrap();
    let rows: String = (0..64)
        .map(|i| format!("a {} {}\t{}\n", WORDS[i % 4], ["film", "book"][i / 4 % 2], ["good", "bad"][i % 4 / 2]))
        .collect();
    fs::write(directory.path().join("films.tsv"), format!("text\tlabel\n{rows}")).unwrap();
    directory
}

/// Runs what should fail; gives stderr.
fn fail(arguments: &[&str], directory: &Path) -> String {
    program::fail(arguments, directory, 1)
}

const TRAIN: [&str; 18] = [
    "train",
    "--model",
    "model",
    "--train",
    "films.tsv",
    "--eval",
    "films.tsv",
    "--test",
    "films.tsv",
    "--lr",
    "3e-3",
    "--epochs",
    "8",
    "--device",
    "flex",
    "--quiet",
    "--json",
    "-o",
];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], more].concat()
}

#[test]
fn classification_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    let summary = json(&train(&["run", "--batch-size", "8", "--max-seq-len", "12"]), at);
    assert_eq!(summary["eval"]["accuracy"], 1.0, "{summary}");
    assert_eq!(summary["test"]["accuracy"], 1.0, "{summary}");
    assert!(summary["best_epoch"].as_u64().unwrap() >= 1);

    let metrics = json(
        &["evaluate", "--model", "run", "--data", "films.tsv", "--json", "--quiet", "--predictions", "out.jsonl"],
        at,
    );
    assert_eq!((&metrics["accuracy"], &metrics["examples"]), (&Value::from(1.0), &Value::from(64)));
    for name in ["f1", "macro_f1", "mcc", "precision", "recall", "loss"] {
        assert!(metrics[name].is_number(), "{name}: {metrics}");
    }
    assert_eq!(fs::read_to_string(at.join("out.jsonl")).unwrap().lines().count(), 64);

    let answer = json(&["predict", "--model", "run", "a fine book", "--json", "--quiet"], at);
    assert_eq!(answer["label"], "good");
    let probabilities = answer["probabilities"].as_object().unwrap();
    let sum: f64 = probabilities.values().filter_map(Value::as_f64).sum();
    assert!(probabilities.len() == 2 && (sum - 1.0).abs() < 1e-5, "{answer}");

    fs::write(
        at.join("texts.txt"),
        "a poor film\na good book which nobody of us could finish in a single night .\n\na bad film\n",
    )
    .unwrap();
    let answers = succeed(&["predict", "--model", "run", "--input", "texts.txt", "--json", "--quiet"], at);
    let labels: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["label"].clone()).collect();
    assert_eq!(labels.len(), 4, "one answer a line, in order");
    assert_eq!((&labels[0], &labels[3]), (&Value::from("bad"), &Value::from("bad")));
    let output = program::run(&["predict", "--model", "run", "--input", "texts.txt", "--quiet"], at);
    assert!(program::text(&output.stderr).contains("1 text(s) longer than the model reads"));

    // Another table, with other columns and with the numbers of the labels instead of their names.
    fs::write(at.join("other.csv"), "y,review\n1,a good film\n0,a bad film\n0,a poor book\n").unwrap();
    let elsewhere = ["--data", "other.csv", "--text", "review", "--label", "y", "--json", "--quiet"];
    let metrics = json(&[&["evaluate", "--model", "run"][..], &elsewhere].concat(), at);
    assert_eq!((&metrics["accuracy"], &metrics["examples"]), (&Value::from(1.0), &Value::from(3)));
    fs::write(at.join("other.csv"), "y,review\n2,a good film\n").unwrap();
    let message = fail(&[&["evaluate", "--model", "run"][..], &elsewhere].concat(), at);
    assert!(message.contains("other.csv:2: found the label \"2\", expected one of bad, good"), "{message}");

    // Texts in a table without a header need no label.
    fs::write(at.join("bare.csv"), "1,a good film\n2,a bad film\n").unwrap();
    let bare = ["predict", "--model", "run", "--input", "bare.csv", "--no-header", "--text", "2", "--json", "--quiet"];
    let labels: Vec<Value> =
        succeed(&bare, at).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["label"].clone()).collect();
    assert_eq!(labels, ["good", "bad"]);

    // The head goes on learning what it learned, whatever the order of its labels; one for other labels does not.
    let onward = |model: &str, more: &[&str], output: &str| {
        let arguments = ["train", "--model", model, "--train", "films.tsv", "--eval", "films.tsv", "--lr", "0"];
        let run = ["--epochs", "1", "--device", "flex", "--seed", "43", "--json", "-o", output];
        program::run(&[&arguments[..], &run, more].concat(), at)
    };
    let accuracy = |output: &std::process::Output| {
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["eval"]["accuracy"].as_f64().unwrap()
    };
    assert_eq!(accuracy(&onward("run", &[], "onward")), 1.0);
    let config = fs::read_to_string(at.join("run/config.json")).unwrap();
    fs::write(at.join("run/config.json"), config.replace("\"bad\"", "\"?\"").replace("\"good\"", "\"!\"")).unwrap();
    let other = onward("run", &[], "other");
    assert!(program::text(&other.stderr).contains("its head is for other labels and stays behind"));
    assert!(accuracy(&other) < 1.0);
}

/// Whether the second text is "film", whatever the first one is about.
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
    let pairs = ["--text-pair", "pair", "--epochs", "30", "--max-seq-len", "12", "--lr", "1e-3"];
    let summary = json(&on_file("pairs.tsv", "pairs", &pairs), at);
    assert!(summary["eval"]["accuracy"].as_f64().unwrap() > 0.9, "{summary}");
    let predict = ["predict", "--model", "pairs", "--json", "--quiet"];
    let answer = json(&[&predict[..], &["a good film", "--pair", "film"]].concat(), at);
    fs::write(at.join("pairs.txt"), "a good film\tfilm\n").unwrap();
    fs::write(at.join("pairs.jsonl"), "{\"pair\": \"film\", \"text\": \"a good film\"}\n").unwrap();
    for file in ["pairs.txt", "pairs.jsonl"] {
        assert_eq!(json(&[&predict[..], &["--input", file]].concat(), at), answer, "{file}");
    }
    let message = program::fail(&[&predict[..], &["a good film", "film"]].concat(), at, 2);
    assert!(message.contains("give the second text with --pair"), "{message}");
    let message = program::fail(&on_file("films.tsv", "x", &["--freeze", "9"]), at, 2);
    assert!(message.contains("--freeze: found 9"), "{message}");
}

#[test]
fn regression_and_multi_label() {
    let directory = workshop();
    let at = directory.path();
    let (mut values, mut sets) = (String::from("text,score\n"), String::from("text,labels\n"));
    for i in 0..64 {
        values += &format!("a {} film,{}\n", WORDS[i % 4], [1.0, 0.5, -0.5, -1.0][i % 4]);
        sets += &format!(
            "a {} {},{}\n",
            WORDS[i % 4],
            ["film", "book"][i / 4 % 2],
            ["film", "book"][i / 4 % 2].to_owned() + ["|good", "|good", "", ""][i % 4]
        );
    }
    fs::write(at.join("values.csv"), values).unwrap();
    fs::write(at.join("sets.csv"), sets).unwrap();
    let common = [
        "--epochs",
        "40",
        "--batch-size",
        "8",
        "--max-seq-len",
        "12",
        "--lr",
        "1e-3",
        "--device",
        "flex",
        "--quiet",
        "--json",
    ];
    let regression = [
        "train",
        "--task",
        "regression",
        "--model",
        "model",
        "--train",
        "values.csv",
        "--eval",
        "values.csv",
        "--label",
        "score",
        "-o",
        "value",
    ];
    let summary = json(&[&regression[..], &common].concat(), at);
    assert!(summary["eval"]["pearson"].as_f64().unwrap() > 0.95, "{summary}");
    let value =
        |text: &str| json(&["predict", "--model", "value", text, "--json", "--quiet"], at)["value"].as_f64().unwrap();
    assert!(value("a good film") > value("a poor film") && value("a fine film") > value("a bad film"));

    let multi = [
        "train",
        "--task",
        "multi-label",
        "--model",
        "model",
        "--train",
        "sets.csv",
        "--eval",
        "sets.csv",
        "--label",
        "labels",
        "-o",
        "set",
    ];
    let summary = json(&[&multi[..], &common].concat(), at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 0.95, "{summary}");
    let answer = json(&["predict", "--model", "set", "a good book", "--json", "--quiet"], at);
    assert_eq!(answer["labels"], serde_json::json!(["book", "good"]), "{answer}");
    let loss = summary["eval"]["loss"].as_f64().unwrap();
    assert!(loss > 0.0 && loss < 0.3, "{summary}");

    // A column for each label: one that no training text has is a label all the same.
    let rows = "a good film,1,0\na bad film,0,0\n".repeat(4);
    fs::write(at.join("flags.csv"), format!("text,good,rare\n{rows}")).unwrap();
    let flags = ["train", "--task", "multi-label", "--model", "model", "--train", "flags.csv", "--eval", "flags.csv"];
    let common = ["--label", "good,rare", "--epochs", "1", "--device", "flex", "--quiet", "--json", "-o", "flags"];
    json(&[&flags[..], &common].concat(), at);
    let answer = json(&["predict", "--model", "flags", "a good book", "--json", "--quiet"], at);
    assert_eq!(answer["probabilities"].as_object().unwrap().keys().collect::<Vec<_>>(), ["good", "rare"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_resuming_changes_none() {
    let directory = workshop();
    let at = directory.path();
    for name in ["a", "b"] {
        succeed(&train(&[name, "--max-seq-len", "12"]), at);
    }
    let weights = |name: &str| fs::read(at.join(name).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "two runs with one seed differ");
    let before = weights("a");
    succeed(&train(&["a", "--max-seq-len", "12", "--resume"]), at);
    assert!(before == weights("a"), "resuming a finished run changed it");
    // From the checkpoint before a damaged one.
    let checkpoints = fs::read_dir(at.join("a/checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(newest.join("model.safetensors"), "no").unwrap();
    let output = program::run(&train(&["a", "--max-seq-len", "12", "--resume"]), at);
    let message = program::text(&output.stderr);
    assert!(output.status.success() && message.contains("damaged checkpoint passed over"), "{message}");
    assert!(before == weights("a"), "resuming from the checkpoint before changed it");
}

#[test]
fn embeddings_in_every_format() {
    let directory = workshop();
    let at = directory.path();
    let embed = |more: &[&'static str]| {
        let common = ["embed", "--model", "model", "a good film", "a book", "--device", "flex", "--quiet"];
        succeed(&[&common[..], more].concat(), at)
    };
    let lines: Vec<Value> = embed(&[]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["text"]), (2, &Value::from("a book")));
    let vector =
        |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<_>>();
    let expected = vector(&lines[1]["embedding"]);
    assert_eq!(expected.len(), 32);

    embed(&["-o", "out.npy"]);
    let bytes = fs::read(at.join("out.npy")).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && bytes.len() == 128 + 2 * 32 * 4);
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'shape': (2, 32)"));
    let found: Vec<f32> = bytes[128 + 32 * 4..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));

    embed(&["-o", "out.safetensors", "--layers", "-2..-1", "--normalize"]);
    let bytes = fs::read(at.join("out.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("embeddings").unwrap().shape(), [2, 64]);

    let tokens: Value = serde_json::from_str(embed(&["--pooling", "none"]).lines().next().unwrap()).unwrap();
    assert_eq!(tokens["tokens"], serde_json::json!(["[CLS]", "a", "good", "film", "[SEP]"]));
    assert_eq!(tokens["embedding"].as_array().unwrap().len(), 5);
    for pooling in ["cls", "max", "pooler"] {
        embed(&["--pooling", pooling]);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("one.tsv"), "text\tlabel\na\tgood\nb\tgood\n").unwrap();
    fs::write(at.join("other.tsv"), "text\tlabel\na good film\tgreat\n").unwrap();
    fs::write(at.join("numbers.tsv"), "text\tlabel\na\t0.5\n").unwrap();
    fs::write(at.join("empty.tsv"), "").unwrap();
    fs::write(at.join("latin.tsv"), b"text\tlabel\ncaf\xe9\tgood\n").unwrap();
    let with = |file: &'static str| {
        ["train", "--model", "model", "--train", file, "--max-seq-len", "12", "-o", "x", "--quiet"]
    };
    for (arguments, expected) in [
        (&with("one.tsv")[..], "one label only, \"good\""),
        (&with("empty.tsv"), "empty.tsv"),
        (&with("latin.tsv"), "latin.tsv:2"),
        (&with("nowhere.tsv"), "nowhere.tsv: cannot"),
        (
            &["train", "--model", "model", "--train", "films.tsv", "--max-seq-len", "128", "-o", "x", "--quiet"],
            "--max-seq-len 128 does not fit",
        ),
        (
            &[
                "train",
                "--model",
                "model",
                "--train",
                "films.tsv",
                "--text",
                "sentence",
                "-o",
                "x",
                "--max-seq-len",
                "12",
            ],
            "sentence",
        ),
        (
            &[
                "train",
                "--model",
                "model",
                "--train",
                "films.tsv",
                "--eval",
                "other.tsv",
                "-o",
                "x",
                "--max-seq-len",
                "12",
            ],
            "other.tsv:2: found the label \"great\", expected one of bad, good",
        ),
        (
            &[
                "train",
                "--model",
                "model",
                "--train",
                "numbers.tsv",
                "--task",
                "regression",
                "--max-seq-len",
                "12",
                "-o",
                "x",
            ],
            "numbers.tsv: found 1 example(s), expected more",
        ),
        (
            &["train", "--model", "model", "--train", "films.tsv", "--max-seq-len", "12", "--overwrite", "-o", "model"],
            "an input within the run directory",
        ),
        (&["predict", "--model", "model", "x"], "a fine-tuned model"),
        (&["train", "--train", "films.tsv", "-o", "x"], "--model DIR is needed"),
        (&["embed", "--model", "nowhere", "x"], "nowhere"),
    ] {
        let code = if expected.ends_with("is needed") { 2 } else { 1 };
        let message = program::fail(arguments, at, code);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    assert!(!at.join("x").exists(), "nothing is left behind by a run that never began");
}

/// Arguments of a training run on a file, in the workshop.
fn on_file<'a>(file: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["train", "--model", "model", "--train", file, "--eval", file, "--batch-size", "8"];
    let rate: &[&str] = if more.contains(&"--lr") { &[] } else { &["--lr", "3e-3"] };
    [&usual[..], &["--device", "flex", "--quiet", "--json", "-o", output], rate, more].concat()
}

#[test]
fn tagging_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    // IOB1, as CoNLL-2003 has it; a title is "good film" or "fine book", and everything else is outside.
    let sentence = |i: usize| match i % 3 {
        0 => "a O\ngood I-TITLE\nfilm I-TITLE\n. O\n\n",
        1 => "fine I-TITLE\nbook I-TITLE\ngood B-TITLE\nfilm I-TITLE\n\n",
        _ => "a O\nbad O\nfilm O\n\n",
    };
    let text: String = (0..48).map(sentence).collect();
    fs::write(at.join("titles.conll"), format!("-DOCSTART- O\n\n{text}")).unwrap();
    let summary = json(&on_file("titles.conll", "tags", &["--task", "tagging", "--epochs", "12"]), at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 0.95, "{summary}");

    let metrics = json(&["evaluate", "--model", "tags", "--data", "titles.conll", "--json", "--quiet"], at);
    assert_eq!((&metrics["f1"], &metrics["examples"]), (&summary["eval"]["f1"], &Value::from(48)));
    let answer = json(&["predict", "--model", "tags", "a good film .", "--json", "--quiet"], at);
    assert_eq!(answer["words"], serde_json::json!(["a", "good", "film", "."]));
    let entity = &answer["entities"][0];
    assert_eq!((&entity["type"], &entity["text"]), (&Value::from("TITLE"), &Value::from("good film")), "{answer}");
    assert_eq!((&entity["start"], &entity["end"]), (&Value::from(2), &Value::from(11)), "{answer}");
    // A sentence far longer than the model: every word gets a tag.
    let long = "a good film . ".repeat(30);
    let answer = json(&["predict", "--model", "tags", &long, "--json", "--quiet"], at);
    assert_eq!(answer["tags"].as_array().unwrap().len(), 120);

    fs::write(at.join("texts.csv"), "text\n\"a good, film\"\n").unwrap();
    fs::write(at.join("texts.jsonl"), "{\"text\": \"a good, film\"}\n").unwrap();
    fs::write(at.join("words.jsonl"), "{\"words\": [\"a\", \"good\", \",\", \"film\"]}\n").unwrap();
    for file in ["texts.csv", "texts.jsonl", "words.jsonl"] {
        let found = json(&["predict", "--model", "tags", "--input", file, "--json", "--quiet"], at);
        assert_eq!(found["words"], serde_json::json!(["a", "good", ",", "film"]), "{file}");
    }

    let answer = json(&["predict", "--model", "tags", "a good  film.", "--json", "--quiet"], at);
    assert_eq!(answer["entities"][0]["text"], "good  film", "what stands there: {answer}");
    fs::write(at.join("bodies.csv"), "id,body\n1,a good film\n").unwrap();
    let bodies = ["predict", "--model", "tags", "--input", "bodies.csv", "--text", "body", "--json", "--quiet"];
    assert_eq!(json(&bodies, at)["words"], serde_json::json!(["a", "good", "film"]));
    // Tags by their numbers, as the `datasets` library writes them.
    fs::write(at.join("numbers.jsonl"), "{\"tokens\": [\"a\", \"good\", \"film\"], \"ner_tags\": [2, 0, 1]}\n")
        .unwrap();
    let metrics = json(&["evaluate", "--model", "tags", "--data", "numbers.jsonl", "--json", "--quiet"], at);
    assert_eq!(metrics["f1"], 1.0, "{metrics}");

    // CoNLL-U with another column of tags: words are in the second all the same.
    let row = |id: usize, word: &str, tag: &str| format!("{id}\t{word}\t_\tX\t{tag}\t_\t0\t_\t_\t_\n");
    let text = format!("# text = a film\n{}{}\n", row(1, "a", "DT"), row(2, "film", "NN")).repeat(8);
    fs::write(at.join("tree.conllu"), text).unwrap();
    json(&on_file("tree.conllu", "tree", &["--task", "tagging", "--epochs", "12", "--tag-column", "5"]), at);
    let answers = succeed(&["predict", "--model", "tree", "--input", "tree.conllu", "--json", "--quiet"], at);
    let answer: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&answer["words"], &answer["tags"]),
        (&serde_json::json!(["a", "film"]), &serde_json::json!(["DT", "NN"]))
    );

    fs::write(at.join("odd.conll"), "a O\ngood I-BAND\n").unwrap();
    let message = fail(&["evaluate", "--model", "tags", "--data", "odd.conll", "--quiet"], at);
    assert!(message.contains("odd.conll:2: found the tag \"B-BAND\"") && message.contains("B-TITLE"), "{message}");
}

/// A SQuAD file of questions about films; the last of every three has no answer.
fn questions() -> String {
    let paragraph = |i: usize| {
        let word = ["good", "bad", "poor"][i % 3];
        let answers = match i % 3 {
            2 => serde_json::json!([]),
            _ => serde_json::json!([{"text": word, "answer_start": 2}]),
        };
        let question = if i % 3 == 2 { "book" } else { "film" };
        serde_json::json!({"context": format!("a {word} film ."), "qas": [
            {"id": i.to_string(), "question": question, "answers": answers, "is_impossible": i % 3 == 2}]})
    };
    let paragraphs: Vec<Value> = (0..48).map(paragraph).collect();
    serde_json::json!({"version": "v2.0", "data": [{"title": "films", "paragraphs": paragraphs}]}).to_string()
}

#[test]
fn question_answering_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("questions.json"), questions()).unwrap();
    let task = ["--task", "question-answering", "--epochs", "25", "--max-seq-len", "16", "--doc-stride", "4"];
    let summary = json(&on_file("questions.json", "answers", &task), at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 90.0, "{summary}");
    let metrics = json(&["evaluate", "--model", "answers", "--data", "questions.json", "--json", "--quiet"], at);
    assert_eq!(metrics["exact_match"], summary["eval"]["exact_match"], "the tuned threshold is kept");
    let ask = |question: &str, context: &str| {
        let arguments = ["predict", "--model", "answers", "--question", question, "--context", context];
        json(&[&arguments[..], &["--json", "--quiet"]].concat(), at)
    };
    let answer = ask("film", "a bad film .");
    assert_eq!(
        (&answer["answer"], &answer["start"], &answer["end"]),
        (&"bad".into(), &2.into(), &5.into()),
        "{answer}"
    );
    let none = ask("book", "a poor film .");
    assert!(none["answer"] == "" && none["score"].as_f64().unwrap() > 0.2, "{none}");
    let listed = ["predict", "--model", "answers", "--question", "book", "--context", "a poor film .", "--n-best", "3"];
    let listed = json(&[&listed[..], &["--json", "--quiet"]].concat(), at);
    let n_best = listed["n_best"].as_array().unwrap();
    assert_eq!((n_best.len(), &n_best[0]), (3, &none), "{listed}");
    assert!(n_best.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()), "{listed}");
    assert!(metrics["loss"].as_f64().unwrap() < 1.0, "{metrics}");
    fs::write(at.join("asked.jsonl"), "{\"question\": \"film\", \"context\": \"a bad film .\"}\n").unwrap();
    fs::write(at.join("asked.txt"), "film\ta bad film .\n").unwrap();
    for file in ["asked.jsonl", "asked.txt"] {
        let found = json(&["predict", "--model", "answers", "--input", file, "--json", "--quiet"], at);
        assert_eq!(found, answer, "{file}");
    }
    fs::write(at.join("faq.csv"), "q,passage\nfilm,a bad film .\n").unwrap();
    let elsewhere = ["predict", "--model", "answers", "--input", "faq.csv", "--text", "q", "--text-pair", "passage"];
    assert_eq!(json(&[&elsewhere[..], &["--json", "--quiet"]].concat(), at), answer);

    // A directory from elsewhere does not say whether a question may have no answer; the file does, and the user can.
    let config = fs::read_to_string(at.join("answers/config.json")).unwrap();
    assert!(!config.contains("id2label"), "a head for answers has no classes");
    fs::remove_file(at.join("answers/finetune.json")).unwrap();
    let metrics = json(&["evaluate", "--model", "answers", "--data", "questions.json", "--json", "--quiet"], at);
    assert!(metrics["no_answer"]["f1"].is_number() && metrics["best_f1"].is_number(), "{metrics}");
    assert_eq!(ask("book", "a poor film .")["answer"].as_str().map(str::is_empty), Some(false));
    let eager = ["predict", "--model", "answers", "--question", "film", "--context", "a bad film ."];
    let none = json(&[&eager[..], &["--no-answer-threshold", "-1000", "--json", "--quiet"]].concat(), at);
    assert_eq!(none["answer"], "");

    let wrong = questions().replacen("\"answer_start\":2", "\"answer_start\":3", 1);
    fs::write(at.join("wrong.json"), wrong).unwrap();
    let message = fail(&on_file("wrong.json", "other", &task), at);
    assert!(message.contains("wrong.json") && message.contains("good"), "{message}");
}

#[test]
fn multiple_choice_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    let row = |i: usize| {
        let (right, other) = (["good", "fine"][i / 2 % 2], ["bad", "poor"][i / 4 % 2]);
        let (first, second) = if i.is_multiple_of(2) { (right, other) } else { (other, right) };
        format!("{{\"premise\":\"a film\",\"one\":\"{first}\",\"two\":\"{second}\",\"label\":{}}}\n", i % 2)
    };
    fs::write(at.join("choices.jsonl"), (0..48).map(row).collect::<String>()).unwrap();
    let task = ["--task", "multiple-choice", "--text", "premise", "--choices", "one,two", "--epochs", "10"];
    let summary = json(&on_file("choices.jsonl", "chooser", &task), at);
    assert_eq!(summary["eval"]["accuracy"], 1.0, "{summary}");
    let arguments =
        ["predict", "--model", "chooser", "a film", "--choice", "poor", "--choice", "fine", "--json", "--quiet"];
    assert_eq!(json(&arguments, at)["choice"], 1);
    // From the standard input as lines of JSON.
    fs::write(at.join("asked"), "{\"premise\":\"a film\",\"one\":\"fine\",\"two\":\"poor\"}\n").unwrap();
    let stdin = fs::File::open(at.join("asked")).unwrap();
    let mut command = program::command(&["predict", "--model", "chooser", "-", "--json", "--quiet"], at);
    let answer: Value = serde_json::from_slice(&command.stdin(stdin).output().unwrap().stdout).unwrap();
    assert_eq!(answer["choice"], 0);
    // What this model is not asked with is refused.
    let message = program::fail(&["predict", "--model", "chooser", "--question", "why?", "--context", "a film"], at, 2);
    assert!(message.contains("--question has no use here"), "{message}");
    let arguments = ["predict", "--model", "chooser", "--input", "choices.jsonl", "--choice", "fine"];
    let message = program::fail(&arguments, at, 2);
    assert!(message.contains("--choice has no use here"), "{message}");
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
    let cases: [(&str, &[&str], bool); 5] = [
        ("frozen", &["--freeze", "encoder", "--lr", "3e-2", "--epochs", "30"], false),
        ("embeddings", &["--freeze", "embeddings", "--epochs", "8"], true),
        ("layer", &["--freeze", "1", "--lr", "1e-2", "--epochs", "30"], false),
        ("lora", &["--lora", "4", "--lr", "1e-2", "--epochs", "12"], true),
        ("weights", &["--class-weights", "balanced", "--epochs", "8"], true),
    ];
    for (output, options, changes) in cases {
        let summary = json(&on_file("films.tsv", output, options), at);
        assert!(summary["eval"]["accuracy"].as_f64().unwrap() > 0.8, "{output}: {summary}");
        assert_eq!(encoder(&at.join(output).join("model.safetensors")) != original, changes, "{output}");
        let metrics = json(&["evaluate", "--model", output, "--data", "films.tsv", "--json", "--quiet"], at);
        assert_eq!(metrics["accuracy"], summary["eval"]["accuracy"], "{output}: adapters are merged, all is saved");
    }
    assert_eq!(fs::read(at.join("model/model.safetensors")).unwrap(), before);

    let summary = json(&on_file("films.tsv", "seeds", &["--seeds", "3", "--epochs", "2"]), at);
    let runs = summary["seeds"].as_array().unwrap();
    let accuracies: Vec<f64> = runs.iter().map(|run| run["eval"]["accuracy"].as_f64().unwrap()).collect();
    let mean = accuracies.iter().sum::<f64>() / 3.0;
    assert!((summary["mean"]["eval"]["accuracy"].as_f64().unwrap() - mean).abs() < 1e-12, "{summary}");
    assert!(accuracies.iter().all(|accuracy| *accuracy <= summary["eval"]["accuracy"].as_f64().unwrap()));
    assert_eq!(runs.iter().map(|run| run["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [42, 43, 44]);
    json(&["evaluate", "--model", "seeds", "--data", "films.tsv", "--json", "--quiet"], at);
}

#[test]
fn the_report_shows_what_happened_and_can_be_written_again() {
    let directory = workshop();
    let at = directory.path();
    json(&on_file("films.tsv", "run", &["--epochs", "1", "--lr", "1e-5"]), at);
    let page = fs::read_to_string(at.join("run/report.html")).unwrap();
    for part in ["Confusion matrix", "Classes", "The worst mistakes", "Loss", "Settings", "a good film"] {
        assert!(page.contains(part), "{part} is not in the report");
    }
    fs::remove_file(at.join("run/report.html")).unwrap();
    succeed(&["report", "--run", "run"], at);
    assert_eq!(fs::read_to_string(at.join("run/report.html")).unwrap(), page);
    assert!(fail(&["report", "--run", "nowhere"], at).contains("nowhere"));
}

#[test]
fn presets_know_their_files() {
    let directory = workshop();
    let at = directory.path();
    let rows: String = (0..16).map(|i| format!("x\t{}\t\ta {} film\n", i % 2, ["good", "bad"][i % 2])).collect();
    fs::write(at.join("cola.tsv"), rows).unwrap();
    let summary = json(&on_file("cola.tsv", "cola", &["--preset", "cola", "--epochs", "8"]), at);
    assert!(summary["eval"]["mcc"].as_f64().unwrap() > 0.9, "{summary}");
    let message = program::fail(&on_file("cola.tsv", "x", &["--preset", "cola", "--task", "tagging"]), at, 2);
    assert!(message.contains("the preset cola is for classification"), "{message}");
    let message = program::fail(&on_file("cola.tsv", "x", &["--preset", "cola", "--metric", "pearson"]), at, 2);
    assert!(message.contains("expected one of accuracy, f1, macro_f1, weighted_f1, mcc"), "{message}");
}

#[test]
fn any_bytes_may_come_and_long_texts_are_cut() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train(&["run", "--max-seq-len", "12"]), at);
    let predict = |file: &'static str| ["predict", "--model", "run", "--input", file, "--json", "--quiet"];
    let label = |line: &str| serde_json::from_str::<Value>(line).unwrap()["label"].clone();

    // A text of 100,000 words is cut as the training texts were; its neighbors are answered as ever.
    fs::write(at.join("long.txt"), format!("a good film\n{}\na bad film\n", "a good film ".repeat(33_334))).unwrap();
    let labels: Vec<Value> = succeed(&predict("long.txt"), at).lines().map(label).collect();
    assert_eq!(labels, ["good", "good", "bad"]);

    // Marks, line ends of Windows, NULs and control characters, and no end of line at the end.
    fs::write(at.join("odd.txt"), b"\xef\xbb\xbfa good film\r\n\0\x01\x02\r\n\r\na bad film").unwrap();
    let labels: Vec<Value> = succeed(&predict("odd.txt"), at).lines().map(label).collect();
    assert_eq!((labels.len(), &labels[0], &labels[3]), (4, &Value::from("good"), &Value::from("bad")));

    fs::write(at.join("empty.txt"), "").unwrap();
    assert_eq!(succeed(&predict("empty.txt"), at), "", "no line, no answer");
    fs::write(at.join("latin.txt"), b"a good film\ncaf\xe9\n").unwrap();
    assert!(fail(&predict("latin.txt"), at).contains("latin.txt:2: found byte 0xe9"));
    fs::create_dir(at.join("folder.txt")).unwrap();
    assert!(fail(&predict("folder.txt"), at).contains("folder.txt: cannot read: Is a directory"));
    // A line of a gibibyte is not read to its end.
    fs::File::create(at.join("endless.txt")).unwrap().set_len(1 << 30).unwrap();
    assert!(fail(&predict("endless.txt"), at).contains("endless.txt:1: found a line of over 16 MiB"));
    #[cfg(target_os = "linux")]
    {
        let peak = peak_until_end(&mut program::spawn(&predict("endless.txt"), at));
        assert!((1..500_000).contains(&peak), "{peak} KiB");
    }
    fs::write(at.join("words.csv"), "text,label\n\"a good film,good\n").unwrap();
    let message = fail(&["evaluate", "--model", "run", "--data", "words.csv", "--quiet"], at);
    assert!(message.contains("words.csv:2: found a quotation mark that is never closed"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_file() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("texts.txt"), "a good film\n".repeat(2000)).unwrap();
    for output in ["out.jsonl", "out.npy", "out.safetensors"] {
        fs::write(at.join(output), "old").unwrap();
        let arguments =
            ["embed", "--model", "model", "--input", "texts.txt", "--quiet", "--device", "flex", "-o", output];
        let message = program::failure(&program::run_with_file_limit(100, &arguments, at), 1);
        assert!(message.contains(output) && message.contains("cannot write: File too large"), "{message}");
        assert_eq!(fs::read_to_string(at.join(output)).unwrap(), "old", "{output}");
        assert!(!at.join(format!("{output}.partial")).exists(), "{output}");
    }
    let message = program::failure(&program::run_with_file_limit(20, &train(&["run", "--max-seq-len", "12"]), at), 1);
    assert!(message.contains("cannot write: File too large"), "{message}");
    succeed(&train(&["run", "--max-seq-len", "12", "--overwrite"]), at);
    let page = fs::read(at.join("run/report.html")).unwrap();
    let message = program::failure(&program::run_with_file_limit(1, &["report", "--run", "run"], at), 1);
    assert!(message.contains("report.html: cannot write: File too large"), "{message}");
    assert!(fs::read(at.join("run/report.html")).unwrap() == page, "half a report");
}

/// Waits for a process; gives the most memory that it has held, in KiB.
#[cfg(target_os = "linux")]
fn peak_until_end(child: &mut std::process::Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(peak);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    peak
}

/// The most memory that a prediction over so many texts holds, in KiB.
#[cfg(target_os = "linux")]
fn peak_of_predicting(texts: usize, at: &Path) -> u64 {
    let mut file = std::io::BufWriter::new(fs::File::create(at.join("many.txt")).unwrap());
    for index in 0..texts {
        writeln!(file, "{} film {index}", ["a good", "a bad", "some other and rather long"][index % 3]).unwrap();
    }
    drop(file);
    let predict = ["predict", "--model", "run", "--input", "many.txt", "--json", "--quiet"];
    let answers = fs::File::create(at.join("answers.jsonl")).unwrap();
    let mut child = program::command(&predict, at).stdout(answers).spawn().unwrap();
    let peak = peak_until_end(&mut child);
    assert!(child.wait().unwrap().success());
    let answers = fs::read_to_string(at.join("answers.jsonl")).unwrap();
    assert_eq!(answers.lines().count(), texts);
    peak
}

/// Predictions are made and written as the texts are read: fifteen times the texts take no more memory, once the allocator
/// has seen some windows of them.
#[cfg(target_os = "linux")]
#[test]
fn predictions_over_many_texts_take_no_more_memory() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train(&["run", "--max-seq-len", "12"]), at);
    let [few, many] = [20_000, 300_000].map(|texts| peak_of_predicting(texts, at));
    println!("KiB at most: {few} for 20,000 texts, {many} for 300,000");
    assert!(many as f64 <= few as f64 * 1.5, "KiB at most: {few} for 20,000 texts, {many} for 300,000");
}
