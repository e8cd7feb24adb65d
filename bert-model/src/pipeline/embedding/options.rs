//! What a caller may want of an embedding, where the model's directory says otherwise or nothing.

use super::{Combine, EmbeddingProcessor, Layers, Pooling, Windows};
use crate::error::Result;
use crate::pipeline::Builder;
use crate::pipeline::sentence_transformers::Prompts;

/// What an embedding is made of.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EmbeddingOptions {
    /// Tokens to one vector; `None` as the directory says, else their mean.
    pub pooling: Option<Pooling>,
    /// Which hidden states.
    pub layers: Layers,
    /// Several layers to one vector.
    pub combine: Combine,
    /// Whether vectors are scaled to length 1; `None` as the directory says, else not.
    pub normalize: Option<bool>,
    /// How a text that is longer than the model reads is embedded; `None` truncates it.
    pub windows: Option<Windows>,
    /// What is put in front of every text.
    pub(super) prompt: PromptChoice,
}

/// Which prompt is put in front of a text.
#[derive(Debug, Clone, Default)]
pub(super) enum PromptChoice {
    /// The one that the directory names as its default, if any.
    #[default]
    Usual,
    /// One of the directory's.
    Named(String),
    /// This text.
    Text(String),
}

impl PromptChoice {
    /// The text of the prompt.
    pub(super) fn text<'a>(&'a self, prompts: &'a Prompts) -> Result<&'a str> {
        match self {
            Self::Usual => Ok(prompts.usual()),
            Self::Named(name) => prompts.named(name),
            Self::Text(text) => Ok(text),
        }
    }
}

/// A prompt and its tokens: what opens a sequence, then its WordPieces; no token for the empty text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    pub text: String,
    pub ids: Vec<u32>,
}

impl Builder<EmbeddingProcessor> {
    /// How the vectors of a text's tokens become one; default: as the directory says, else their mean.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.options.pooling = Some(pooling);
        self
    }

    /// The layers that vectors are taken from; default: the last one.
    pub fn layers(mut self, layers: Layers) -> Self {
        self.options.layers = layers;
        self
    }

    /// How several layers become one vector; default: concatenated.
    pub fn combine(mut self, combine: Combine) -> Self {
        self.options.combine = combine;
        self
    }

    /// Whether every vector is scaled to length 1, so that a dot product is the cosine; default: as the directory says,
    /// else not.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.options.normalize = Some(normalize);
        self
    }

    /// Embeds a text that is longer than the model reads in windows, whose vectors become one; default: it is truncated.
    pub fn windows(mut self, windows: Windows) -> Self {
        self.options.windows = Some(windows);
        self
    }

    /// Puts one of the directory's prompts in front of every text; default: the one that the directory names, if any.
    pub fn prompt(mut self, name: impl Into<String>) -> Self {
        self.options.prompt = PromptChoice::Named(name.into());
        self
    }

    /// Puts a text in front of every text; the empty one stands for none.
    pub fn prompt_text(mut self, text: impl Into<String>) -> Self {
        self.options.prompt = PromptChoice::Text(text.into());
        self
    }
}
