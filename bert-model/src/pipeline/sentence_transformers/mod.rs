//! What a directory of [sentence-transformers](https://sbert.net) says about its embeddings, read and written.
//!
//! | file | says |
//! |---|---|
//! | `modules.json` | which modules a text passes, and in which folders they are |
//! | `sentence_bert_config.json` | how texts are tokenized: `max_seq_length`, `do_lower_case` |
//! | `1_Pooling/config.json` | how the vectors of a text's tokens become one ([`Pooling`]) |
//! | `2_Dense/config.json` and weights | a dense layer behind pooling ([`DenseWeights`]) |
//! | `config_sentence_transformers.json` | [`Prompts`], and how two vectors are compared ([`Similarity`]) |
//!
//! `read` knows the forms of these files in all versions of the library, `write` writes the form that all of
//! them read.

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

/// How a directory of sentence-transformers embeds texts.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceTransformer {
    /// Longest sequence in tokens, special tokens included; `None` for as many as the model has positions.
    pub max_length: Option<usize>,
    /// Whether texts are lowercased before the tokenizer sees them.
    pub lowercase: bool,
    /// How the vectors of a text's tokens become one; several are joined in this order.
    pub pooling: Vec<Pooling>,
    /// Whether the tokens of a prompt are pooled with those of the text.
    pub include_prompt: bool,
    /// What the pooled vector passes.
    pub steps: Vec<Step>,
    /// Numbers of a vector that are kept, from the first on; `None` for all.
    pub truncate_dim: Option<usize>,
    /// Texts to be put in front.
    pub prompts: Prompts,
    /// How two vectors are compared.
    pub similarity: Similarity,
}

/// A module behind pooling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// A dense layer with its activation.
    Dense(DenseWeights),
    /// Scales a vector to length 1.
    Normalize,
}

/// A mean over all tokens of the last layer, and nothing behind it: what sentence-transformers makes of any other
/// model directory.
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
    /// Reads what `directory` says; `None` if it is not one of sentence-transformers, or one of a cross-encoder.
    ///
    /// # Errors
    /// If a file is malformed, or a module is none of `Transformer`, `Pooling`, `Dense` and `Normalize`, or stands at
    /// another place than these do.
    pub fn read(directory: impl AsRef<Path>) -> Result<Option<Self>> {
        read::read(directory.as_ref())
    }

    /// Whether vectors have length 1.
    pub fn is_normalized(&self) -> bool {
        self.steps.last() == Some(&Step::Normalize)
    }

    /// The dense layers, in their order.
    pub fn dense(&self) -> impl Iterator<Item = &DenseWeights> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dense(dense) => Some(dense),
            Step::Normalize => None,
        })
    }
}

/// Where the encoder of a model directory is: in the directory itself, or in the folder that `modules.json` names
/// (`0_Transformer` in old directories).
///
/// # Errors
/// If `modules.json` is malformed.
pub fn encoder_directory(directory: impl AsRef<Path>) -> Result<PathBuf> {
    read::encoder_directory(directory.as_ref())
}

/// The longest sequence in tokens that `tokenizer_config.json` allows; `None` if it does not say.
pub(super) fn tokenizer_length(directory: &Path) -> Result<Option<usize>> {
    read::tokenizer_length(directory)
}

/// What `config_sentence_transformers.json` names as the activation of a cross-encoder.
pub(super) fn cross_encoder_activation(directory: &Path) -> Result<Option<String>> {
    read::cross_encoder_activation(directory)
}

#[cfg(test)]
mod tests;
