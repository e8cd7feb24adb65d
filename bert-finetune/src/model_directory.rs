//! The parts of a model directory. Older directories of sentence-transformers keep the encoder in a folder.

use std::path::Path;

use bert_model::pipeline::sentence_transformers::encoder_directory;
use bert_model::pretrained::load_config;
use bert_model::pretrained::weights::Weights;
use bert_model::{BertConfig, Result, Tokenizer};

/// Reads the configuration of the encoder.
///
/// # Errors
/// If there is none, or it does not describe a BERT encoder.
pub fn config_of(directory: &Path) -> Result<BertConfig> {
    load_config(encoder_directory(directory)?)
}

/// Reads the tokenizer.
///
/// # Errors
/// If there is none, or its files are malformed.
pub fn tokenizer_of(directory: &Path) -> Result<Tokenizer> {
    Tokenizer::load(encoder_directory(directory)?)
}

/// Opens the weights of the encoder and its head.
///
/// # Errors
/// As [`Weights::open`].
pub fn weights_of(directory: &Path) -> Result<Weights> {
    Weights::open(encoder_directory(directory)?)
}
