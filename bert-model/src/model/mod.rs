//! What the paper draws (Devlin et al. 2018, section 3), and nothing else.
//!
//! Read in the order of the data: [`embeddings`] → [`linear`] → [`attention`] → [`layer_norm`] → [`encoder`] → [`pooler`] → [`bert`] → [`heads`] →
//! [`tasks`] and [`sentence`] → [`loss`]; back through [`crate::ops::tape`].
//!
//! Shape letters, everywhere: `B` batch, `T` tokens, `H` hidden size, `A` heads, `D` = H / A head size, `V` vocabulary,
//! `M` masked positions, `C` classes or choices.

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
