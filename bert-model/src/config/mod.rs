//! The configuration of a BERT model: Hugging Face's `config.json`, which is read, validated and written back in full.
//!
//! Keys that this crate does not use are preserved, so loading and saving a model directory loses nothing. The named
//! sizes are those of Devlin et al. (2018, section 3) and Turc et al. (2019).

mod keys;
mod validate;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::file::{read_text, write_json};

/// The nonlinearity of the feed-forward layer and of the MLM head (`hidden_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact Gaussian error linear unit, x·Φ(x), which the released checkpoints were trained with.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// The tanh approximation of GELU.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast", alias = "gelu_accurate", alias = "gelu_python_tanh")]
    GeluNew,
    /// Rectified linear unit, max(0, x).
    Relu,
    /// Sigmoid linear unit, x·σ(x), also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// Hyperbolic tangent, tanh(x).
    Tanh,
}

/// The kind of target that a sequence classification head predicts (`problem_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// One number; mean squared error.
    Regression,
    /// Exactly one of several labels; cross-entropy.
    SingleLabelClassification,
    /// Any subset of the labels; binary cross-entropy per label.
    MultiLabelClassification,
}

/// Hugging Face's `BertConfig`; the default is BERT-base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Always "bert".
    pub model_type: String,
    /// Class names of the architectures that the weights were saved from, such as "BertForPreTraining".
    pub architectures: Option<Vec<String>>,
    /// Number of WordPieces, V.
    pub vocab_size: usize,
    /// Width of the hidden states, H.
    pub hidden_size: usize,
    /// Number of encoder layers, L.
    pub num_hidden_layers: usize,
    /// Number of attention heads, A; divides the hidden size.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward layer, 4H in the paper.
    pub intermediate_size: usize,
    /// Nonlinearity of the feed-forward layer.
    pub hidden_act: Activation,
    /// Dropout probability after the embeddings and after each sub-layer.
    pub hidden_dropout_prob: f64,
    /// Dropout probability of the attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Dropout probability before a task head; `None` means `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// Maximum sequence length, in tokens.
    pub max_position_embeddings: usize,
    /// Number of token types (segments).
    pub type_vocab_size: usize,
    /// Standard deviation of the normal distribution that initial weights are drawn from.
    pub initializer_range: f64,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Id of `[PAD]`.
    pub pad_token_id: Option<usize>,
    /// Whether the MLM decoder shares its weights with the word embeddings.
    pub tie_word_embeddings: bool,
    /// The kind of target that a sequence classification head predicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<ProblemType>,
    /// Label names by index, in Hugging Face's form: `{"0": "negative", …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id2label: Option<Map<String, Value>>,
    /// The inverse of `id2label`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label2id: Option<Map<String, Value>>,
    /// All other keys, preserved unchanged.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            model_type: "bert".into(),
            architectures: None,
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            tie_word_embeddings: true,
            problem_type: None,
            id2label: None,
            label2id: None,
            other: Map::new(),
        }
    }
}

/// The named sizes: name, layers, hidden size, heads.
const SIZES: [(&str, usize, usize, usize); 6] = [
    ("tiny", 2, 128, 2),
    ("mini", 4, 256, 4),
    ("small", 4, 512, 8),
    ("medium", 8, 512, 8),
    ("base", 12, 768, 12),
    ("large", 24, 1024, 16),
];

/// Keys of Hugging Face's `PretrainedConfig` and `BertConfig` that this crate accepts besides its own
/// fields: three are validated, the rest is ignored.
const KNOWN_OTHER_KEYS: [&str; 30] = [
    "_name_or_path",
    "add_cross_attention",
    "attn_implementation",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cls_token_id",
    "directionality",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "is_decoder",
    "is_encoder_decoder",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "position_embedding_type",
    "pruned_heads",
    "return_dict",
    "sep_token_id",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
];

impl BertConfig {
    /// One of the named sizes (tiny 2/128/2, mini 4/256/4, small 4/512/8, medium 8/512/8, base
    /// 12/768/12, large 24/1024/16: layers/hidden/heads, feed-forward 4 × hidden); `None` for any
    /// other name.
    ///
    /// ```
    /// let config = bert_model::BertConfig::named("tiny").unwrap().with_vocab_size(8192);
    /// assert_eq!((config.num_hidden_layers, config.hidden_size, config.head_size()), (2, 128, 64));
    /// ```
    pub fn named(name: &str) -> Option<Self> {
        let (_, layers, hidden, heads) = *SIZES.iter().find(|(size, ..)| *size == name)?;
        Some(Self {
            num_hidden_layers: layers,
            hidden_size: hidden,
            num_attention_heads: heads,
            intermediate_size: 4 * hidden,
            ..Self::default()
        })
    }

    /// The names that [`BertConfig::named`] accepts, formatted for messages as "tiny, mini, …".
    pub fn size_names() -> String {
        SIZES.map(|(name, ..)| name).join(", ")
    }

    /// Replaces the vocabulary size.
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        self.vocab_size = vocab_size;
        self
    }

    /// Disables all dropout.
    pub fn without_dropout(mut self) -> Self {
        self.hidden_dropout_prob = 0.0;
        self.attention_probs_dropout_prob = 0.0;
        self.classifier_dropout = Some(0.0);
        self
    }

    /// Sets `labels`, in index order, as the classes of the task head.
    pub fn with_labels<S: AsRef<str>>(mut self, labels: &[S]) -> Self {
        let labels = || labels.iter().map(|label| label.as_ref().to_string()).enumerate();
        self.id2label = Some(labels().map(|(id, label)| (id.to_string(), label.into())).collect());
        self.label2id = Some(labels().map(|(id, label)| (label, id.into())).collect());
        self.other.shift_remove("num_labels");
        self
    }

    /// Removes the classes, for a task head without labels.
    pub fn without_labels(mut self) -> Self {
        (self.id2label, self.label2id) = (None, None);
        self.other.shift_remove("num_labels");
        self
    }

    /// The label names in index order; `None` if the configuration has none. An index without a name is named `LABEL_`
    /// followed by its number, as in Hugging Face's libraries.
    ///
    /// # Errors
    /// If `id2label` is not a map from numbers to names.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        let Some(id2label) = &self.id2label else { return Ok(None) };
        let bad = || {
            let found = Value::from(id2label.clone()).to_string();
            Error::config("config.json", "id2label", found, "names for 0, 1, 2, …")
        };
        let mut labels: Vec<String> = (0..self.num_labels()).map(|id| format!("LABEL_{id}")).collect();
        for (id, name) in id2label {
            let label = id.parse().ok().and_then(|id: usize| labels.get_mut(id)).ok_or_else(bad)?;
            match name {
                Value::String(name) => *label = name.clone(),
                // run_glue.py writes numbers here for a table whose labels are numbers.
                Value::Number(_) | Value::Bool(_) => *label = name.to_string(),
                Value::Null => {}
                _ => return Err(bad()),
            }
        }
        Ok(Some(labels))
    }

    /// The names of the classes, or Hugging Face's `LABEL_0`, `LABEL_1`, … if the configuration names none.
    ///
    /// # Errors
    /// As [`BertConfig::labels`].
    pub fn label_names(&self) -> Result<Vec<String>> {
        let numbered = || (0..self.num_labels()).map(|id| format!("LABEL_{id}")).collect();
        Ok(self.labels()?.unwrap_or_else(numbered))
    }

    /// The problem that the classification head is trained for: `problem_type` if set; otherwise regression for one
    /// label and single-label classification for more, as in transformers.
    pub fn head_problem(&self) -> ProblemType {
        let usual = match self.num_labels() {
            1 => ProblemType::Regression,
            _ => ProblemType::SingleLabelClassification,
        };
        self.problem_type.unwrap_or(usual)
    }

    /// Number of classes of the task head: one more than the highest number in `id2label` if set, otherwise
    /// `num_labels`, otherwise Hugging Face's default of 2.
    pub fn num_labels(&self) -> usize {
        let end = |names: &Map<String, Value>| {
            let ids = names.keys().filter_map(|id| id.parse::<usize>().ok());
            ids.max().map_or(names.len(), |highest| highest.saturating_add(1))
        };
        let counted = || self.other.get("num_labels").and_then(Value::as_u64).map(|n| n as usize);
        self.id2label.as_ref().map(end).or_else(counted).unwrap_or(2)
    }

    /// Width of one attention head, H / A.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Dropout probability before a task head.
    pub fn head_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// Reads the `config.json` of a model directory, preserving unknown keys.
    ///
    /// # Errors
    /// If the file cannot be read, is not JSON, or does not describe a BERT encoder.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(&read_text(path)?, path)
    }

    /// Reads the contents of a `config.json`.
    ///
    /// # Errors
    /// As [`BertConfig::from_file`].
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let path = Path::new("config.json");
        let json = std::str::from_utf8(json).map_err(|error| Error::file(path, error.to_string(), "UTF-8"))?;
        Self::parse(json, path)
    }

    fn parse(json: &str, path: &Path) -> Result<Self> {
        let keys: Map<String, Value> = serde_json::from_str(json).map_err(|error| {
            let message = error.to_string();
            let what = message.rsplit_once(" at line ").map_or(&*message, |(what, _)| what);
            Error::line(path, error.line().max(1) as u64, what, "a Hugging Face BERT configuration")
        })?;
        let origin = path.display().to_string();
        let config = Self::from_keys(keys, &origin)?;
        config.validate(&origin)?;
        Ok(config)
    }

    /// Like [`BertConfig::from_file`], but rejects keys that no BERT configuration has: in a hand-written file they are
    /// most likely typos.
    ///
    /// # Errors
    /// As [`BertConfig::from_file`], and if there is an unknown key.
    pub fn from_file_strict(path: impl AsRef<Path>) -> Result<Self> {
        let config = Self::from_file(&path)?;
        match config.other.keys().find(|key| !KNOWN_OTHER_KEYS.contains(&key.as_str()) && *key != "num_labels") {
            Some(key) => Err(Error::config(
                path.as_ref().display().to_string(),
                key,
                "an unknown key",
                "a key of Hugging Face's BertConfig",
            )),
            None => Ok(config),
        }
    }

    /// Writes the configuration as `config.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_json(path, self)
    }
}
