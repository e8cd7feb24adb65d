//! Promise: every form of a Hugging Face BERT directory is read, and what is wrong with one is named.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bert_model::pretrained::save::{HostTensor, state_dict};
use bert_model::pretrained::{load, load_partial, save};
use bert_model::text::tokenizer::Normalization;
use bert_model::text::{Sequence, collate};
use bert_model::{BertForPreTraining, BertForSequenceClassification, BertModel, Tokenizer};
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

/// `vocab.txt` with `tokenizer_config.json` is all that some readers take.
#[test]
fn normalization_is_saved() {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "é", "漢字"].map(str::to_string);
    let normalization = Normalization { lowercase: true, strip_accents: Some(false), chinese_chars: false };
    let directory = TempDir::new().unwrap();
    Tokenizer::from_vocabulary(&pieces, normalization).unwrap().save(directory.path(), 16).unwrap();
    fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
    let again = Tokenizer::load(directory.path()).unwrap();
    assert_eq!(again.pieces("É 漢字").unwrap(), [5, 6]);
}

/// What slow tokenizers leave: a vocabulary, and beside it what was added to it.
#[test]
fn tokens_that_were_added_to_a_vocabulary_stay_whole() {
    let marked = |content: &str| {
        let flags = r#""single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false"#;
        format!("{{\"content\": {content:?}, {flags}}}")
    };
    let decoder = format!(
        "{{\"added_tokens_decoder\": {{\"9\": {}, \"8\": {}, \"2\": {}}}}}",
        marked("</e1>"),
        marked("<e1>"),
        marked("[CLS]")
    );
    for (file, content) in
        [("tokenizer_config.json", decoder.as_str()), ("added_tokens.json", r#"{"</e1>": 9, "<e1>": 8}"#)]
    {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n<\n").unwrap();
        fs::write(directory.path().join(file), content).unwrap();
        let tokenizer = Tokenizer::load(directory.path()).unwrap();
        assert_eq!(tokenizer.vocab_size(), 10, "{file}");
        assert_eq!(tokenizer.pieces("A <e1> b </e1> <").unwrap(), [5, 8, 6, 9, 7], "{file}");
        // An id with nothing before it cannot be kept.
        fs::write(directory.path().join(file), content.replace('9', "11")).unwrap();
        let error = Tokenizer::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("found the added token \"</e1>\" with the id 11"), "{error}");
    }
}

#[test]
fn a_vocabulary_of_another_algorithm_is_refused() {
    for (config, expected) in [
        (r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, "`tokenizer_class` is BertJapaneseTokenizer"),
        (r#"{"word_tokenizer_type": "mecab"}"#, "`word_tokenizer_type` is mecab"),
        (r#"{"do_basic_tokenize": false}"#, "`do_basic_tokenize` is false"),
    ] {
        let directory = TempDir::new().unwrap();
        vocabulary(6).save(directory.path(), 16).unwrap();
        fs::write(directory.path().join("tokenizer_config.json"), config).unwrap();
        assert!(Tokenizer::load(directory.path()).is_ok(), "tokenizer.json says all there is to say");
        fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
        let error = Tokenizer::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The names of multilingual models that kept XLM-R's vocabulary.
#[test]
fn special_tokens_may_have_other_names() {
    let directory = TempDir::new().unwrap();
    vocabulary(7).save(directory.path(), 16).unwrap();
    fs::remove_file(directory.path().join("vocab.txt")).unwrap();
    let names = [("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>")];
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let path = directory.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, names.iter().fold(text, |text, (from, to)| text.replace(from, to))).unwrap();
    }
    let tokenizer = Tokenizer::load(directory.path()).unwrap();
    assert_eq!(tokenizer.encode("word5", Some("word6")).unwrap().get_ids(), [2, 5, 3, 6, 3]);
    let again = TempDir::new().unwrap();
    tokenizer.save(again.path(), 16).unwrap();
    let loaded = Tokenizer::load(again.path()).unwrap();
    assert_eq!((loaded.special(), loaded.vocabulary()), (tokenizer.special(), tokenizer.vocabulary()));
    fs::remove_file(directory.path().join("tokenizer_config.json")).unwrap();
    assert!(Tokenizer::load(directory.path()).unwrap_err().to_string().contains("found no [PAD]"));
}

/// transformers builds a `BertTokenizer` anew from its keys, and takes a `PreTrainedTokenizerFast` as its file has it.
#[test]
fn only_berts_own_way_of_cutting_text_is_called_berts() {
    let saved_class = |pre_tokenizer: &str| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("tokenizer.json");
        fs::write(&path, vocabulary(6).to_json().unwrap().replace("\"BertPreTokenizer\"", pre_tokenizer)).unwrap();
        Tokenizer::load(directory.path()).unwrap().save(directory.path(), 16).unwrap();
        fs::read_to_string(directory.path().join("tokenizer_config.json")).unwrap()
    };
    assert!(saved_class("\"BertPreTokenizer\"").contains("\"BertTokenizer\""));
    let foreign = saved_class("\"WhitespaceSplit\"");
    assert!(foreign.contains("\"PreTrainedTokenizerFast\"") && !foreign.contains("do_lower_case"), "{foreign}");
}

#[test]
fn the_configuration_says_in_which_numbers_the_weights_are() {
    let mut original = load_partial::<BertForPreTraining>(golden("models/gelu-odd"), 0, &Device::flex()).unwrap();
    original.config.other.insert("torch_dtype".into(), "float16".into());
    let directory = TempDir::new().unwrap();
    save(directory.path(), &original.model, &original.config, &vocabulary(original.config.vocab_size)).unwrap();
    let again = bert_model::BertConfig::from_file(directory.path().join("config.json")).unwrap();
    assert_eq!(again.other["torch_dtype"], "float32");
}

/// run_glue.py names the classes of a table of numbers by numbers.
#[test]
fn the_names_of_classes_may_be_numbers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.json");
    fs::write(&path, r#"{"model_type": "bert", "id2label": {"0": 0, "1": true}}"#).unwrap();
    let config = bert_model::BertConfig::from_file(&path).unwrap();
    assert_eq!(config.labels().unwrap().unwrap(), ["0", "true"]);
}

#[test]
fn layers_that_the_configuration_leaves_out_are_told() {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("models/gelu-odd").join(file), directory.path().join(file)).unwrap();
    }
    let layers = bert_model::BertConfig::from_file(directory.path().join("config.json")).unwrap().num_hidden_layers;
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

/// A copy of a golden model directory, to be spoiled.
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
        ("\"hidden_size\": 24", "\"hidden_size\": \"24\"", "invalid type: string"),
        ("\"hidden_size\": 24", "\"hidden_size\": 99999999999", "`hidden_size` is 99999999999"),
        ("\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"", "`model_type` is \"gpt2\", expected \"bert\""),
        (
            "\"is_decoder\": false",
            "\"num_labels\": 99999999999",
            "`num_labels` is 99999999999, expected a whole number from 1 to 1000000",
        ),
        ("\"is_decoder\": false", "\"id2label\": {}", "`num_labels` is 0"),
        ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", "unknown variant `mish`"),
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
    assert!(error.contains("found no weights, expected model.safetensors"), "{error}");
    let error = spoiled(|directory| fs::remove_file(directory.join("config.json")).unwrap());
    assert!(error.contains("config.json: cannot read: No such file"), "{error}");
    let error = spoiled(|directory| fs::write(directory.join("model.safetensors"), b"").unwrap());
    assert!(error.contains("model.safetensors: found 0 bytes, expected a whole safetensors file"), "{error}");
}

#[test]
fn truncation_anywhere_is_noticed() {
    let whole = fs::read(golden("models/gelu-odd/model.safetensors")).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 97) {
        let error = spoiled(|directory| fs::write(directory.join("model.safetensors"), &whole[..length]).unwrap());
        assert!(error.contains("a whole safetensors file"), "{length}: {error}");
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
        assert!(error.contains("a whole safetensors file"), "{error}");
    }
}

/// Replaces one tensor of the file.
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
    assert!(error.contains("a .safetensors file beside it"), "{error}");
}

#[test]
fn vocabularies_that_cannot_be_are_refused_by_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vocab.txt");
    let special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    let error = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        Tokenizer::load(directory.path()).unwrap_err().to_string()
    };
    assert!(error(b"[PAD]\n[UNK]\nthe\n").contains("found no [CLS]"));
    assert!(error(format!("{special}the\nof\nthe\n").as_bytes()).contains("vocab.txt:8: found a duplicate of \"the\""));
    assert!(error(&[special.as_bytes(), b"\xff\n"].concat()).contains("vocab.txt:6: found bytes that are not UTF-8"));
    assert!(error(b"").contains("found no [PAD]"));
    fs::write(directory.path().join("tokenizer.json"), "{\"version\":").unwrap();
    assert!(Tokenizer::load(directory.path()).unwrap_err().to_string().contains("tokenizer.json"));
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
