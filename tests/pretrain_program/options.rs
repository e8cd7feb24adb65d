//! Every option of `train` does what its help says.

use std::fs;

use serde_json::{Value, json as value};

use crate::pretraining::{corpus, logged, short, weights};
use crate::program::{fail, json, object, succeed};

/// For each option: the key in `run.json`, its value there, and whether the weights differ from those without the
/// option.
#[test]
fn every_option_is_in_run_json_and_changes_the_run() {
    let rows: [(&str, &str, Value, bool); 20] = [
        ("--no-nsp", "/settings/nsp_mode", value!("off"), true),
        ("--nsp-mode google", "/settings/nsp_mode", value!("google"), true),
        ("--sentences line", "/settings/sentences", value!("line"), false),
        ("--whole-word-mask", "/settings/whole_word_mask", value!(true), true),
        ("--mask-prob 0.3", "/settings/mask_prob", value!(0.3), true),
        ("--max-predictions 1", "/settings/max_predictions", value!(1), true),
        ("--short-seq-prob 0.9", "/settings/short_seq_prob", value!(0.9), true),
        ("--weight-decay 0.5", "/settings/optimizer/weight_decay", value!(0.5), true),
        ("--no-bias-correction", "/settings/optimizer/bias_correction", value!(false), true),
        ("--optimizer lamb", "/settings/optimizer/algorithm", value!("lamb"), true),
        ("--optimizer muon", "/settings/optimizer/algorithm", value!("muon"), true),
        ("--dropout 0", "/settings/dropout", value!(0.0), true),
        ("--phase2-steps 2 --phase2-seq-len 64 --nsp-in-phase2", "/settings/nsp_in_phase2", value!(true), true),
        ("--schedule cosine", "/settings/decay", value!("cosine"), true),
        ("--warmup 0.5", "/settings/warmup", value!(0.5), true),
        ("--clip 0.1", "/settings/clip", value!(0.1), true),
        ("--static-masking", "/settings/maskings", value!(10), false),
        ("--eval-corpus other.txt", "/data/held_out_documents", value!(0), true),
        ("--eval-examples 3", "/data/held_out_examples", value!(3), false),
        ("--eval-every 2", "/run/eval_every", value!(2), false),
    ];
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("other.txt"), bert_pretrain::sample::corpus(10, 8)).unwrap();
    succeed(&short("plain", 4, ""), at);
    let (plain, described) = (weights(&at.join("plain")), object(at.join("plain/run.json")));
    for (options, key, expected, changes) in rows {
        succeed(&short("run", 4, &format!("--overwrite {options}")), at);
        let found = object(at.join("run/run.json"));
        assert_eq!(found.pointer(key), Some(&expected), "{options}");
        assert_ne!(described.pointer(key), Some(&expected), "{options} is what a run does anyway");
        assert_eq!(weights(&at.join("run")) != plain, changes, "{options}");
    }
}

/// An option that would do nothing is rejected before any file is read.
#[test]
fn an_option_without_effect_is_refused() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("texts.jsonl"), "{\"text\": \"[MASK]\"}\n").unwrap();
    for (line, option, reason) in [
        ("train --corpus corpus.txt -o x --init m --vocab-size 9", "vocab-size", "no vocabulary is learned"),
        ("train --corpus corpus.txt -o x --tokenizer vocab.txt --vocab-size 9", "vocab-size", "no vocabulary"),
        ("train --corpus corpus.txt -o x --eval-corpus c --eval-share 0.02", "eval-share", "--eval-corpus"),
        ("train --corpus corpus.txt -o x --eval-share 0 --eval-every 5", "eval-every", "held out"),
        ("train --corpus corpus.txt -o x --eval-share 0 --eval-examples 5", "eval-examples", "held out"),
        ("train --corpus corpus.txt -o x --no-nsp --nsp-mode google", "nsp-mode", "--no-nsp"),
        ("evaluate --model m --corpus corpus.txt --no-nsp --nsp-mode google", "nsp-mode", "--no-nsp"),
        ("fill-mask --model m 'a [MASK]' --text words", "text", "arguments"),
        ("fill-mask --model m --input corpus.txt --text words", "text", "--input-format tsv"),
        ("fill-mask --model m - --keep id", "keep", "--input-format tsv"),
        ("fill-mask --model m - --no-header", "no-header", "--input-format tsv"),
        ("fill-mask --model m --input texts.jsonl --no-header", "no-header", "JSON lines"),
    ] {
        let message = fail(line, at, 2);
        assert!(message.contains(&format!("--{option} has no effect here")), "{line}: {message}");
        assert!(message.contains(reason) && message.lines().count() == 1, "{line}: {message}");
        assert!(!at.join("x").exists(), "{line}");
    }
}

#[test]
fn warmup_and_schedule_set_the_learning_rate_of_every_step() {
    let directory = corpus();
    let at = directory.path();
    for (options, expected) in [
        ("--warmup 2 --schedule constant", [0.0, 5e-5, 1e-4, 1e-4]),
        ("--warmup 0.5 --schedule constant", [0.0, 5e-5, 1e-4, 1e-4]),
        ("--warmup 0 --schedule linear", [1e-4, 7.5e-5, 5e-5, 2.5e-5]),
        ("--warmup 0 --schedule cosine", [1e-4, 8.535_534e-5, 5e-5, 1.464_466e-5]),
    ] {
        succeed(&short("run", 4, &format!("--overwrite {options}")), at);
        let found = logged(&at.join("run"), "lr");
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9), "{options}: {found:?}");
    }
}

#[test]
fn a_line_is_a_sentence_or_has_some() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("lines.txt"), "Anna bakes bread. Emil eats it.\nIt was good.\n\n".repeat(20)).unwrap();
    for (mode, sentences) in [("line", 40), ("unicode", 60)] {
        let options = format!("--corpus lines.txt --sentences {mode} --vocab-size 60 --max-seq-len 32 --steps 1");
        succeed(&format!("train {options} --device flex --quiet --overwrite -o run"), at);
        assert_eq!(object(at.join("run/run.json"))["data"]["sentences"], sentences, "{mode}");
    }
}

#[test]
fn without_next_sentences_the_model_is_for_masked_words_alone() {
    let directory = corpus();
    let at = directory.path();
    let summary = json(&short("run", 4, "--no-nsp"), at);
    assert!(summary["train"]["nsp_loss"].is_null() && summary["eval"]["nsp_accuracy"].is_null(), "{summary}");
    assert_eq!(summary["train"]["loss"], summary["train"]["mlm_loss"]);
    let config = object(at.join("run/config.json"));
    assert_eq!(config["architectures"], value!(["BertForMaskedLM"]));
    let bytes = weights(&at.join("run"));
    let has = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(has("cls.predictions") && !has("cls.seq_relationship") && !has("bert.pooler"));
    succeed("fill-mask --model run 'Anna [MASK] .' --quiet", at);
    let judged = json("evaluate --model run --corpus corpus.txt --max-seq-len 32 --json --quiet", at);
    assert!(judged["mlm_loss"].is_f64() && judged["nsp_accuracy"].is_null(), "{judged}");
}

#[test]
fn a_corpus_for_evaluation_is_never_trained_on() {
    let directory = corpus();
    let at = directory.path();
    fs::write(at.join("other.txt"), bert_pretrain::sample::corpus(10, 8)).unwrap();
    let summary = json(&short("run", 2, "--eval-corpus other.txt"), at);
    assert!(summary["eval"]["mlm_loss"].is_f64(), "{summary}");
    let data = &object(at.join("run/run.json"))["data"];
    assert_eq!((&data["documents"], &data["held_out_documents"]), (&value!(120), &value!(0)));
    assert!(data["held_out_examples"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["eval_corpus"][0]["path"], "other.txt");
}
