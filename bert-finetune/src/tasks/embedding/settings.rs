//! Settings of the embedding task, in addition to those of all tasks.

use std::path::PathBuf;

use bert_model::pipeline::sentence_transformers::Step;
use bert_model::pipeline::{Pooling, SentenceTransformer};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How to pool the vectors of a text's tokens into one during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingPooling {
    /// The mean over all tokens, without padding.
    Mean,
    /// The vector of `[CLS]`.
    Cls,
    /// The maximum of each component.
    Max,
}

/// How embeddings are learned; part of `finetune.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingSettings {
    /// Columns of negatives: texts that do not belong to the first one.
    pub negatives: Vec<String>,
    /// Factor by which the loss multiplies cosines.
    pub scale: f64,
    /// The lowest and the highest score in the training file.
    pub score_range: Option<(f64, f64)>,
    /// Overrides the pooling of the model directory.
    pub pooling: Option<EmbeddingPooling>,
    /// Normalizes vectors to length 1, regardless of the model directory.
    pub normalize: bool,
    /// The model directory.
    #[serde(skip)]
    pub model: PathBuf,
}

impl Default for EmbeddingSettings {
    fn default() -> Self {
        Self {
            negatives: vec![],
            scale: 20.0,
            score_range: None,
            pooling: None,
            normalize: false,
            model: PathBuf::new(),
        }
    }
}

impl EmbeddingSettings {
    /// Overrides the configuration of the model directory with these settings.
    pub(super) fn change(&self, how: &mut SentenceTransformer) {
        if let Some(pooling) = self.pooling {
            how.pooling = vec![match pooling {
                EmbeddingPooling::Mean => Pooling::Mean,
                EmbeddingPooling::Cls => Pooling::Cls,
                EmbeddingPooling::Max => Pooling::Max,
            }];
        }
        if self.normalize && !how.is_normalized() {
            how.steps.push(Step::Normalize);
        }
    }
}
