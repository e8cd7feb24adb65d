//! Every command, and errors of its arguments.

use std::fs;

use serde_json::Value;

use crate::pretraining::{corpus, short};
use crate::program::{fail, feed, json, lines, objects, succeed, success};

#[test]
fn a_run_leaves_a_model_directory_that_can_be_used() {
    let directory = corpus();
    let at = directory.path();
    let summary = json(&short("run", 6, ""), at);
    assert_eq!(summary["steps"], 6);
    for key in ["loss", "mlm_loss", "nsp_loss"] {
        assert!(summary["train"][key].as_f64().unwrap() > 0.0, "{summary}");
    }
    for key in ["mlm_loss", "perplexity", "mlm_accuracy", "nsp_accuracy"] {
        assert!(summary["eval"][key].is_f64(), "{summary}");
    }
    for file in ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "run.json"]
    {
        assert!(at.join("run").join(file).exists(), "{file}");
    }
    let metrics = lines(at.join("run/metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|record| record["loss"].is_f64()).collect();
    assert_eq!(steps.len(), 6);
    for key in ["step", "epoch", "loss", "mlm_loss", "nsp_loss", "lr", "grad_norm", "tokens_per_second"] {
        assert!(steps.iter().all(|record| record[key].is_number()), "{key}: {metrics:?}");
    }
    assert!(metrics.iter().any(|record| record["eval"].is_object()));

    let filled = json("fill-mask --model run 'Anna lives in [MASK] , a [MASK] .' --top-k 3 --json --quiet", at);
    let masks = filled["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    assert_eq!(masks[0]["position"], 4);
    assert_eq!(masks[0]["predictions"].as_array().unwrap().len(), 3);

    let next = json("next-sentence --model run --first a --second b --json --quiet", at);
    assert!((0.0..=1.0).contains(&next["is_next"].as_f64().unwrap()));

    let judged = json("evaluate --model run --corpus corpus.txt --max-seq-len 32 --json --quiet", at);
    assert!(judged["perplexity"].as_f64().unwrap() > 1.0);
}

/// Texts of a file or of the standard input, whatever their form.
#[test]
fn masks_are_filled_in_texts_from_anywhere() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 2, ""), at);
    let fill = "fill-mask --model run --json --quiet --top-k 1";
    let (text, tsv) = ("Anna [MASK]\n[MASK] lives\n", "id\twords\n1\tAnna [MASK]\n2\t[MASK] lives\n");
    let csv = "id,words\n1,Anna [MASK]\n2,[MASK] lives\n";
    let jsonl = "{\"text\": \"Anna [MASK]\"}\n{\"text\": \"[MASK] lives\"}\n";
    let expected = success(&feed(&format!("{fill} -"), at, text));
    let answers = objects(&expected);
    assert_eq!((answers.len(), &answers[0]["text"]), (2, &"Anna [MASK]".into()));
    assert_eq!(answers[0]["masks"][0]["position"], 2);
    for (format, content, column) in
        [("txt", text, "text"), ("jsonl", jsonl, "text"), ("csv", csv, "words"), ("tsv", tsv, "words")]
    {
        let file = format!("texts.{format}");
        fs::write(at.join(&file), content).unwrap();
        let zipped = zstd::encode_all(content.as_bytes(), 1).unwrap();
        fs::write(at.join(format!("{file}.zst")), zipped).unwrap();
        for input in [&*file, &format!("{file}.zst")] {
            assert_eq!(succeed(&format!("{fill} --input {input} --text {column}"), at), expected, "{input}");
        }
        let line = format!("{fill} - --input-format {format} --text {column}");
        assert_eq!(success(&feed(&line, at, content)), expected, "{format} from stdin");
    }
    let message = fail(&format!("{fill} 'a [MASK]' --input-format csv"), at, 2);
    assert!(message.contains("--input-format: found texts as arguments"), "{message}");

    // The line of a text without a mask is named.
    fs::write(at.join("texts.txt"), "nothing\n").unwrap();
    let message = fail(&format!("{fill} --input texts.txt"), at, 1);
    assert!(message.contains("texts.txt:1: found no [MASK]"), "{message}");
}

/// A vocabulary by itself does not say whether it is cased; everything else does.
#[test]
fn casing_is_as_asked_for_or_refused() {
    let directory = corpus();
    let at = directory.path();
    succeed("vocab --corpus corpus.txt --size 300 --cased -o vocab.txt", at);
    succeed(&short("cased", 6, "--tokenizer vocab.txt --cased"), at);
    let config = fs::read_to_string(at.join("cased/tokenizer_config.json")).unwrap();
    assert!(config.contains("\"do_lower_case\": false"), "{config}");
    let output = crate::program::run(&short("uncased", 6, "--tokenizer vocab.txt"), at);
    success(&output);
    let message = crate::program::text(&output.stderr);
    assert!(message.contains("vocab.txt: --vocab-size 400 has no effect, no vocabulary is learned"), "{message}");
    let message = fail(&short("x", 6, "--tokenizer uncased --cased"), at, 1);
    assert!(message.contains("--cased does not fit the uncased tokenizer of uncased"), "{message}");
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("empty.txt"), "").unwrap();
    fs::write(at.join("bad.jsonl"), "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    fs::write(at.join("strange.json"), "{\"hiden_size\": 128}").unwrap();
    fs::write(
        at.join("one.json"),
        "{\"type_vocab_size\": 1, \"hidden_size\": 24, \"num_attention_heads\": 3, \"num_hidden_layers\": 1}",
    )
    .unwrap();
    for (line, expected) in [
        ("train --corpus empty.txt -o x --device flex --quiet", "no text"),
        ("train --corpus nowhere.txt -o x --device flex --quiet", "nowhere.txt"),
        ("train --corpus bad.jsonl -o x --device flex --quiet", "bad.jsonl:2"),
        ("train --corpus corpus.txt", "-o DIR"),
        ("train --corpus corpus.txt -o x --device abacus", "device `abacus`: no such device"),
        ("train --corpus corpus.txt -o x --device rocm", "build with `--features rocm`"),
        ("train --corpus corpus.txt -o x --config huge", "expected one of tiny, mini"),
        ("train --corpus corpus.txt -o x --config strange.json --device flex", "`hiden_size` is an unknown key"),
        ("train --corpus corpus.txt -o x --config one.json --device flex", "a model of 1 token type"),
        ("train --corpus corpus.txt -o x --mask-prob 2", "--mask-prob: found 2"),
        (
            "train --corpus corpus.txt -o x --phase2-steps 1 --phase2-seq-len 2",
            "--phase2-seq-len: found 2, expected at least 8",
        ),
        ("fill-mask --model nowhere 'a [MASK]'", "nowhere"),
    ] {
        let code = if expected.starts_with('-') { 2 } else { 1 };
        let message = fail(line, at, code);
        assert!(message.contains(expected), "{line}: {message}");
        assert!(!at.join("x").exists(), "{line}: a run that never began left something behind");
    }
    for (line, expected) in [
        ("train --stepz 3", "--stepz"),
        ("train --dupe-factor 3", "--static-masking"),
        ("train --phase2-seq-len 64", "--phase2-steps"),
        ("train --optimizer sgd", "none of adamw, lamb"),
        ("train --precision f8", "none of f32, bf16, f16"),
        ("fill-mask --model run - --input-format parquet", "possible values: txt, tsv, csv, jsonl"),
    ] {
        let message = fail(line, at, 2);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn the_same_corpus_gives_the_same_vocabulary() {
    let directory = corpus();
    let at = directory.path();
    let learn = |name: &str| {
        succeed(&format!("vocab --corpus corpus.txt --size 300 -o {name} --quiet"), at);
        fs::read(at.join(name)).unwrap()
    };
    let vocabulary = learn("0.txt");
    for process in 1..10 {
        assert_eq!(vocabulary, learn(&format!("{process}.txt")));
    }
    assert!(vocabulary.starts_with(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"));
    assert_eq!(vocabulary.iter().filter(|&&byte| byte == b'\n').count(), 300);
}
