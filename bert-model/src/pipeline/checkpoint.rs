//! Checkpoints: a model directory, or its contents in memory, before the model is loaded onto a device.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::sentence_transformers::{CrossEncoderSettings, SentenceTransformer, encoder_directory, tokenizer_length};
use super::tags::TagScheme;
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::file::read_json;
use crate::hub::model_directory;
use crate::pretrained::weights::Weights;
use crate::pretrained::{Pretrained, load_config};
use crate::text::Tokenizer;

/// A trained model before it is loaded onto a device: configuration, weights, tokenizer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The contents of `config.json`.
    pub config: BertConfig,
    /// The tensors, which are read on demand.
    pub weights: Weights,
    /// The tokenizer, which has been checked to fit the model.
    pub tokenizer: Tokenizer,
    /// The directory in which to look for `finetune.json` and the files of sentence-transformers.
    directory: Option<PathBuf>,
}

/// The part of `finetune.json`, written by `bert-finetune`, that matters for prediction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FinetuneFile {
    /// Maximum sequence length in training, in tokens.
    pub max_seq_len: Option<usize>,
    /// WordPieces between the starts of consecutive windows of a long text.
    pub doc_stride: Option<usize>,
    /// Tuned threshold for "no answer".
    pub no_answer_threshold: Option<f64>,
    /// The tagging scheme.
    pub tag_scheme: Option<TagScheme>,
}

impl Checkpoint {
    /// Opens a model directory, or a model by its [name on the Hub](crate::hub). Safetensors files are memory-mapped
    /// and read when a model is built from them.
    ///
    /// # Errors
    /// If `config.json`, the weights or the tokenizer are missing or malformed, or the tokenizer does not fit the
    /// model.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = &*model_directory(directory)?;
        let encoder = encoder_directory(directory)?;
        let (config, tokenizer) = (load_config(&encoder)?, Tokenizer::load(&encoder)?);
        Self::new(config, Weights::open(encoder)?, tokenizer, Some(directory.into()))
    }

    /// Builds a checkpoint from the contents of `config.json`, `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(
        config_json: &[u8],
        weights_safetensors: impl Into<Cow<'static, [u8]>>,
        tokenizer_json: &[u8],
    ) -> Result<Self> {
        let (config, tokenizer) = (BertConfig::from_bytes(config_json)?, Tokenizer::from_bytes(tokenizer_json)?);
        Self::new(config, Weights::from_bytes(weights_safetensors)?, tokenizer, None)
    }

    fn new(config: BertConfig, weights: Weights, tokenizer: Tokenizer, directory: Option<PathBuf>) -> Result<Self> {
        tokenizer.check_fits(&config)?;
        Ok(Self { config, weights, tokenizer, directory })
    }

    /// How sentence-transformers embeds texts with this model; `None` if the directory is not in that library's format.
    ///
    /// # Errors
    /// As [`SentenceTransformer::read`].
    pub fn sentence_transformer(&self) -> Result<Option<SentenceTransformer>> {
        self.directory.as_ref().map_or(Ok(None), SentenceTransformer::read)
    }

    /// The maximum sequence length that `tokenizer_config.json` names.
    pub(super) fn tokenizer_length(&self) -> Result<Option<usize>> {
        self.directory.as_ref().map_or(Ok(None), |directory| tokenizer_length(directory))
    }

    /// What `config_sentence_transformers.json` says of a cross-encoder.
    pub(super) fn cross_encoder(&self) -> Result<CrossEncoderSettings> {
        self.directory.as_ref().map_or(Ok(Default::default()), |directory| CrossEncoderSettings::read(directory))
    }

    /// The maximum sequence length of a cross-encoder: the requested one, otherwise that of training, otherwise that of
    /// the tokenizer's configuration, limited by the number of positions of the model.
    pub(super) fn cross_encoder_length(&self, requested: Option<usize>) -> Result<usize> {
        let of_tokenizer = self.tokenizer_length()?;
        let usual = self.max_length(None)?;
        requested
            .map_or(Ok(of_tokenizer.map_or(usual, |length| length.min(usual))), |length| self.max_length(Some(length)))
    }

    /// The settings in the directory's `finetune.json`; all unset if there is none.
    pub(super) fn usage(&self) -> Result<FinetuneFile> {
        match self.directory.as_ref().map(|directory| directory.join("finetune.json")) {
            Some(path) if path.exists() => FinetuneFile::read(&path),
            _ => Ok(FinetuneFile::default()),
        }
    }

    /// Checks that the checkpoint's architecture is `M`; the tensor names alone cannot tell sequence and token
    /// classifiers apart.
    pub(super) fn check_head<M: Pretrained>(&self) -> Result<()> {
        match self.config.architectures.as_deref() {
            Some(architectures @ [_, ..]) if !architectures.iter().any(|name| name == M::ARCHITECTURE) => {
                Err(Error::config("config.json", "architectures", architectures.join(", "), M::ARCHITECTURE))
            }
            _ => Ok(()),
        }
    }

    /// The maximum sequence length in tokens: the requested one, otherwise that of training, otherwise the number of
    /// positions.
    pub(super) fn max_length(&self, requested: Option<usize>) -> Result<usize> {
        let positions = self.config.max_position_embeddings;
        match requested {
            Some(length) if length > positions => Err(Error::Mismatch {
                left: format!("a maximum length of {length} tokens"),
                right: format!("a model with {positions} positions"),
                advice: "lower it".into(),
            }),
            Some(length) => Ok(length),
            None => Ok(self.usage()?.max_seq_len.map_or(positions, |length| length.min(positions))),
        }
    }
}

impl FinetuneFile {
    fn read(path: &Path) -> Result<Self> {
        read_json(path, "a description of a head")
    }
}
