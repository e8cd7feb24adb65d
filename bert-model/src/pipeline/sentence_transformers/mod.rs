//! Reads and writes the settings of a [sentence-transformers](https://sbert.net) directory.
//!
//! | file | contents |
//! |---|---|
//! | `modules.json` | the modules that a text passes through, and their folders |
//! | `sentence_bert_config.json` | how texts are tokenized: `max_seq_length`, `do_lower_case` |
//! | `1_Pooling/config.json` | how the vectors of a text's tokens are pooled ([`Pooling`]) |
//! | `2_Dense/config.json` and weights | a dense layer after pooling ([`DenseWeights`]) |
//! | `config_sentence_transformers.json` | [`Prompts`], and how two vectors are compared ([`Similarity`]) |
//!
//! The module `read` supports the formats of all versions of the library; `write` writes the format that all of them
//! can read.

mod dense;
mod prompts;
mod read;
mod similarity;
mod write;

use std::path::{Path, PathBuf};

use super::Pooling;
use crate::error::Result;

pub use dense::DenseWeights;
pub use prompts::Prompts;
pub use similarity::Similarity;
pub use write::save;

const MODULES: &str = "modules.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const SETTINGS: &str = "config_sentence_transformers.json";

/// How a sentence-transformers directory embeds texts.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceTransformer {
    /// Maximum sequence length in tokens, special tokens included; `None` for the model's number of positions.
    pub max_length: Option<usize>,
    /// Whether texts are lowercased before tokenization.
    pub lowercase: bool,
    /// How the vectors of a text's tokens are pooled; the results of several modes are concatenated in this order.
    pub pooling: Vec<Pooling>,
    /// Whether the tokens of a prompt are included in pooling.
    pub include_prompt: bool,
    /// The steps applied to the pooled vector, in order.
    pub steps: Vec<Step>,
    /// Number of leading components of a vector to keep; `None` for all.
    pub truncate_dim: Option<usize>,
    /// The prompts put in front of texts.
    pub prompts: Prompts,
    /// How two vectors are compared.
    pub similarity: Similarity,
}

/// A module after pooling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// A dense layer with its activation.
    Dense(DenseWeights),
    /// Scales a vector to length 1.
    Normalize,
}

/// The mean over all tokens of the last layer without further steps, as sentence-transformers treats any other model
/// directory.
impl Default for SentenceTransformer {
    fn default() -> Self {
        Self {
            max_length: None,
            lowercase: false,
            pooling: vec![Pooling::Mean],
            include_prompt: true,
            steps: Vec::new(),
            truncate_dim: None,
            prompts: Prompts::default(),
            similarity: Similarity::default(),
        }
    }
}

impl SentenceTransformer {
    /// Reads the settings of `directory`; `None` if it is not a sentence-transformers directory, or contains a
    /// cross-encoder.
    ///
    /// # Errors
    /// If a file is malformed, a module is not one of `Transformer`, `Pooling`, `Dense` and `Normalize`, or the modules
    /// are in an unsupported order.
    pub fn read(directory: impl AsRef<Path>) -> Result<Option<Self>> {
        read::read(directory.as_ref())
    }

    /// Whether the last step scales vectors to length 1, before `truncate_dim` cuts them.
    pub fn is_normalized(&self) -> bool {
        self.steps.last() == Some(&Step::Normalize)
    }

    /// The dense layers, in order.
    pub fn dense(&self) -> impl Iterator<Item = &DenseWeights> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dense(dense) => Some(dense),
            Step::Normalize => None,
        })
    }
}

/// The directory of a model's encoder: `directory` itself, or the folder that `modules.json` names (`0_Transformer` in
/// old directories).
///
/// # Errors
/// If `modules.json` is malformed.
pub fn encoder_directory(directory: impl AsRef<Path>) -> Result<PathBuf> {
    read::encoder_directory(directory.as_ref())
}

/// The maximum sequence length in tokens according to `tokenizer_config.json`; `None` if it sets none.
pub(super) fn tokenizer_length(directory: &Path) -> Result<Option<usize>> {
    read::tokenizer_length(directory)
}

/// What `config_sentence_transformers.json` says of a cross-encoder.
#[derive(Debug, Default)]
pub(super) struct CrossEncoderSettings {
    /// The class of the activation.
    pub activation: Option<String>,
    /// The default prompt, empty if there is none.
    pub prompt: String,
}

impl CrossEncoderSettings {
    /// Reads the settings of a directory; the default without the file.
    pub fn read(directory: &Path) -> Result<Self> {
        read::cross_encoder(directory)
    }
}

#[cfg(test)]
mod tests;
