//! Options for embeddings, which override the settings of the model directory.

use super::{Combine, EmbeddingProcessor, Layers, Pooling, Windows};
use crate::error::Result;
use crate::pipeline::Builder;
use crate::pipeline::sentence_transformers::Prompts;

/// Options of [`TextEmbedder`](super::TextEmbedder).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EmbeddingOptions {
    /// How the vectors of the tokens are pooled; `None` for the directory's setting or, if it has none, the mean.
    pub pooling: Option<Pooling>,
    /// The hidden layers to use.
    pub layers: Layers,
    /// How several layers are combined.
    pub combine: Combine,
    /// Whether to normalize vectors to length 1; `None` for the directory's setting or, if it has none, false.
    pub normalize: Option<bool>,
    /// How to embed a text that is longer than the model's maximum length; `None` truncates it.
    pub windows: Option<Windows>,
    /// The prompt in front of every text.
    pub(super) prompt: PromptChoice,
}

/// Selects the prompt in front of a text.
#[derive(Debug, Clone, Default)]
pub(super) enum PromptChoice {
    /// The directory's default prompt, if it has one.
    #[default]
    Default,
    /// The directory's prompt with this name.
    Named(String),
    /// This text.
    Text(String),
}

impl PromptChoice {
    /// The text of the prompt.
    pub(super) fn text<'a>(&'a self, prompts: &'a Prompts) -> Result<&'a str> {
        match self {
            Self::Default => Ok(prompts.default_text()),
            Self::Named(name) => prompts.named(name),
            Self::Text(text) => Ok(text),
        }
    }
}

/// A prompt and its tokens, including the special token that opens a sequence; no tokens if the text is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    pub text: String,
    pub ids: Vec<u32>,
}

impl Builder<EmbeddingProcessor> {
    /// Sets how the vectors of a text's tokens are pooled. Default: the directory's setting if it has one, otherwise
    /// the mean.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.options.pooling = Some(pooling);
        self
    }

    /// Sets the layers whose hidden states are used. Default: the last one.
    pub fn layers(mut self, layers: Layers) -> Self {
        self.options.layers = layers;
        self
    }

    /// Sets how several layers are combined. Default: they are concatenated.
    pub fn combine(mut self, combine: Combine) -> Self {
        self.options.combine = combine;
        self
    }

    /// Sets whether every vector is normalized to length 1, so that the dot product of two is their cosine. Default:
    /// the directory's setting if it has one, otherwise false.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.options.normalize = Some(normalize);
        self
    }

    /// Embeds a text that is longer than the model's maximum length in windows and combines their vectors. Default:
    /// such a text is truncated.
    pub fn windows(mut self, windows: Windows) -> Self {
        self.options.windows = Some(windows);
        self
    }

    /// Puts the directory's prompt with this name in front of every text. Default: the directory's default prompt, if
    /// it has one.
    pub fn prompt(mut self, name: impl Into<String>) -> Self {
        self.options.prompt = PromptChoice::Named(name.into());
        self
    }

    /// Puts `text` in front of every text; an empty one means no prompt.
    pub fn prompt_text(mut self, text: impl Into<String>) -> Self {
        self.options.prompt = PromptChoice::Text(text.into());
        self
    }
}
