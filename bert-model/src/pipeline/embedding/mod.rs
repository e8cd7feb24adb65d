//! Texts to vectors: contextual embeddings as features (Devlin et al. 2018, §5.3), from any layers, pooled or per
//! token, and sentence embeddings as configured by a sentence-transformers directory.
//!
//! The steps are [`prompt`](TextEmbedder::embed_with_prompt) → tokens → encoder → `layers` → `pooling` → the steps of
//! [`SentenceTransformer`]. A long text may be processed in `windows`.

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

/// Embeds texts as vectors.
///
/// If the directory is in the format of [sentence-transformers](super::sentence_transformers), its settings apply:
/// pooling, dense layers, normalization to length 1, maximum sequence length, and prompts. For any other directory, the
/// default is mean pooling over all tokens. The [builder](super::Builder) overrides each of these settings.
///
/// The width `W` of a vector is the model's hidden size H, multiplied by the number of layers if several are
/// concatenated, and by the number of pooling modes if there are several; a dense layer or `truncate_dim` sets a width
/// of its own.
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

/// A text to embed, and how.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingRequest<'a> {
    text: &'a str,
    /// Whether to return a vector for every token instead of one for the text.
    every_token: bool,
    prompt: RequestPrompt<'a>,
}

/// The prompt of one request.
#[derive(Debug, Clone, Copy, Default)]
enum RequestPrompt<'a> {
    /// The processor's own.
    #[default]
    Default,
    /// This one.
    Given(&'a Prompt),
    /// The model's prompt with this name.
    Named(&'a str),
}

impl<'a> EmbeddingRequest<'a> {
    /// Requests one vector for the whole text.
    pub fn text(text: &'a str) -> Self {
        Self { text, every_token: false, prompt: RequestPrompt::Default }
    }

    /// Requests one vector for each token.
    pub fn tokens(text: &'a str) -> Self {
        Self { every_token: true, ..Self::text(text) }
    }

    /// Puts the model's prompt with this name in front of the text, instead of the default one. The request fails if
    /// the model has no such prompt.
    pub fn prompt(self, name: &'a str) -> Self {
        Self { prompt: RequestPrompt::Named(name), ..self }
    }
}

/// A tokenized text, or a window of one.
#[derive(Debug, Clone)]
pub struct TextInput {
    sequence: Sequence,
    /// Number of tokens excluded from pooling because they belong to a prompt.
    skipped: usize,
    every_token: bool,
}

impl TextInput {
    /// The tokens of the text or window.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The tokens that are pooled.
    pub fn pooled_tokens(&self) -> PooledTokens {
        PooledTokens { skipped: self.skipped, length: self.sequence.len() }
    }
}

/// The answer to an [`EmbeddingRequest`]: for `tokens`, one vector per token; for `text`, no tokens and a single
/// vector.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenEmbeddings {
    /// The WordPieces, special tokens included.
    pub tokens: Vec<String>,
    /// One vector of width W per token, or a single one for the whole text.
    pub vectors: Vec<Vec<f32>>,
}

impl TextEmbedder {
    /// Returns one vector of width W for each text. Texts longer than the model's maximum length are truncated and
    /// [counted](Pipeline::truncated_count), unless [windows](super::Builder::windows) are enabled.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<f32>>> {
        self.vectors(&texts.iter().map(|text| EmbeddingRequest::text(text.as_ref())).collect::<Vec<_>>())
    }

    /// As [`TextEmbedder::embed`], with `prompt` in front of each text instead of the default one; an empty `prompt`
    /// means none. The model's own prompts are in [`SentenceTransformer::prompts`].
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_with_prompt<S: AsRef<str>>(&self, texts: &[S], prompt: &str) -> Result<Vec<Vec<f32>>> {
        let prompt = self.processor().prompt(prompt)?;
        let request = |text| EmbeddingRequest { prompt: RequestPrompt::Given(&prompt), ..EmbeddingRequest::text(text) };
        self.vectors(&texts.iter().map(|text| request(text.as_ref())).collect::<Vec<_>>())
    }

    fn vectors(&self, requests: &[EmbeddingRequest]) -> Result<Vec<Vec<f32>>> {
        let embeddings = self.run(requests)?;
        Ok(embeddings.into_iter().map(|embedding| embedding.vectors.into_iter().next().unwrap_or_default()).collect())
    }

    /// Returns one vector for each token of each text: the hidden states of the chosen layers. Pooling and the steps
    /// after it do not apply, except for [`normalize`](super::Builder::normalize).
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<TokenEmbeddings>> {
        self.run(&texts.iter().map(|text| EmbeddingRequest::tokens(text.as_ref())).collect::<Vec<_>>())
    }

    /// The settings for embedding texts: those of the directory, as changed by the builder.
    pub fn description(&self) -> &SentenceTransformer {
        self.processor().description()
    }

    /// The function that compares two vectors of this model.
    pub fn similarity(&self) -> Similarity {
        self.description().similarity
    }
}
