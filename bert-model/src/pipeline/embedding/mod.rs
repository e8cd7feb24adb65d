//! Texts to vectors: contextual embeddings as features (paper, section 5.3), from any layers, pooled or for every token,
//! and sentence embeddings as a directory of sentence-transformers says.
//!
//! A text passes [`prompt`](TextEmbedder::embed_with_prompt) → tokens → encoder → `layers` → `pooling` → the steps of
//! [`SentenceTransformer`]; a long one may do so in `windows`.

mod layers;
mod options;
mod pooling;
mod processor;
mod windows;

use super::Pipeline;
use super::sentence_transformers::{SentenceTransformer, Similarity};
use crate::error::Result;
use crate::text::Sequence;

pub use layers::{Combine, Layers};
pub use options::EmbeddingOptions;
use options::Prompt;
pub use pooling::{PooledTokens, Pooling};
pub use processor::EmbeddingProcessor;
pub use windows::Windows;

/// Texts to vectors.
///
/// A directory of [sentence-transformers](super::sentence_transformers) is obeyed: its pooling, its dense layers, its
/// scaling to length 1, its longest sequence, its prompts. Any other is pooled by the mean of all tokens. The
/// [builder](super::Builder) overrides each of these.
///
/// The width `W` of a vector is the model's hidden size H, times the number of layers if several are concatenated, times
/// the number of poolings if there are several; a dense layer has its own.
///
/// ```no_run
/// use bert_model::pipeline::{Pooling, TextEmbedder};
///
/// # fn main() -> bert_model::Result<()> {
/// let embedder = TextEmbedder::builder().pooling(Pooling::Cls).normalize(true).open("DIR")?;
/// let vectors: Vec<Vec<f32>> = embedder.embed(&["a short text", "a longer text than the first"])?;
/// # Ok(())
/// # }
/// ```
pub type TextEmbedder = Pipeline<EmbeddingProcessor>;

/// What is asked about one text.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingRequest<'a> {
    text: &'a str,
    /// Whether every token gets a vector, rather than the text one.
    every_token: bool,
    /// In the place of the processor's own.
    prompt: Option<&'a Prompt>,
}

impl<'a> EmbeddingRequest<'a> {
    /// For one vector of the whole text.
    pub fn text(text: &'a str) -> Self {
        Self { text, every_token: false, prompt: None }
    }

    /// For one vector for each token.
    pub fn tokens(text: &'a str) -> Self {
        Self { every_token: true, ..Self::text(text) }
    }
}

/// A tokenized text, or a window of one.
#[derive(Debug, Clone)]
pub struct TextInput {
    sequence: Sequence,
    /// Tokens of a prompt that are not pooled.
    skipped: usize,
    every_token: bool,
}

impl TextInput {
    /// Its tokens.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Those that are pooled.
    pub fn pooled_tokens(&self) -> PooledTokens {
        PooledTokens { skipped: self.skipped, length: self.sequence.len() }
    }
}

/// The vectors of a text's tokens.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenEmbeddings {
    /// The WordPieces, special tokens included.
    pub tokens: Vec<String>,
    /// One vector of width W for each of them.
    pub vectors: Vec<Vec<f32>>,
}

impl TextEmbedder {
    /// One vector of width W for each text. Longer texts than the model reads are truncated and
    /// [counted](Pipeline::truncated_count), unless there are [windows](super::Builder::windows).
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<f32>>> {
        self.vectors(&texts.iter().map(|text| EmbeddingRequest::text(text.as_ref())).collect::<Vec<_>>())
    }

    /// As [`TextEmbedder::embed`], with `prompt` in front of each text rather than the usual one; the empty text stands
    /// for none. The model's own prompts are in [`SentenceTransformer::prompts`].
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_with_prompt<S: AsRef<str>>(&self, texts: &[S], prompt: &str) -> Result<Vec<Vec<f32>>> {
        let prompt = self.processor().prompt(prompt)?;
        let request = |text| EmbeddingRequest { prompt: Some(&prompt), ..EmbeddingRequest::text(text) };
        self.vectors(&texts.iter().map(|text| request(text.as_ref())).collect::<Vec<_>>())
    }

    fn vectors(&self, requests: &[EmbeddingRequest]) -> Result<Vec<Vec<f32>>> {
        let embeddings = self.run(requests)?;
        Ok(embeddings.into_iter().map(|embedding| embedding.vectors.into_iter().next().unwrap_or_default()).collect())
    }

    /// One vector for each token of each text: the hidden states of the chosen layers; pooling and what follows it do not
    /// apply, but for [`normalize`](super::Builder::normalize).
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<TokenEmbeddings>> {
        self.run(&texts.iter().map(|text| EmbeddingRequest::tokens(text.as_ref())).collect::<Vec<_>>())
    }

    /// How texts are embedded: what the directory says, as changed by the builder.
    pub fn description(&self) -> &SentenceTransformer {
        self.processor().description()
    }

    /// How two vectors of this model are compared.
    pub fn similarity(&self) -> Similarity {
        self.description().similarity
    }
}
