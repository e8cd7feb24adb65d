//! Model directories for the golden heads, and pipelines that run them without a server.

use std::fs;
use std::path::{Path, PathBuf};

use bert_model::Tokenizer;
use bert_model::pipeline::{Builder, FromCheckpoint, Pipeline};
use bert_model::text::tokenizer::Normalization;
use burn::tensor::Device;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Directory, golden head, and architecture of each model.
const HEADS: [(&str, &str, &str); 9] = [
    ("encoder", "BertForMaskedLM", "BertModel"),
    ("masks", "BertForMaskedLM", "BertForMaskedLM"),
    ("labels", "BertForSequenceClassification", "BertForSequenceClassification"),
    ("several", "BertForSequenceClassification-multi_label", "BertForSequenceClassification"),
    ("ranker", "BertForSequenceClassification-regression", "BertForSequenceClassification"),
    ("follows", "BertForNextSentencePrediction", "BertForNextSentencePrediction"),
    ("tags", "BertForTokenClassification", "BertForTokenClassification"),
    ("answers", "BertForQuestionAnswering", "BertForQuestionAnswering"),
    ("choices", "BertForMultipleChoice", "BertForMultipleChoice"),
];

/// A directory with one model directory per head.
pub fn models() -> TempDir {
    let directory = TempDir::new().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models/gelu-odd/heads");
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let pieces: Vec<String> = special.into_iter().chain((5..67).map(|id| format!("word{id}"))).collect();
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap().to_json().unwrap();
    for (name, head, class) in HEADS {
        let at = directory.path().join(name);
        fs::create_dir(&at).unwrap();
        let config = fs::read_to_string(golden.join(format!("{head}.config.json"))).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["architectures"] = vec![class].into();
        if name == "ranker" {
            // Like published cross-encoders: one label and no `problem_type`.
            config["problem_type"] = Value::Null;
        }
        fs::write(at.join("config.json"), config.to_string()).unwrap();
        fs::copy(golden.join(format!("{head}.safetensors")), at.join("model.safetensors")).unwrap();
        fs::write(at.join("tokenizer.json"), &tokenizer).unwrap();
    }
    directory
}

/// Changes a JSON file of a model.
pub fn change(directory: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let path = directory.path().join(file);
    let mut value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Makes a model a directory of sentence-transformers with prompts, of which `query` is the default.
pub fn add_prompts(directory: &TempDir, model: &str) {
    let at = directory.path().join(model);
    fs::create_dir(at.join("1_Pooling")).unwrap();
    let class = |name: &str| format!("sentence_transformers.models.{name}");
    for (file, content) in [
        (
            "modules.json",
            json!([
                {"idx": 0, "name": "0", "path": "", "type": class("Transformer")},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": class("Pooling")}]),
        ),
        ("1_Pooling/config.json", json!({"pooling_mode": "mean"})),
        (
            "config_sentence_transformers.json",
            json!({"prompts": {"query": "word40 word41 ", "passage": "word50 "}, "default_prompt_name": "query"}),
        ),
    ] {
        fs::write(at.join(file), content.to_string()).unwrap();
    }
}

/// The same model as a pipeline, which computes the expected results.
pub fn open<P: FromCheckpoint>(directory: &TempDir, name: &str) -> Pipeline<P> {
    Builder::default().device(Device::flex()).open(directory.path().join(name)).unwrap()
}

/// The real all-MiniLM-L6-v2, where it is available; prints a note where it is not.
pub fn minilm() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models/all-MiniLM-L6-v2");
    if !path.exists() {
        println!("skipped: {} is not on this machine", path.display());
    }
    path.exists().then_some(path)
}
