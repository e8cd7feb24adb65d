//! Options without effect are rejected with the reason, before any work is done.

use std::fs;
use std::path::Path;

use serde_json::json as value;

use crate::program::fail;
use crate::workshop;

const TASKS: [(&str, &str); 4] = [
    ("classifier", "BertForSequenceClassification"),
    ("tagger", "BertForTokenClassification"),
    ("answerer", "BertForQuestionAnswering"),
    ("chooser", "BertForMultipleChoice"),
];

/// Creates model directories that only specify their task.
fn make_models(at: &Path) {
    let config = fs::read_to_string(at.join("model/config.json")).unwrap();
    for (name, architecture) in TASKS {
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["architectures"] = value!([architecture]);
        fs::create_dir(at.join(name)).unwrap();
        fs::write(at.join(name).join("config.json"), config.to_string()).unwrap();
    }
}

/// Each command fails with exit code 2 and a single line that contains the option and the reason.
fn refused(at: &Path, cases: &[(&str, &str, &str)]) {
    for (line, option, reason) in cases {
        let message = fail(line, at, 2);
        assert!(message.contains(&format!("--{option} has no effect here: ")), "{line}: {message}");
        assert!(message.contains(reason) && message.lines().count() == 1, "{line}: {message}");
    }
}

#[test]
fn of_embed() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("texts.txt"), "a film\n").unwrap();
    fs::write(at.join("texts.jsonl"), "{\"text\": \"a film\"}\n").unwrap();
    refused(
        at,
        &[
            ("embed --model model 'a film' --text text", "text", "arguments have no columns"),
            ("embed --model model 'a film' --no-header", "no-header", "arguments have no columns"),
            ("embed --model model 'a film' --keep id", "keep", "arguments have no columns"),
            ("embed --model model - --no-header --text 2", "text", "--input-format tsv, csv or jsonl"),
            ("embed --model model --input - --keep id", "keep", "--input-format tsv, csv or jsonl"),
            ("embed --model model --input texts.txt --text 2", "text", "--input-format tsv, csv or jsonl"),
            ("embed --model model --input texts.txt --no-header", "no-header", "--input-format tsv"),
            ("embed --model model --input films.tsv --input-format txt --text text", "text", "--input-format tsv"),
            ("embed --model model --input texts.jsonl --no-header", "no-header", "JSON lines"),
            ("embed --model model - --input-format jsonl --no-header", "no-header", "JSON lines"),
            ("embed --model model --input films.tsv --keep label -o x.npy", "keep", "write .jsonl"),
            ("embed --model model --input films.tsv --keep label -o x.safetensors", "keep", "write .jsonl"),
            ("embed --model model 'a film' --combine sum", "combine", "--layers"),
            ("embed --model model 'a film' --pooling pooler --layers 0", "layers", "the pooler reads the last layer"),
        ],
    );
    assert!(!at.join("x.npy").exists());
}

#[test]
fn of_predict() {
    let directory = workshop();
    let at = directory.path();
    make_models(at);
    fs::write(at.join("texts.txt"), "a film\n").unwrap();
    fs::write(at.join("texts.jsonl"), "{\"text\": \"a film\"}\n").unwrap();
    fs::write(at.join("squad.json"), "{}").unwrap();
    refused(
        at,
        &[
            ("predict --model classifier 'a film' --text text", "text", "arguments have no columns"),
            ("predict --model classifier 'a film' --text-pair pair", "text-pair", "arguments have no columns"),
            ("predict --model classifier 'a film' --no-header", "no-header", "arguments have no columns"),
            ("predict --model classifier 'a film' --keep id", "keep", "arguments have no columns"),
            ("predict --model classifier - --text 2 --no-header", "text", "--input-format tsv"),
            ("predict --model classifier --input texts.txt --text-pair b", "text-pair", "--input-format tsv"),
            ("predict --model classifier --input texts.txt --keep id", "keep", "--input-format tsv"),
            ("predict --model classifier --input texts.jsonl --no-header", "no-header", "JSON lines"),
            ("predict --model classifier --input films.tsv --pair 'a book'", "pair", "--text-pair"),
            ("predict --model classifier 'a film' --choice a", "choice", "the task is classification"),
            ("predict --model classifier --input films.tsv --choices a,b", "choices", "the task is classification"),
            ("predict --model classifier --question q --context c", "question", "the task is classification"),
            ("predict --model classifier 'a film' --n-best 3", "n-best", "the task is classification"),
            ("predict --model classifier 'a film' --no-answer-threshold 0", "no-answer-threshold", "the task is"),
            ("predict --model tagger 'a film' --pair 'a book'", "pair", "the task is tagging"),
            ("predict --model tagger --input words.conll --text text", "text", "the input has no columns"),
            ("predict --model tagger --input words.conll --keep label", "keep", "the input has no columns"),
            ("predict --model tagger --input texts.jsonl --text-pair b", "text-pair", "the task is tagging"),
            ("predict --model answerer --input squad.json --text question", "text", "the input has no columns"),
            (
                "predict --model answerer --input squad.json --question q --context c",
                "question",
                "from the file's columns",
            ),
            ("predict --model answerer --question q --context c 'a film'", "question", "--context is the text"),
            (
                "predict --model answerer --question q --context c --choice a",
                "choice",
                "the task is question-answering",
            ),
            ("predict --model chooser --input texts.jsonl --choice a", "choice", "--choices"),
            ("predict --model chooser --input texts.jsonl --choices a,b --no-header", "no-header", "JSON lines"),
        ],
    );
}

#[test]
fn of_evaluate() {
    let directory = workshop();
    let at = directory.path();
    make_models(at);
    refused(
        at,
        &[
            ("evaluate --model classifier --data films.tsv --keep id", "keep", "--predictions OUT"),
            ("evaluate --model classifier --data films.tsv --choices a,b", "choices", "the task is classification"),
            ("evaluate --model classifier --data films.jsonl --no-header", "no-header", "JSON lines"),
            ("evaluate --model classifier --data - --input-format jsonl --no-header", "no-header", "JSON lines"),
            (
                "evaluate --model classifier --data films.tsv --no-answer-threshold 1",
                "no-answer-threshold",
                "the task is",
            ),
            ("evaluate --model tagger --data tags.conll --text text", "text", "the task is tagging"),
            ("evaluate --model tagger --data tags.conll --label tag", "label", "the task is tagging"),
            ("evaluate --model tagger --data tags.conll --predictions p --keep id", "keep", "no named columns"),
            ("evaluate --model answerer --data squad.json --text question", "text", "the task is question-answering"),
            ("evaluate --model answerer --data squad.json --input-format jsonl", "input-format", "first line"),
            (
                "evaluate --model chooser --data choices.csv --no-answer-threshold 1",
                "no-answer-threshold",
                "the task is",
            ),
        ],
    );
}

#[test]
fn of_train() {
    let directory = workshop();
    let at = directory.path();
    refused(
        at,
        &[
            ("train --text text", "text", "built-in sample"),
            ("train --test films.tsv", "test", "built-in sample"),
            ("--eval-share 0.2", "eval-share", "built-in sample"),
            ("train --task tagging", "task", "built-in sample"),
            ("train --model m --train a.csv --eval b.csv --eval-share 0.1 -o x", "eval-share", "--eval FILE"),
            (
                "train --model m --train a.csv --eval-share 0 --early-stop 2 -o x",
                "early-stop",
                "no examples are held out",
            ),
            ("train --model m --train a.csv --eval-share 0 --metric f1 -o x", "metric", "no examples are held out"),
            ("train --model m --train a.csv --eval-share 0 --predictions p -o x", "predictions", "--test FILE"),
            ("train --model m --train a.csv --token-column 1 -o x", "token-column", "the task is classification"),
            ("train --model m --train a.csv --doc-stride 64 -o x", "doc-stride", "the task is classification"),
            ("train --model m --train a.csv --choices a,b -o x", "choices", "the task is classification"),
            ("train --model m --train a.jsonl --no-header -o x", "no-header", "JSON lines"),
            ("train --model m --train a.conll --task tagging --text words -o x", "text", "the task is tagging"),
            ("train --model m --train a.conll --task tagging --label tag -o x", "label", "the task is tagging"),
            ("train --model m --train a.jsonl --task tagging --tag-column 2 -o x", "tag-column", "JSON lines"),
            ("train --model m --train a.json --preset squad --text q -o x", "text", "the task is question-answering"),
            (
                "train --model m --train a.csv --task regression --class-weights balanced -o x",
                "class-weights",
                "the task is regression",
            ),
        ],
    );
    assert!(!at.join("x").exists());
}
