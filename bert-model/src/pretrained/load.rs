//! Loads a model from a model directory.

use std::path::Path;

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;

use super::weights::Weights;
use super::{Pretrained, names};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::hub::model_directory;

const DECODER: &str = "cls.predictions.decoder.weight";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
const WORDS: &str = "embeddings.word_embeddings.weight";

/// A loaded model, with the differences between the checkpoint and the model.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded<M> {
    /// The model, on the requested device.
    pub model: M,
    /// The configuration of the model.
    pub config: BertConfig,
    /// Parameters of pooler and heads that the checkpoint lacks and that were freshly initialized ([`load_partial`]).
    pub initialized: Vec<String>,
    /// Tensors of the checkpoint that the model does not have.
    pub unused: Vec<String>,
    /// Whether the checkpoint has an MLM decoder that differs from the word embeddings, although the configuration ties
    /// them. It was ignored, as in transformers 4.
    pub has_other_decoder: bool,
}

impl<M> Loaded<M> {
    /// A model whose parameters were all in the checkpoint.
    pub(crate) fn new(model: M, config: BertConfig) -> Self {
        Self { model, config, initialized: Vec::new(), unused: Vec::new(), has_other_decoder: false }
    }

    /// The same checkpoint in another model.
    pub(crate) fn map<N>(self, change: impl FnOnce(M) -> N) -> Loaded<N> {
        let Self { model, config, initialized, unused, has_other_decoder } = self;
        Loaded { model: change(model), config, initialized, unused, has_other_decoder }
    }

    /// A warning that names the freshly initialized parameters and the ignored tensors of the checkpoint's encoder and
    /// decoder, as one sentence; `None` if there are none.
    pub fn warning(&self) -> Option<String> {
        let initialized = (!self.initialized.is_empty()).then(|| {
            format!("not in the checkpoint and freshly initialized (train before use): {}", self.initialized.join(", "))
        });
        joined(initialized.into_iter().chain(self.unused_layers_warning()))
    }

    /// A warning that names the ignored tensors of the checkpoint's encoder and decoder and of parts that BERT does not have,
    /// such as a CRF, as one sentence; `None` if there are none. A model for another task has no use for a head or pooler,
    /// but should use every layer.
    pub fn unused_layers_warning(&self) -> Option<String> {
        let decoder = self.has_other_decoder.then(|| {
            format!(
                "{DECODER} differs from the word embeddings and was ignored, since config.json sets \
                 `tie_word_embeddings`; set it to false to use that decoder"
            )
        });
        let encoder: Vec<&String> = self.unused.iter().filter(|name| !names::is_head(name)).collect();
        let encoder = encoder.first().map(|first| {
            format!(
                "{} tensor(s) of the checkpoint's encoder are not described by config.json: {first}, …",
                encoder.len()
            )
        });
        let foreign: Vec<&String> = self.unused.iter().filter(|name| names::is_foreign(name)).collect();
        let foreign = foreign.first().map(|first| {
            format!(
                "{} tensor(s) of the checkpoint belong to no part of BERT and were ignored: {first}, …",
                foreign.len()
            )
        });
        joined(encoder.into_iter().chain(decoder).chain(foreign))
    }
}

/// Joins several sentences into one; `None` if there are none.
pub(crate) fn joined(sentences: impl IntoIterator<Item = String>) -> Option<String> {
    let sentences: Vec<String> = sentences.into_iter().collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// Reads the configuration of a model directory.
///
/// # Errors
/// If `config.json` does not exist or does not describe a BERT encoder.
pub fn load_config(directory: impl AsRef<Path>) -> Result<BertConfig> {
    BertConfig::from_file(directory.as_ref().join("config.json"))
}

/// Loads a trained model from a directory in any of Hugging Face's formats, or by its [name on the Hub](crate::hub).
///
/// # Errors
/// If a tensor is missing, misshapen, non-finite or unreadable; the error names its file. [`Error::MissingTensors`]
/// names the parameters of a head or pooler that the checkpoint lacks; [`load_partial`] initializes them instead.
pub fn load<M: Pretrained>(directory: impl AsRef<Path>, device: &Device) -> Result<Loaded<M>> {
    let directory = model_directory(directory)?;
    let config = load_config(&directory)?;
    load_weights(&Weights::open(directory)?, config, device)
}

/// Loads a model for training: like [`load`], but if the checkpoint lacks a pooler or head, its parameters are
/// initialized from `seed` and named in [`Loaded::initialized`].
///
/// # Errors
/// If a tensor is misshapen, non-finite or unreadable, or the encoder lacks one; the error names its file.
pub fn load_partial<M: Pretrained>(directory: impl AsRef<Path>, seed: u64, device: &Device) -> Result<Loaded<M>> {
    let directory = model_directory(directory)?;
    let config = load_config(&directory)?;
    load_weights_partial(&Weights::open(directory)?, config, seed, device)
}

/// Loads tensors into a new model that `config` describes.
///
/// # Errors
/// As [`load`]; [`Error::Config`] if the configuration is invalid.
pub fn load_weights<M: Pretrained>(weights: &Weights, config: BertConfig, device: &Device) -> Result<Loaded<M>> {
    let loaded = load_weights_partial(weights, config, 0, device)?;
    match loaded.initialized.is_empty() {
        true => Ok(loaded),
        false => Err(Error::MissingTensors { path: weights.path().into(), tensors: loaded.initialized }),
    }
}

/// As [`load_weights`], but if the checkpoint lacks a pooler or head (`config` may describe a head other than the
/// checkpoint's), its parameters are initialized from `seed`.
///
/// # Errors
/// As [`load_partial`].
pub fn load_weights_partial<M: Pretrained>(
    weights: &Weights,
    config: BertConfig,
    seed: u64,
    device: &Device,
) -> Result<Loaded<M>> {
    config.validate("config.json")?;
    let model = M::init_seeded(&config, seed, device);
    fill(weights, model, config)
}

/// Loads tensors into `model`, which must have the form that `config` describes. Parameters of pooler and heads that
/// the checkpoint lacks keep their values.
///
/// # Errors
/// As [`load_partial`].
pub fn fill<M: Module>(weights: &Weights, model: M, config: BertConfig) -> Result<Loaded<M>> {
    let mut loader = Loader {
        weights,
        is_tied: config.tie_word_embeddings,
        path: Vec::new(),
        used: vec!["embeddings.position_ids".into()],
        missing: Vec::new(),
        error: None,
    };
    let model = model.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    let has_mlm_head = loader.used.iter().any(|name| name.starts_with("cls.predictions."));
    let has_other_decoder = has_mlm_head && config.tie_word_embeddings && has_other_decoder(weights, &config)?;
    // Checkpoints of tied models may store the decoder in addition to the word embeddings, and those of untied models a
    // second bias.
    loader.used.extend([DECODER, DECODER_BIAS, "cls.predictions.bias"].map(str::to_string));
    if let Some(name) = loader.missing.iter().find(|name| !names::is_head(name)) {
        return Err(Error::tensor(
            weights.path(),
            name,
            "no such tensor",
            "the whole encoder that config.json describes",
        ));
    }
    let unused = weights.names().filter(|name| !loader.used.iter().any(|used| used == name)).map(str::to_string);
    Ok(Loaded { model, config, initialized: loader.missing, unused: unused.collect(), has_other_decoder })
}

/// Whether the checkpoint stores a decoder that differs from the word embeddings.
fn has_other_decoder(weights: &Weights, config: &BertConfig) -> Result<bool> {
    let shape = [config.vocab_size, config.hidden_size];
    match weights.shape(DECODER) {
        None => Ok(false),
        Some(stored) if stored != shape => Ok(true),
        Some(_) => Ok(weights.read(DECODER, &shape)? != weights.read(WORDS, &shape)?),
    }
}

/// Replaces each parameter by the checkpoint's and keeps the first error, since a mapper cannot stop early.
struct Loader<'a> {
    weights: &'a Weights,
    is_tied: bool,
    path: Vec<String>,
    used: Vec<String>,
    missing: Vec<String>,
    error: Option<Error>,
}

impl Loader<'_> {
    /// Reads parameter `name` in our layout; `None` if the checkpoint lacks it.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let candidates: &[&str] = match (name, self.is_tied) {
            ("cls.predictions.bias", true) => &[name, DECODER_BIAS],
            // An untied decoder has its own bias, and transformers then ignores the other one.
            ("cls.predictions.bias", false) => &[DECODER_BIAS, name],
            _ => &[name],
        };
        let Some(&stored) = candidates.iter().find(|name| self.weights.shape(name).is_some()) else { return Ok(None) };
        self.used.push(names::normalized(stored));
        if !names::is_transposed(name) {
            return self.weights.read(stored, shape);
        }
        let (rows, columns) = (shape[1], shape[0]);
        let values = self.weights.read(stored, &[rows, columns])?;
        Ok(values.map(|values| transposed(&values, rows, columns)))
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let name = names::hugging_face_name(&self.path);
        let shape = param.lazy_shape();
        match self.read(&name, shape.as_slice()) {
            Ok(Some(values)) => Param::from_data(TensorData::new(values, shape), &param.lazy_device()),
            Ok(None) => {
                self.missing.push(name);
                param
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// A row-major `[rows, columns]` matrix as row-major `[columns, rows]`.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    /// Side length of the blocks in which the matrix is traversed, so that reads and writes stay in the cache.
    const BLOCK: usize = 32;
    let mut output = vec![0.0; values.len()];
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    output[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    output
}
