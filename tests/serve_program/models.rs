//! Model directories for the golden heads, and pipelines that run them without a server.

use std::fs;
use std::path::{Path, PathBuf};

use bert_model::Tokenizer;
use bert_model::pipeline::{Builder, FromCheckpoint, Pipeline};
use bert_model::text::tokenizer::Normalization;
use burn::tensor::Device;
use serde_json::Value;
use tempfile::TempDir;

/// Directory, golden head, and architecture of each model.
const HEADS: [(&str, &str, &str); 8] = [
    ("encoder", "BertForMaskedLM", "BertModel"),
    ("masks", "BertForMaskedLM", "BertForMaskedLM"),
    ("labels", "BertForSequenceClassification", "BertForSequenceClassification"),
    ("several", "BertForSequenceClassification-multi_label", "BertForSequenceClassification"),
    ("ranker", "BertForSequenceClassification-regression", "BertForSequenceClassification"),
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
