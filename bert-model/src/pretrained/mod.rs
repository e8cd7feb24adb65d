//! Reads and writes Hugging Face model directories: `config.json`, weights, tokenizer.
//!
//! [`names`] maps the names of all parameters, [`weights`] reads weight files, [`mod@load`] loads tensors into a model,
//! and [`mod@save`] writes a directory, each file atomically ([`crate::file`]) and the weights last.

pub mod load;
pub mod names;
pub mod save;
mod storage;
pub mod weights;

use burn::module::Module;

use crate::config::BertConfig;
use crate::model::encoder::Encoder;
use crate::model::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertModel, Initializer,
    SentenceEncoder,
};

pub use load::{Loaded, fill, load, load_config, load_partial, load_weights, load_weights_partial};
pub use save::{save, save_config, save_weights, state_dict};

/// A model that can be stored in a Hugging Face model directory.
pub trait Pretrained: Module + Sync {
    /// The name of the class in transformers, as stored in `config.json`.
    const ARCHITECTURE: &'static str;

    /// Prefixes of the names of the tensors in its heads.
    const HEADS: &'static [&'static str];

    /// Creates a model with the initializer's configuration and random parameters.
    fn initialize(initializer: &mut Initializer) -> Self;

    /// The encoder, whose weights a pipeline packs.
    fn encoder_mut(&mut self) -> &mut Encoder;

    /// Creates a model with random parameters, which are generated on first use.
    ///
    /// # Panics
    /// If the configuration is invalid ([`BertConfig::validate`]).
    fn init_seeded(config: &BertConfig, seed: u64, device: &burn::tensor::Device) -> Self {
        Self::initialize(&mut Initializer::new(config, seed, device))
    }
}

impl Pretrained for BertModel {
    const ARCHITECTURE: &'static str = "BertModel";
    const HEADS: &'static [&'static str] = &[];

    fn initialize(initializer: &mut Initializer) -> Self {
        Self::init_with_pooler(initializer)
    }

    fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.encoder
    }
}

/// Saved as a plain BERT; the dense layers have files of their own.
impl Pretrained for SentenceEncoder {
    const ARCHITECTURE: &'static str = BertModel::ARCHITECTURE;
    const HEADS: &'static [&'static str] = &[];

    fn initialize(initializer: &mut Initializer) -> Self {
        Self::init_with(initializer)
    }

    fn encoder_mut(&mut self) -> &mut Encoder {
        &mut self.bert.encoder
    }
}

macro_rules! pretrained {
    ($($model:ident: $($head:literal),+;)+) => {
        $(impl Pretrained for $model {
            const ARCHITECTURE: &'static str = stringify!($model);
            const HEADS: &'static [&'static str] = &[$($head),+];

            fn initialize(initializer: &mut Initializer) -> Self {
                Self::init_with(initializer)
            }

            fn encoder_mut(&mut self) -> &mut Encoder {
                &mut self.bert.encoder
            }
        })+
    };
}

pretrained! {
    BertForPreTraining: "cls.predictions.", "cls.seq_relationship.";
    BertForMaskedLM: "cls.predictions.";
    BertForNextSentencePrediction: "cls.seq_relationship.";
    BertForSequenceClassification: "classifier.";
    BertForTokenClassification: "classifier.";
    BertForQuestionAnswering: "qa_outputs.";
    BertForMultipleChoice: "classifier.";
}
