//! The BERT architecture (Devlin et al. 2018, §3), one file per part.
//!
//! Read in data-flow order: [`embeddings`] → [`linear`] → [`attention`] → [`layer_norm`] → [`encoder`] → [`pooler`] →
//! [`bert`] → [`heads`] → [`tasks`] and [`sentence`] → [`loss`]. The backward pass is in [`crate::ops::tape`], initial
//! weights in [`initialize`].
//!
//! Shapes are written with these letters: `B` batch size, `T` tokens, `L` layers, `H` hidden size, `A` attention heads,
//! `D` = H / A head size, `I` inputs or intermediate size, `O` outputs, `V` vocabulary size, `M` masked positions, `C`
//! classes or choices, `N` and `R` rows.

pub mod attention;
pub mod bert;
pub mod embeddings;
pub mod encoder;
pub mod heads;
pub mod initialize;
pub mod layer_norm;
pub mod linear;
pub mod loss;
pub mod output_activation;
pub mod pooler;
pub mod sentence;
pub mod tasks;

pub use bert::{BertInput, BertModel, BertOutput, BertTrace};
pub use initialize::Initializer;
pub use output_activation::OutputActivation;
pub use sentence::{Dense, SentenceEncoder};
pub use tasks::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification,
};
