//! Builders of pipelines: device, precision, limits, and pipeline-specific options.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::Device;

use super::{Checkpoint, Pipeline, Precision, Processor};
use crate::device;
use crate::error::Result;
use crate::pretrained::{Loaded, Pretrained};
use crate::workers::BATCH_TOKENS;

/// A [`Processor`] that can be built from a checkpoint and options.
pub trait FromCheckpoint: Processor + Sized {
    /// Options specific to this pipeline, in addition to those of every [`Builder`].
    type Options: Default + Clone + std::fmt::Debug;

    /// Builds the processor for a checkpoint; `max_length` is the requested maximum sequence length in tokens.
    ///
    /// # Errors
    /// If the checkpoint is for another task, or the options do not fit it.
    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, options: &Self::Options) -> Result<Self>;
}

/// Opens a pipeline with non-default settings.
///
/// ```no_run
/// use bert_model::pipeline::TextClassifier;
///
/// # fn main() -> bert_model::Result<()> {
/// let device = bert_model::device::select("flex")?.device;
/// let classifier = TextClassifier::builder().device(device).max_length(64).open("DIR")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `open`, `from_bytes` or `build`"]
pub struct Builder<P: FromCheckpoint> {
    device: Option<Device>,
    precision: Precision,
    max_length: Option<usize>,
    batch_tokens: usize,
    pub(super) options: P::Options,
}

impl<P: FromCheckpoint> Default for Builder<P> {
    fn default() -> Self {
        Self {
            device: None,
            precision: Precision::default(),
            max_length: None,
            batch_tokens: BATCH_TOKENS,
            options: P::Options::default(),
        }
    }
}

impl<P: FromCheckpoint> Builder<P> {
    /// Sets the device to run on. Default: the fastest one available in this build and on this machine.
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Sets the number type of the encoder. On `flex` it is that of the dense layers, whose weights are then packed in
    /// that many bits; layer normalization and softmax are computed in single precision. A GPU computes the encoder's
    /// layers in `bf16`, sums in single precision, if it has this type. Embeddings and heads are in single precision
    /// everywhere. Default: `f32`; `int8` needs the device `flex`.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets the maximum sequence length in tokens, special tokens included; the model's number of positions is the
    /// upper limit. Default: the length used in training if the directory records it (embedders: that of
    /// sentence-transformers' files or of the tokenizer's configuration, as cross-encoders), otherwise that limit.
    /// Classifiers truncate longer texts; taggers and question answerers read them in windows; masked-token and
    /// next-sentence prediction return an error.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.max_length = Some(tokens);
        self
    }

    /// Sets the batch size in tokens, padding included: per core on a CPU, in total on a GPU. A longer text forms a
    /// batch by itself. Default: 4096.
    pub fn batch_tokens(mut self, tokens: usize) -> Self {
        self.batch_tokens = tokens;
        self
    }

    /// Opens a model directory in the format of Hugging Face or `bert-finetune`, or a model by its [name on the
    /// Hub](crate::hub).
    ///
    /// # Errors
    /// If a file is missing or malformed, the checkpoint lacks a parameter of the model, the checkpoint is for another
    /// task, or the device does not exist or does not compute in the precision.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Pipeline<P>> {
        self.build(&Checkpoint::open(directory)?)
    }

    /// Builds the pipeline from the contents of `config.json`, `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn from_bytes(
        self,
        config_json: &[u8],
        weights_safetensors: impl Into<Cow<'static, [u8]>>,
        tokenizer_json: &[u8],
    ) -> Result<Pipeline<P>> {
        self.build(&Checkpoint::from_bytes(config_json, weights_safetensors, tokenizer_json)?)
    }

    /// Builds the pipeline from a checkpoint.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn build(self, checkpoint: &Checkpoint) -> Result<Pipeline<P>> {
        self.build_from(checkpoint, |processor, device| {
            processor.load(&checkpoint.weights, checkpoint.config.clone(), device)
        })
    }

    /// Builds the pipeline around a model of this checkpoint that is already on the device, such as the encoder of
    /// another pipeline, so that both share their weights. With a [precision](Self::precision) other than f32, the
    /// pipeline gets its own copy of the encoder's dense layers.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn build_with(self, checkpoint: &Checkpoint, model: P::Model) -> Result<Pipeline<P>> {
        self.build_from(checkpoint, |_, _| Ok(Loaded::new(model, checkpoint.config.clone())))
    }

    fn build_from(
        self,
        checkpoint: &Checkpoint,
        load: impl FnOnce(&P, &Device) -> Result<Loaded<P::Model>>,
    ) -> Result<Pipeline<P>> {
        let processor = P::from_checkpoint(checkpoint, self.max_length, &self.options)?;
        let device = match self.device {
            Some(device) => device,
            None => device::select("auto")?.device,
        };
        self.precision.check(&device)?;
        let mut loaded = load(&processor, &device)?;
        if self.precision != Precision::F32 {
            loaded.model.encoder_mut().pack(self.precision);
        }
        Ok(Pipeline { batch_tokens: self.batch_tokens, ..Pipeline::new(loaded, processor, &device)? })
    }
}
