//! Pipelines: trained models that map text to typed answers.
//!
//! | pipeline | answers | model |
//! |---|---|---|
//! | [`TextEmbedder`] | a vector for a text, or for each of its tokens | any BERT |
//! | [`TextClassifier`] | a label, any number of labels, or a value | `BertForSequenceClassification` |
//! | [`TokenClassifier`] | a tag for every word, and the entities that the tags mark | `BertForTokenClassification` |
//! | [`QuestionAnswerer`] | the span of a text that answers a question | `BertForQuestionAnswering` |
//! | [`MultipleChoice`] | the best of several continuations | `BertForMultipleChoice` |
//! | [`MaskFiller`] | the most probable WordPieces for each `[MASK]` | `BertForMaskedLM`, `BertForPreTraining` |
//! | [`PairScorer`] | a score for a pair of texts | a next-sentence head, or a classifier with one label |
//!
//! Each is opened from a directory, by a [name on the Hub](crate::hub), or from bytes; a [`Builder`] changes the
//! defaults. Pipelines answer through `&self` and can be shared by any number of threads. Requests are sorted into
//! batches of similar length, which run in parallel on the cores of a CPU. Every request gets one answer, in the order
//! of the requests.
//!
//! Each is a [`Pipeline`] around a [`Processor`]. Training uses the same processors, so a model is evaluated exactly as
//! it will be used.
//! ```no_run
//! # fn main() -> bert_model::Result<()> {
//! use bert_model::pipeline::TextEmbedder;
//!
//! let embedder = TextEmbedder::open("DIR")?;
//! let vectors = embedder.embed(&["a short text", "a longer text than the first"])?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod checkpoint;
mod choosing;
mod classification;
mod embedding;
mod filling;
mod pairs;
mod processor;
mod questions;
pub mod sentence_transformers;
mod tagging;
pub mod tags;

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::Device;

use crate::config::BertConfig;
use crate::error::Result;
use crate::hub::model_directory;
use crate::pretrained::load::joined;
use crate::pretrained::weights::Weights;
use crate::pretrained::{Loaded, Pretrained, load_config};
use crate::text::{Sequence, collate};
use crate::workers::{BATCH_TOKENS, Workers};

pub use crate::ops::packed::Precision;
pub use builder::{Builder, FromCheckpoint};
pub use checkpoint::Checkpoint;
pub use choosing::{Choice, ChoiceInput, ChoiceProcessor, MultipleChoice};
pub use classification::{Classification, ClassificationProcessor, TextClassifier, argmax};
pub use embedding::{
    Combine, EmbeddingOptions, EmbeddingProcessor, EmbeddingRequest, Layers, PooledTokens, Pooling, TextEmbedder,
    TextInput, TokenEmbeddings, Windows,
};
pub use filling::{FilledMask, FilledText, MaskFiller, MaskProcessor, MaskedInput, Prediction, best_pieces};
pub use pairs::{PairProcessor, PairScore, PairScorer};
pub use processor::{HeadProcessor, Processor, by_batches, check_fit, longest};
pub use questions::{
    Answer, AnswerSpan, Candidate, QuestionAnswerer, QuestionOptions, QuestionProcessor, QuestionWindow, RankedSpans,
    SpanScores,
};
pub use sentence_transformers::{Prompts, SentenceTransformer, Similarity};
pub use tagging::{Entity, TaggedText, TaggingProcessor, TaggingWindow, Tags, TokenClassifier, WindowTags, Words};

/// A model on a device, together with its [`Processor`] and worker threads.
#[derive(Debug)]
pub struct Pipeline<P: Processor> {
    model: P::Model,
    config: BertConfig,
    processor: P,
    device: Device,
    workers: Workers,
    batch_tokens: usize,
    warning: Option<String>,
}

impl<P: FromCheckpoint> Pipeline<P> {
    /// Opens a model directory, or a model by its [name on the Hub](crate::hub), with default settings; see
    /// [`Pipeline::builder`] for other settings.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(directory)
    }

    /// Opens a model from the contents of `config.json`, `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn from_bytes(
        config_json: &[u8],
        weights_safetensors: impl Into<Cow<'static, [u8]>>,
        tokenizer_json: &[u8],
    ) -> Result<Self> {
        Self::builder().from_bytes(config_json, weights_safetensors, tokenizer_json)
    }

    /// Returns a builder, which opens the pipeline with other settings.
    pub fn builder() -> Builder<P> {
        Builder::default()
    }
}

impl<P: Processor> Pipeline<P> {
    /// Builds a pipeline from its parts, for a custom processor or a model that was just trained.
    ///
    /// # Errors
    /// If the tokenizer does not fit the model ([`Tokenizer::check_fits`](crate::Tokenizer::check_fits)), or the system
    /// cannot start threads.
    pub fn new(loaded: Loaded<P::Model>, processor: P, device: &Device) -> Result<Self> {
        processor.tokenizer().check_fits(&loaded.config)?;
        Ok(Self {
            warning: joined(loaded.warning().into_iter().chain(processor.tokenizer().warnings().iter().cloned())),
            model: loaded.model,
            config: loaded.config,
            processor,
            device: device.clone(),
            workers: Workers::for_device(device)?,
            batch_tokens: BATCH_TOKENS,
        })
    }

    /// Opens the model of a directory with a custom processor; see [`Builder::precision`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn with_processor(
        directory: impl AsRef<Path>,
        processor: P,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        precision.check(device)?;
        let directory = sentence_transformers::encoder_directory(&model_directory(directory)?)?;
        let config = load_config(&directory)?;
        let mut loaded = processor.load(&Weights::open(directory)?, config, device)?;
        if precision != Precision::F32 {
            loaded.model.encoder_mut().pack(precision);
        }
        Self::new(loaded, processor, device)
    }

    /// Computes the answer to each request, in order.
    ///
    /// # Errors
    /// If a text cannot be tokenized, is longer than the model's maximum length and must not be truncated, or does not
    /// [fit](Sequence::check_fits) the model.
    pub fn run(&self, requests: &[P::Request<'_>]) -> Result<Vec<P::Answer>> {
        let preprocess = |request| self.preprocess(request);
        let inputs: Vec<Vec<P::Input>> = requests.iter().map(preprocess).collect::<Result<_>>()?;
        let outputs = self.outputs(&inputs.iter().flatten().collect::<Vec<_>>());
        let mut outputs = outputs.into_iter();
        let answer = |(request, inputs): (&P::Request<'_>, &Vec<P::Input>)| {
            let own: Vec<P::Output> = outputs.by_ref().take(inputs.len()).collect();
            self.processor.postprocess(request, inputs, &own)
        };
        Ok(requests.iter().zip(&inputs).map(answer).collect())
    }

    /// The outputs of all inputs, in order.
    fn outputs(&self, inputs: &[&P::Input]) -> Vec<P::Output> {
        by_batches::<P, _>(inputs, (&self.workers, self.batch_tokens), |batch| {
            self.forward(&batch.iter().map(|&index| inputs[index]).collect::<Vec<_>>())
        })
    }

    /// Runs the first part of [`Pipeline::run`], for services that batch the inputs of many requests themselves:
    /// converts a request to inputs and checks that they fit the model.
    ///
    /// # Errors
    /// As [`Pipeline::run`].
    pub fn preprocess(&self, request: &P::Request<'_>) -> Result<Vec<P::Input>> {
        let inputs = self.processor.preprocess(request)?;
        check_fit::<P>(&inputs.iter().collect::<Vec<_>>(), &self.config)?;
        Ok(inputs)
    }

    /// Runs the second part of [`Pipeline::run`]: computes the outputs of one batch of inputs, in order, on the calling
    /// thread. [`Processor::postprocess`] converts the outputs of a request to its answer.
    pub fn forward(&self, inputs: &[&P::Input]) -> Vec<P::Output> {
        let sequences: Vec<&Sequence> = inputs.iter().flat_map(|input| P::sequences(input)).collect();
        let pad_id = self.processor.tokenizer().special().pad;
        self.processor.forward(&self.model, collate(&sequences, pad_id, &self.device), inputs)
    }

    /// The model's configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The processor, which converts requests to tokens and outputs to answers.
    pub fn processor(&self) -> &P {
        &self.processor
    }

    /// The model.
    pub fn model(&self) -> &P::Model {
        &self.model
    }

    /// A warning for the user about the model and the tokenizer, as one sentence; see [`Loaded::warning`] and
    /// [`Tokenizer::warnings`](crate::Tokenizer::warnings).
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The number of texts truncated so far.
    pub fn truncated_count(&self) -> u64 {
        self.processor.tokenizer().truncated_count()
    }
}

/// Fails to compile if a pipeline cannot be shared between threads.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<TextEmbedder>();
    assert_send_sync::<TextClassifier>();
    assert_send_sync::<TokenClassifier>();
    assert_send_sync::<QuestionAnswerer>();
    assert_send_sync::<MultipleChoice>();
    assert_send_sync::<MaskFiller>();
    assert_send_sync::<PairScorer>();
};

#[cfg(test)]
mod tests;
