//! Promise: every format of a Hugging Face BERT directory can be read, and errors name what is wrong with it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bert_model::pretrained::save::{HostTensor, state_dict};
use bert_model::pretrained::{load, load_partial, save};
use bert_model::text::tokenizer::Normalization;
use bert_model::text::{Sequence, collate};
use bert_model::{Activation, BertConfig, BertForPreTraining, BertForSequenceClassification, BertModel, Tokenizer};
use burn::tensor::Device;
use safetensors::tensor::{Dtype, TensorView};
use support::{assert_close, golden, shared};
use tempfile::TempDir;

fn weights(directory: &Path) -> BTreeMap<String, HostTensor> {
    state_dict(&load::<BertForPreTraining>(directory, &Device::flex()).unwrap().model)
}

#[test]
fn every_form_of_the_same_weights_is_the_same_model() {
    let expected = weights(&golden("models/gelu-odd"));
    for (form, bound) in [
        ("sharded", 0.0),
        ("torch", 0.0),
        ("torch-legacy", 0.0),
        ("gamma-beta", 0.0),
        ("f64", 0.0),
        ("f16", 2e-3),
        ("bf16", 2e-2),
    ] {
        let found = weights(&golden("variants").join(form));
        assert!(found.keys().eq(expected.keys()), "{form}");
        for (name, tensor) in &found {
            assert_eq!(tensor.shape, expected[name].shape, "{form}: {name}");
            assert_close(&format!("{form}: {name}"), &tensor.values, &expected[name].values, bound);
        }
    }
}

#[test]
fn an_encoder_without_prefix_gets_fresh_heads_that_are_named() {
    let loaded = load_partial::<BertForPreTraining>(golden("variants/no-prefix"), 0, &Device::flex()).unwrap();
    assert!(loaded.initialized.contains(&"cls.predictions.bias".to_string()));
    assert!(loaded.initialized.iter().all(|name| name.starts_with("cls.")), "{:?}", loaded.initialized);
    assert!(loaded.warning().unwrap().contains("cls.seq_relationship.weight"));
    let error = load::<BertForPreTraining>(golden("variants/no-prefix"), &Device::flex()).unwrap_err().to_string();
    assert!(
        error.contains("no tensor `cls.predictions."),
        "only a model that is to be trained may lack a head: {error}"
    );
    let (found, expected) = (state_dict(&loaded.model), weights(&golden("models/gelu-odd")));
    for (name, tensor) in found.iter().filter(|(name, _)| name.starts_with("bert.")) {
        assert_eq!(tensor, &expected[name], "{name}");
    }
    let bert = load_partial::<BertModel>(golden("models/gelu-odd"), 0, &Device::flex()).unwrap();
    assert!(bert.initialized.is_empty());
    assert!(bert.unused.iter().all(|name| name.starts_with("cls.")), "{:?}", bert.unused);
}

fn vocabulary(size: usize) -> Tokenizer {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let pieces: Vec<String> = special.into_iter().chain((5..size).map(|id| format!("word{id}"))).collect();
    Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap()
}

#[test]
fn what_is_saved_is_loaded_again_bit_for_bit() {
    for name in ["gelu-odd", "silu-untied"] {
        let original = load_partial::<BertForPreTraining>(golden("models").join(name), 0, &Device::flex()).unwrap();
        let directory = TempDir::new().unwrap();
        let tokenizer = vocabulary(original.config.vocab_size);
        save(directory.path(), &original.model, &original.config, &tokenizer).unwrap();
        let again = load_partial::<BertForPreTraining>(directory.path(), 0, &Device::flex()).unwrap();
        assert!(again.initialized.is_empty() && again.unused.is_empty());
        assert_eq!(state_dict(&again.model), state_dict(&original.model));
        assert_eq!(again.config.other, original.config.other, "keys of others are kept");
        assert_eq!(Tokenizer::load(directory.path()).unwrap().vocabulary(), tokenizer.vocabulary());
    }
}

#[test]
fn a_decoder_that_a_tied_model_leaves_aside_is_told() {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("models/silu-untied").join(file), directory.path().join(file)).unwrap();
    }
    let warning = || load_partial::<BertForPreTraining>(directory.path(), 0, &Device::flex()).unwrap().warning();
    assert_eq!(warning(), None);
    edit_config(directory.path(), "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    assert!(warning().unwrap().starts_with("cls.predictions.decoder.weight differs"), "{:?}", warning());
    let bert = load_partial::<bert_model::BertModel>(directory.path(), 0, &Device::flex()).unwrap();
    assert_eq!(bert.warning(), None, "the encoder alone has no decoder");
}

#[test]
fn the_configuration_says_in_which_numbers_the_weights_are() {
    let mut original = load_partial::<BertForPreTraining>(golden("models/gelu-odd"), 0, &Device::flex()).unwrap();
    original.config.other.insert("torch_dtype".into(), "float16".into());
    let directory = TempDir::new().unwrap();
    save(directory.path(), &original.model, &original.config, &vocabulary(original.config.vocab_size)).unwrap();
    let again = BertConfig::from_file(directory.path().join("config.json")).unwrap();
    assert_eq!(again.other["torch_dtype"], "float32");
}

/// run_glue.py uses numbers as class names for a table whose labels are numbers.
#[test]
fn the_names_of_classes_may_be_numbers_or_missing() {
    let labels = |id2label: &str| {
        let config = BertConfig::from_bytes(format!("{{\"id2label\": {id2label}}}").as_bytes()).unwrap();
        config.labels().map_err(|error| error.to_string()).map(Option::unwrap)
    };
    assert_eq!(labels(r#"{"0": 0, "1": true}"#).unwrap(), ["0", "true"]);
    assert_eq!(labels(r#"{"0": "a", "3": "b", "2": null}"#).unwrap(), ["a", "LABEL_1", "LABEL_2", "b"]);
    assert_eq!(labels(r#"{"0": "a", "1": "a"}"#).unwrap(), ["a", "a"]);
    for bad in [r#"{"zero": "a"}"#, r#"{"0": {}}"#, r#"{"0": "a", "-1": "b"}"#] {
        assert!(labels(bad).unwrap_err().contains("`id2label` is"), "{bad}");
    }
    let far = BertConfig::from_bytes(br#"{"id2label": {"18446744073709551615": "a"}}"#).unwrap_err().to_string();
    assert!(far.contains("`num_labels` is 18446744073709551615"), "{far}");
}

/// Other tools write null, -1 or alternative names where transformers writes a default or omits the key.
#[test]
fn keys_may_be_null_and_activations_have_several_names() {
    let config = |json: &str| BertConfig::from_bytes(json.as_bytes()).unwrap();
    let nulls = r#"{"hidden_size": null, "hidden_act": null, "position_embedding_type": null, "is_decoder": null,
                    "classifier_dropout": null, "architectures": null, "model_type": null, "id2label": null}"#;
    let found = config(nulls);
    let expected = BertConfig::default();
    assert_eq!((found.hidden_size, found.hidden_act), (expected.hidden_size, expected.hidden_act));
    assert_eq!(config(r#"{"pad_token_id": -1}"#).pad_token_id, None);
    for (name, activation) in [
        ("gelu_python", Activation::Gelu),
        ("gelu_fast", Activation::GeluNew),
        ("gelu_accurate", Activation::GeluNew),
        ("gelu_pytorch_tanh", Activation::GeluNew),
        ("gelu_python_tanh", Activation::GeluNew),
        ("swish", Activation::Silu),
    ] {
        assert_eq!(config(&format!("{{\"hidden_act\": \"{name}\"}}")).hidden_act, activation, "{name}");
    }
}

/// A clone without Git LFS, or a download that saved the web page about the file.
#[test]
fn what_stands_for_a_file_is_told_from_it() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 438000173\n";
    for (content, expected) in [
        (pointer, "found a Git LFS pointer, expected the file itself; fetch it with `git lfs pull`"),
        ("\n<!DOCTYPE html>\n<html>", "found a web page"),
    ] {
        for file in ["config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"] {
            let error = spoiled(|directory| {
                if file != "config.json" {
                    fs::remove_file(directory.join("model.safetensors")).unwrap();
                }
                fs::write(directory.join(file), content).unwrap();
            });
            assert!(error.contains(&format!("{file}: {expected}")), "{error}");
        }
        for file in ["tokenizer.json", "vocab.txt"] {
            let directory = TempDir::new().unwrap();
            fs::write(directory.path().join(file), content).unwrap();
            let error = Tokenizer::load(directory.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{file}: {expected}")), "{error}");
        }
    }
}

#[test]
fn a_pickle_may_be_in_shards() {
    let directory = TempDir::new().unwrap();
    let from = golden("variants/torch");
    fs::copy(from.join("config.json"), directory.path().join("config.json")).unwrap();
    fs::copy(from.join("pytorch_model.bin"), directory.path().join("pytorch_model-00001-of-00001.bin")).unwrap();
    let write = |shard: &str, tensor: &str| {
        let index = serde_json::json!({"weight_map": {tensor: shard}}).to_string();
        fs::write(directory.path().join("pytorch_model.bin.index.json"), index).unwrap();
    };
    let name = "bert.embeddings.word_embeddings.weight";
    write("pytorch_model-00001-of-00001.bin", name);
    assert_eq!(weights(directory.path()), weights(&from));
    for (shard, tensor, expected) in [
        ("../pytorch_model.bin", name, "expected a .bin file in the same directory"),
        ("nowhere.bin", name, "nowhere.bin: cannot open"),
        (
            "pytorch_model-00001-of-00001.bin",
            "x",
            "tensor `x`: found no such tensor, expected the tensor that the index lists",
        ),
    ] {
        write(shard, tensor);
        let error = load::<BertForPreTraining>(directory.path(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn layers_that_the_configuration_leaves_out_are_told() {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("models/gelu-odd").join(file), directory.path().join(file)).unwrap();
    }
    let layers = BertConfig::from_file(directory.path().join("config.json")).unwrap().num_hidden_layers;
    edit_config(
        directory.path(),
        &format!("\"num_hidden_layers\": {layers}"),
        &format!("\"num_hidden_layers\": {}", layers - 1),
    );
    let warning = load_partial::<BertModel>(directory.path(), 0, &Device::flex()).unwrap().warning().unwrap();
    assert!(warning.contains(&format!("encoder.layer.{}.", layers - 1)), "{warning}");
}

#[test]
fn the_shard_of_a_bad_tensor_is_named() {
    let directory = TempDir::new().unwrap();
    for entry in fs::read_dir(golden("variants/sharded")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    edit_config(directory.path(), "\"intermediate_size\": ", "\"intermediate_size\": 1");
    let error = load_partial::<BertModel>(directory.path(), 0, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("-of-0") && error.contains("found shape"), "{error}");
}

/// Copies a golden model directory, applies `spoil` to it, and returns the resulting error.
fn spoiled(spoil: impl FnOnce(&Path)) -> String {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("models/gelu-odd").join(file), directory.path().join(file)).unwrap();
    }
    spoil(directory.path());
    load_partial::<BertForPreTraining>(directory.path(), 0, &Device::flex()).unwrap_err().to_string()
}

fn edit_config(directory: &Path, from: &str, to: &str) {
    let path = directory.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn configurations_that_cannot_be_are_refused_by_key() {
    for (from, to, expected) in [
        (
            "\"hidden_size\": 24",
            "\"hidden_size\": 25",
            "`num_attention_heads` is 3, expected a divisor of hidden_size = 25",
        ),
        ("\"hidden_size\": 24", "\"hidden_size\": 0", "`hidden_size` is 0"),
        (
            "\"hidden_size\": 24",
            "\"hidden_size\": \"24\"",
            "config.json: `hidden_size` is \"24\", expected a whole number",
        ),
        ("\"pad_token_id\": 0", "\"pad_token_id\": -2", "`pad_token_id` is -2, expected a whole number"),
        ("\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": [1]", "`layer_norm_eps` is [1], expected a number"),
        ("\"is_decoder\": false", "\"id2label\": [\"a\"]", "`id2label` is [\"a\"], expected a map"),
        ("\"hidden_size\": 24", "\"hidden_size\": 99999999999", "`hidden_size` is 99999999999"),
        ("\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"", "`model_type` is \"gpt2\", expected \"bert\""),
        (
            "\"is_decoder\": false",
            "\"num_labels\": 99999999999",
            "`num_labels` is 99999999999, expected a whole number from 1 to 1000000",
        ),
        ("\"is_decoder\": false", "\"id2label\": {}", "`num_labels` is 0"),
        ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", "`hidden_act` is \"mish\", expected one of `gelu`"),
        ("\"is_decoder\": false", "\"is_decoder\": true", "`is_decoder` is true"),
        ("\"hidden_dropout_prob\": 0.1", "\"hidden_dropout_prob\": 1.5", "`hidden_dropout_prob` is 1.5"),
        (
            "\"vocab_size\": 67",
            "\"vocab_size\": 70",
            "embeddings.word_embeddings.weight`: found shape [67, 24], expected [70, 24]",
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 4",
            "encoder.layer.3.attention.self.query.weight`: found no such tensor",
        ),
    ] {
        let error = spoiled(|directory| edit_config(directory, from, to));
        assert!(
            error.contains(expected) && error.contains("config.json") || error.contains("model.safetensors"),
            "{error}"
        );
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn a_dead_file_is_named() {
    let error = spoiled(|directory| fs::remove_file(directory.join("model.safetensors")).unwrap());
    assert!(error.contains("found no weights, expected model.safetensors or pytorch_model.bin"), "{error}");
    let error = spoiled(|directory| fs::remove_file(directory.join("config.json")).unwrap());
    assert!(error.contains("config.json: cannot read: No such file"), "{error}");
    let error = spoiled(|directory| fs::write(directory.join("model.safetensors"), b"").unwrap());
    assert!(error.contains("model.safetensors: found 0 bytes, expected a complete safetensors file"), "{error}");
}

#[test]
fn truncation_anywhere_is_noticed() {
    let whole = fs::read(golden("models/gelu-odd/model.safetensors")).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 97) {
        let error = spoiled(|directory| fs::write(directory.join("model.safetensors"), &whole[..length]).unwrap());
        assert!(error.contains("a complete safetensors file"), "{length}: {error}");
    }
    let whole = fs::read(golden("variants/torch/pytorch_model.bin")).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 31) {
        let error = spoiled(|directory| {
            fs::remove_file(directory.join("model.safetensors")).unwrap();
            fs::write(directory.join("pytorch_model.bin"), &whole[..length]).unwrap();
        });
        assert!(error.contains("pytorch_model.bin"), "{length}: {error}");
    }
}

#[test]
fn a_header_that_claims_the_moon_takes_no_memory() {
    let header = br#"{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#;
    for claimed in [header.len() as u64, u64::MAX, 1 << 40] {
        let mut file = claimed.to_le_bytes().to_vec();
        file.extend_from_slice(header);
        let error = spoiled(|directory| fs::write(directory.join("model.safetensors"), file).unwrap());
        assert!(error.contains("a complete safetensors file"), "{error}");
    }
    // Sizes whose sum does not fit into a number.
    let part = (1_u64 << 61) - 1;
    let tensors = (0..8).map(|place| {
        let (start, end) = (place * part, (place + 1) * part);
        format!(r#""{place}":{{"dtype":"U8","shape":[{part}],"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let error = spoiled(|directory| fs::write(directory.join("model.safetensors"), file).unwrap());
    assert!(error.contains("a complete safetensors file"), "{error}");
}

/// Replaces one tensor of the file, or removes it if `values` is `None`.
fn replace_tensor(directory: &Path, name: &str, values: Option<Vec<f32>>) {
    let mut tensors = weights(&golden("models/gelu-odd"));
    match values {
        Some(values) => tensors.get_mut(name).unwrap().values = values,
        None => drop(tensors.remove(name).unwrap()),
    }
    write_tensors(directory, &tensors);
}

fn write_tensors(directory: &Path, tensors: &BTreeMap<String, HostTensor>) {
    let views = tensors.iter().map(|(name, tensor)| {
        let bytes: &[u8] = bytemuck::cast_slice(&tensor.values);
        (name.clone(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap())
    });
    fs::write(directory.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_missing_tensor_and_one_with_a_nan_are_named() {
    let name = "bert.encoder.layer.1.output.dense.weight";
    let error = spoiled(|directory| replace_tensor(directory, name, None));
    assert!(error.contains(name) && error.contains("no such tensor"), "{error}");
    let mut values = vec![0.5; 24 * 40];
    values[77] = f32::NAN;
    let error = spoiled(|directory| replace_tensor(directory, name, Some(values)));
    assert!(error.contains(name) && error.contains("NaN at element 77, expected finite numbers"), "{error}");
}

#[test]
fn two_tensors_for_one_parameter_are_refused() {
    let error = spoiled(|directory| {
        let mut tensors = weights(&golden("models/gelu-odd"));
        let second = tensors["bert.pooler.dense.bias"].clone();
        tensors.insert("pooler.dense.bias".into(), second);
        write_tensors(directory, &tensors);
    });
    assert!(error.contains("pooler.dense.bias`: found a second tensor for this parameter"), "{error}");
}

#[test]
fn an_index_cannot_lead_out_of_its_directory() {
    let error = spoiled(|directory| {
        fs::remove_file(directory.join("model.safetensors")).unwrap();
        let index = r#"{"weight_map": {"a": "../../etc/passwd.safetensors"}}"#;
        fs::write(directory.join("model.safetensors.index.json"), index).unwrap();
    });
    assert!(error.contains("a .safetensors file in the same directory"), "{error}");
}

#[test]
fn a_real_model_embeds_as_transformers_does() {
    let Some(directory) = shared("models/all-MiniLM-L6-v2") else { return };
    let device = Device::flex();
    let bert = load::<BertModel>(&directory, &device).unwrap();
    assert!(bert.initialized.is_empty() && bert.unused.is_empty());
    let tokenizer = Tokenizer::load(&directory).unwrap().truncating(512).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&fs::read_to_string(golden("minilm.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = match case["text"].as_str() {
            Some(text) => text.to_string(),
            None => {
                case["text"]["repeat"][0].as_str().unwrap().repeat(case["text"]["repeat"][1].as_u64().unwrap() as usize)
            }
        };
        let sequence = Sequence::from(&tokenizer.encode(&text, None).unwrap());
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(sequence.ids, ids, "{text:.40}");
        let hidden = bert.model.forward(collate(&[&sequence], 0, &device)).last_hidden_state;
        let mean: Vec<f32> = hidden.mean_dim(1).into_data().iter::<f32>().collect();
        let expected: Vec<f32> = serde_json::from_value(case["mean"].clone()).unwrap();
        let worst = assert_close(&format!("{text:.40}"), &mean, &expected, 1e-4);
        println!("{text:.40}: {} tokens, largest difference {worst:.1e}", ids.len());
    }
}

#[test]
fn a_head_for_other_labels_is_refused_with_both_shapes() {
    let directory = TempDir::new().unwrap();
    let heads = golden("models/gelu-odd/heads");
    fs::copy(heads.join("BertForSequenceClassification.safetensors"), directory.path().join("model.safetensors"))
        .unwrap();
    fs::copy(golden("models/gelu-odd/config.json"), directory.path().join("config.json")).unwrap();
    let error =
        load_partial::<BertForSequenceClassification>(directory.path(), 0, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("`classifier.weight`: found shape [3, 24], expected [2, 24]"), "{error}");
}
