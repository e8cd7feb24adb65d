//! What is set for embeddings beyond what all tasks have.

use std::path::PathBuf;

use bert_model::pipeline::sentence_transformers::Step;
use bert_model::pipeline::{Pooling, SentenceTransformer};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the vectors of a text's tokens become one, where it is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingPooling {
    /// Their mean, padding left out.
    Mean,
    /// That of `[CLS]`.
    Cls,
    /// The highest of each component.
    Max,
}

/// How embeddings are learned; part of `finetune.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingSettings {
    /// Columns of texts that do not belong to the first one.
    pub negatives: Vec<String>,
    /// What cosines are multiplied by.
    pub scale: f64,
    /// The least and the greatest score of the training file.
    pub score_range: Option<(f64, f64)>,
    /// In the place of the directory's pooling.
    pub pooling: Option<EmbeddingPooling>,
    /// Scales vectors to length 1, whether or not the directory says so.
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
    /// Whether nothing is set that a file would have to keep.
    pub fn is_usual(&self) -> bool {
        *self == Self { model: self.model.clone(), ..Self::default() }
    }

    /// Changes what a directory says as the settings have it.
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
