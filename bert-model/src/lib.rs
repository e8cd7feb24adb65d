//! BERT (Devlin et al. 2018, arXiv 1810.04805), written directly on burn's tensors.
//!
//! Read the modules in the order in which data flows:
//!
//! 1. [`config`]: the configuration of a BERT model.
//! 2. [`text`]: text to WordPieces to batches.
//! 3. [`model`]: embeddings, attention, encoder, pooler, heads, losses. [`ops`] has the performance-critical
//!    operations.
//! 4. [`pretrained`]: reads and writes Hugging Face model directories.
//! 5. [`pipeline`]: trained models that map text to typed answers.
//! 6. [`hub`]: models by their names on the Hugging Face Hub.
//!
//! ```no_run
//! # fn main() -> bert_model::Result<()> {
//! use bert_model::pipeline::TextEmbedder;
//!
//! let embedder = TextEmbedder::open("DIR")?;
//! let vectors = embedder.embed(&["a short text", "a longer text than the first"])?;
//! # Ok(())
//! # }
//! ```
//!
//! [`device`] selects a device by name, [`workers`] distributes a batch over the CPU cores, [`mod@file`] writes files
//! atomically, and [`error`] lists what can go wrong. Training is in the crate `bert-train`.

#![warn(missing_docs)]
// Invalid user input must never panic. What callers of a model must ensure (tensor shapes, sequences no longer than the
// model's maximum) is documented under "# Panics"; pipelines check it.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod device;
pub mod error;
#[doc(hidden)]
pub mod fail_point;
pub mod file;
pub mod hub;
pub mod model;
#[allow(
    unsafe_code,
    reason = "products, vector instructions, GPU kernels, a control register; each block says why it is sound"
)]
pub mod ops;
pub mod pipeline;
pub mod pretrained;
pub mod text;
pub mod workers;

pub use config::{Activation, BertConfig, ProblemType};
pub use error::{Error, Result};
pub use model::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertInput, BertModel,
    BertOutput, BertTrace, Initializer,
};
pub use pretrained::{Loaded, Pretrained, load, load_partial, save};
pub use text::Tokenizer;
pub use workers::Workers;

/// Fails to compile if models, weights, tokenizers or workers cannot be shared between threads.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<BertConfig>();
    assert_send_sync::<BertForMaskedLM>();
    assert_send_sync::<BertForMultipleChoice>();
    assert_send_sync::<BertForNextSentencePrediction>();
    assert_send_sync::<BertForPreTraining>();
    assert_send_sync::<BertForQuestionAnswering>();
    assert_send_sync::<BertForSequenceClassification>();
    assert_send_sync::<BertForTokenClassification>();
    assert_send_sync::<BertModel>();
    assert_send_sync::<Error>();
    assert_send_sync::<Tokenizer>();
    assert_send_sync::<Workers>();
    assert_send_sync::<pretrained::weights::Weights>();
};
