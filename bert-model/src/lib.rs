//! BERT (Devlin et al. 2018, arXiv 1810.04805), written directly on burn's tensors.
//!
//! Read in the order in which data flows:
//!
//! 1. [`config`]: the shape of a BERT.
//! 2. [`text`]: text to WordPieces to batches.
//! 3. [`model`]: embeddings, attention, encoder, pooler, heads, losses.
//!    [`ops`] has the operations whose speed decides.
//! 4. [`pretrained`]: Hugging Face's model directories, in and out.
//! 5. [`pipeline`]: trained models that answer, from text to typed answers.
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
//! [`device`] turns a name into a device, [`workers`] share a batch among the cores, [`mod@file`] writes files that are
//! whole or not there, [`error`] says what can go wrong. How a model learns is in the crate `bert-train`.

// No file, text or configuration that a user feeds us may panic. What a caller must see to (a tensor's shape, a sequence
// within the model's positions, where it calls a model by itself) stands under "# Panics"; pipelines check it.
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
#[allow(unsafe_code, reason = "vector registers and disjoint parts of one buffer; each place says why it holds")]
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

/// Models and all that is around them can be shared between threads; this does not compile otherwise.
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
