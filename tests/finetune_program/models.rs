//! Third-party model directories whose files say too little, too much, or something unusual.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bert_model::pretrained::save::HostTensor;
use bert_model::pretrained::save_weights;
use bert_model::pretrained::weights::Weights;
use bert_model::{BertConfig, BertForSequenceClassification, Pretrained, Tokenizer, save};
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::program::{fail, json, run, success, text};
use crate::workshop;

/// Saves a random classifier with these labels as `name`, next to the workshop's model, and changes its configuration.
fn classifier(at: &Path, name: &str, labels: &[&str], change: impl FnOnce(&mut Value)) {
    let tokenizer = Tokenizer::load(at.join("model")).unwrap();
    let config = BertConfig::from_file(at.join("model/config.json")).unwrap().with_labels(labels);
    let model = BertForSequenceClassification::init_seeded(&config, 3, &Device::flex());
    save(at.join(name), &model, &config, &tokenizer).unwrap();
    let path = at.join(name).join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

/// Truncates a tensor to its first rows.
fn cut(directory: &Path, name: &str, rows: usize) {
    let weights = Weights::verbatim(&directory.join("model.safetensors")).unwrap();
    let read = |name: &str| {
        let shape = weights.shape(name).unwrap().to_vec();
        let values = weights.read(name, &shape).unwrap().unwrap();
        (name.to_string(), HostTensor { shape, values })
    };
    let mut tensors: BTreeMap<String, HostTensor> = weights.names().map(read).collect();
    let tensor = tensors.get_mut(name).unwrap();
    tensor.values.truncate(rows * tensor.shape[1]);
    tensor.shape[0] = rows;
    save_weights(directory.join("model.safetensors"), &tensors).unwrap();
}

/// A model with one token type cannot distinguish two texts, however they are given.
#[test]
fn a_pair_for_a_model_of_one_token_type_is_refused() {
    let directory = workshop();
    let at = directory.path();
    classifier(at, "one-type", &["a", "b"], |config| config["type_vocab_size"] = 1.into());
    cut(&at.join("one-type"), "bert.embeddings.token_type_embeddings.weight", 1);
    fs::write(at.join("pairs.tsv"), "text\tpair\tlabel\na film\ta book\ta\n").unwrap();
    for line in [
        "predict --model one-type 'a film' --pair 'a book'",
        "predict --model one-type --input pairs.tsv --text-pair pair",
        "evaluate --model one-type --data pairs.tsv --text-pair pair",
        "train --model one-type --train pairs.tsv --eval pairs.tsv --text-pair pair --max-seq-len 12 -o x",
    ] {
        let message = fail(line, at, 1);
        assert!(message.contains("pairs of texts does not fit a model with 1 token type"), "{line}: {message}");
    }
    assert!(json("predict --model one-type 'a film' --json", at)["label"].is_string());
}

/// Softmax over one label is 1 for every text; a head with several values has more than the first one.
#[test]
fn one_label_is_a_probability_and_several_values_are_all_given() {
    let directory = workshop();
    let at = directory.path();
    let problem = |kind: &'static str| move |config: &mut Value| config["problem_type"] = kind.into();
    classifier(at, "one-label", &["good"], problem("single_label_classification"));
    let score = |words: &str| {
        let answer = json(&format!("predict --model one-label --json '{words}'"), at);
        assert_eq!(answer["label"], "good");
        answer["probabilities"]["good"].as_f64().unwrap()
    };
    assert!(score("good film") < 1.0 && score("good film") != score("bad book"));

    classifier(at, "values", &["valence", "arousal", "dominance"], problem("regression"));
    let answer = json("predict --model values --json 'good film'", at);
    assert_eq!(answer["values"].as_array().unwrap().len(), 3);
    assert_eq!(text(&run("predict --model values 'good film'", at).stdout).split_whitespace().count(), 3);
    fs::write(at.join("numbers.tsv"), "text\tlabel\na film\t0.5\n").unwrap();
    let message = fail("evaluate --model values --data numbers.tsv", at, 1);
    assert!(message.contains("numbers.tsv:2: found one label for a model with 3 values"), "{message}");
}

#[test]
fn no_class_is_lost_to_odd_names() {
    let directory = workshop();
    let at = directory.path();
    for (names, expected) in [
        (json!({"0": "a", "1": "a", "2": "b"}), ["a", "a (1)", "b"]),
        (json!({"0": 7, "2": "b"}), ["7", "LABEL_1", "b"]),
        (json!({"2": true, "0": null, "1": 0.5}), ["LABEL_0", "0.5", "true"]),
    ] {
        classifier(at, "odd", &["a", "b", "c"], |config| config["id2label"] = names);
        let answer = json("predict --model odd --json 'good film'", at);
        let found: Vec<&String> = answer["probabilities"].as_object().unwrap().keys().collect();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let mut found: Vec<&str> = found.into_iter().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_task_is_named_where_the_configuration_does_not_tell_it() {
    let directory = workshop();
    let at = directory.path();
    classifier(at, "nameless", &["a", "b"], |config| config["architectures"] = Value::Null);
    fs::write(at.join("rows.tsv"), "text\tlabel\na film\ta\n").unwrap();
    let message = fail("predict --model nameless 'good film'", at, 1);
    assert!(message.contains("architecture none") && message.contains("--task"), "{message}");
    assert!(json("predict --model nameless --task classification --json 'good film'", at)["label"].is_string());
    assert!(json("predict --model nameless --task multi-label --json 'good film'", at)["labels"].is_array());
    assert_eq!(json("evaluate --model nameless --task classification --data rows.tsv --json", at)["examples"], 1);
    classifier(at, "named", &["a", "b"], |_| {});
    let message = fail("predict --model named --task tagging 'good film'", at, 2);
    assert!(message.contains("--task tagging") && message.contains("is for classification"), "{message}");
}

/// Every command reports which parts of a checkpoint's encoder are ignored, and what its files disagree about.
#[test]
fn what_is_left_aside_is_told_by_every_command() {
    let directory = workshop();
    let at = directory.path();
    classifier(at, "no-layer", &["good", "bad"], |config| config["num_hidden_layers"] = 0.into());
    let path = at.join("no-layer/tokenizer_config.json");
    let cased = fs::read_to_string(&path).unwrap().replace("\"do_lower_case\": true", "\"do_lower_case\": false");
    fs::write(path, cased).unwrap();
    for line in [
        "embed --model no-layer 'a film'",
        "predict --model no-layer 'a film'",
        "evaluate --model no-layer --data films.tsv",
        "train --model no-layer --train films.tsv --eval films.tsv --epochs 1 --max-seq-len 12 -o run --overwrite",
    ] {
        let output = run(&format!("{line} --device flex --quiet"), at);
        success(&output);
        let warnings = text(&output.stderr);
        assert!(
            warnings.contains("16 tensor(s) of the checkpoint's encoder are not described by config.json"),
            "{line}: {warnings}"
        );
        assert!(warnings.contains("`do_lower_case` is false, but tokenizer.json says true"), "{line}: {warnings}");
    }
}
