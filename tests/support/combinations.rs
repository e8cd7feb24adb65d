//! Model directories that are odd in several ways at once, drawn from a seed: a configuration, a tokenizer, a head and
//! options that each could be, whether or not they fit.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use bert_model::Tokenizer;
use bert_model::pretrained::save::HostTensor;
use bert_model::pretrained::save_weights;
use bert_model::pretrained::weights::Weights;
use bert_model::text::tokenizer::Normalization;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::{Value, json};

use super::support::golden;

/// The golden heads, which all have the encoder of `models/gelu-odd`.
pub const HEADS: [&str; 8] = [
    "BertForSequenceClassification",
    "BertForSequenceClassification-multi_label",
    "BertForSequenceClassification-regression",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertForMultipleChoice",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
];

/// Texts without and with what tokenizers treat in their own way; `word5` to `word66` are the vocabulary.
pub const TEXTS: [&str; 9] = [
    "",
    " ",
    "word5",
    "word6 word7 [MASK] word66",
    "[CLS] word60 [SEP] [PAD] [MASK]",
    "word5 word6 word7 word8 word9 word10 word11 word12 word13 word14 word15 word16 word17 word18 word19 word20 word21",
    "漢字 <e1> word65\u{301}\u{200b}",
    "[MASK]",
    "word66,word65;word64",
];

/// One of several values.
pub fn any<T: Clone>(rng: &mut impl Rng, values: &[T]) -> T {
    values.choose(rng).unwrap().clone()
}

/// Writes a directory with the head of that name, and what was drawn.
pub fn write_directory(directory: &Path, head: &str, rng: &mut impl Rng) {
    let heads = golden("models/gelu-odd/heads");
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(heads.join(format!("{head}.config.json"))).unwrap()).unwrap();
    let mut tensors = read_tensors(&heads.join(format!("{head}.safetensors")));
    for _ in 0..rng.random_range(0..4) {
        change_model(&mut config, &mut tensors, rng);
    }
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    save_weights(directory.join("model.safetensors"), &tensors.into_iter().collect()).unwrap();
    write_tokenizer(directory, rng);
    if rng.random_bool(0.1) {
        let usage = json!({"max_seq_len": any(rng, &[0, 1, 8, 1000]), "doc_stride": any(rng, &[0, 1, 1000])});
        fs::write(directory.join("finetune.json"), usage.to_string()).unwrap();
    }
}

fn read_tensors(path: &Path) -> Vec<(String, HostTensor)> {
    let weights = Weights::verbatim(path).unwrap();
    let tensor = |name: &str| {
        let shape = weights.shape(name).unwrap().to_vec();
        let values = weights.read(name, &shape).unwrap().unwrap();
        (name.to_string(), HostTensor { shape, values })
    };
    weights.names().map(tensor).collect()
}

/// Cuts the tensors whose names end so to their first rows, which may be more than there are.
fn cut(tensors: &mut [(String, HostTensor)], end: &str, rows: usize) {
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.ends_with(end)) {
        let width: usize = tensor.shape[1..].iter().product();
        if rows <= tensor.shape[0] {
            tensor.shape[0] = rows;
            tensor.values.truncate(rows * width);
        }
    }
}

fn change_model(config: &mut Value, tensors: &mut [(String, HostTensor)], rng: &mut impl Rng) {
    match rng.random_range(0..9) {
        0 => {
            let types = any(rng, &[1, 2, 3]);
            config["type_vocab_size"] = types.into();
            cut(tensors, "token_type_embeddings.weight", types);
        }
        1 => {
            let positions = rng.random_range(1..21);
            config["max_position_embeddings"] = positions.into();
            cut(tensors, "position_embeddings.weight", positions);
        }
        2 => {
            let pieces = rng.random_range(3..68);
            config["vocab_size"] = pieces.into();
            cut(tensors, "word_embeddings.weight", pieces);
            cut(tensors, "cls.predictions.bias", pieces);
        }
        3 => config["architectures"] = any(rng, &[json!(null), json!([]), json!(["BertModel"])]),
        4 => {
            let kinds = ["regression", "single_label_classification", "multi_label_classification"];
            config["problem_type"] = any(rng, &kinds).into();
        }
        5 => {
            let labels =
                [json!({"0": "a", "2": "b"}), json!({"0": "a", "1": "a", "2": 0}), json!({"0": "O"}), json!(null)];
            config["id2label"] = any(rng, &labels);
        }
        6 => {
            let labels = rng.random_range(1..4);
            config["id2label"] = (0..labels).map(|id| (id.to_string(), json!(format!("B-{id}")))).collect();
            cut(tensors, "classifier.weight", labels);
            cut(tensors, "classifier.bias", labels);
        }
        7 => config["num_hidden_layers"] = rng.random_range(0..5).into(),
        _ => config["pad_token_id"] = any(rng, &[json!(null), json!(-1), json!(66), json!(67)]),
    }
}

fn write_tokenizer(directory: &Path, rng: &mut impl Rng) {
    let missing = any(rng, &[None, None, None, Some("[MASK]"), Some("[PAD]"), Some("[UNK]")]);
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().filter(|token| Some(*token) != missing);
    let words = (5..rng.random_range(6..68)).map(|id| format!("word{id}"));
    let mut pieces: Vec<String> = special.map(str::to_string).chain(words).collect();
    if rng.random_bool(0.1) {
        pieces.push("word5".into());
    }
    let Ok(tokenizer) = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)) else {
        return fs::write(directory.join("vocab.txt"), pieces.join("\n")).unwrap();
    };
    tokenizer.save(directory, 19).unwrap();
    if rng.random_bool(0.2) {
        fs::remove_file(directory.join("tokenizer.json")).unwrap();
    } else {
        let mut file = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        for _ in 0..rng.random_range(0..3) {
            change_tokenizer(&mut file, rng);
        }
        fs::write(directory.join("tokenizer.json"), file.to_string()).unwrap();
    }
    for _ in 0..rng.random_range(0..2) {
        let files = [
            ("added_tokens.json", json!({"<e1>": pieces.len()})),
            ("special_tokens_map.json", json!({"cls_token": "word5", "additional_special_tokens": ["<e1>"]})),
            ("tokenizer_config.json", json!({"tokenizer_class": "PreTrainedTokenizerFast"})),
            ("tokenizer_config.json", json!({"mask_token": "word9", "unk_token": "word8", "do_lower_case": false})),
        ];
        let (file, content) = any(rng, &files);
        fs::write(directory.join(file), content.to_string()).unwrap();
    }
}

fn change_tokenizer(file: &mut Value, rng: &mut impl Rng) {
    let id = any(rng, &[0_u32, 2, 3, 5, 66, 5000]);
    let token_type = any(rng, &[0_u32, 1, 2, 256]);
    let part = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": token_type}});
    match rng.random_range(0..6) {
        0 => file["post_processor"] = Value::Null,
        1 => {
            let singles = [
                json!([part("SpecialToken", "[CLS]"), part("Sequence", "A"), part("SpecialToken", "[SEP]")]),
                json!([part("Sequence", "A")]),
                json!([part("Sequence", "B")]),
                json!([part("SpecialToken", "[CLS]")]),
                json!(vec![part("SpecialToken", "[SEP]"); 30]),
            ];
            let single = any(rng, &singles);
            let pair = any(rng, &[json!([part("Sequence", "A"), part("Sequence", "B")]), json!([])]);
            let cls = json!({"id": "[CLS]", "ids": [any(rng, &[2, id])], "tokens": ["[CLS]"]});
            let sep = json!({"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]});
            file["post_processor"] = json!({"type": "TemplateProcessing", "single": single, "pair": pair,
                                            "special_tokens": {"[CLS]": cls, "[SEP]": sep}});
        }
        2 => {
            let length = rng.random_range(0..3);
            let splits = [
                Value::Null,
                json!({"type": "Whitespace"}),
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
                json!({"type": "FixedLength", "length": length}),
            ];
            file["pre_tokenizer"] = any(rng, &splits);
        }
        3 => file["normalizer"] = any(rng, &[Value::Null, json!({"type": "NFKC"}), json!({"type": "Lowercase"})]),
        4 => file["model"]["vocab"]["word5"] = id.into(),
        _ => file["post_processor"] = json!({"type": "BertProcessing", "cls": ["[CLS]", id], "sep": ["[SEP]", 3]}),
    }
}
