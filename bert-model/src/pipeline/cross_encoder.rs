//! Cross-encoders: classifiers with one label that read two texts together and score how well they fit (Nogueira and
//! Cho 2019, "Passage Re-ranking with BERT").

use burn::tensor::Tensor;
use serde_json::Value;

use super::{Checkpoint, FromCheckpoint, HeadProcessor, Processor};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::model::{BertForSequenceClassification, BertInput, BertModel, OutputActivation};
use crate::text::{Sequence, Tokenizer};

/// The [`Processor`] of a [`PairScorer`](super::PairScorer) whose model is a classifier with one label.
#[derive(Debug, Clone)]
pub struct CrossEncoderProcessor {
    tokenizer: Tokenizer,
    activation: OutputActivation,
}

impl CrossEncoderProcessor {
    /// Builds the processor. `tokenizer` must truncate to the model's maximum length; `activation` maps the head's
    /// output to the score.
    pub fn new(tokenizer: Tokenizer, activation: OutputActivation) -> Self {
        Self { tokenizer, activation }
    }

    /// The function that maps the head's output to the score.
    pub fn activation(&self) -> OutputActivation {
        self.activation
    }
}

/// The activation that a cross-encoder's configuration names in `sentence_transformers.activation_fn` or, in models of
/// older versions, in `sbert_ce_default_activation_function`.
fn configured_activation(config: &BertConfig) -> Option<(&'static str, &Value)> {
    let newer = config.other.get("sentence_transformers").and_then(|settings| settings.get("activation_fn"));
    let older = config.other.get("sbert_ce_default_activation_function").filter(|value| !value.is_null());
    let newer = newer.map(|value| ("sentence_transformers.activation_fn", value));
    newer.or(older.map(|value| ("sbert_ce_default_activation_function", value)))
}

impl FromCheckpoint for CrossEncoderProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        checkpoint.check_head::<BertForSequenceClassification>()?;
        checkpoint.config.check_pairs()?;
        let of_file = checkpoint.cross_encoder_activation()?.map(Value::from);
        let named =
            of_file.as_ref().map(|value| ("activation_fn", value)).or(configured_activation(&checkpoint.config));
        let activation = match named {
            None => OutputActivation::Sigmoid,
            Some((key, value)) => value.as_str().and_then(OutputActivation::of_class).ok_or_else(|| {
                let expected = format!("a class of torch.nn: {}", OutputActivation::names());
                Error::config("the cross-encoder's configuration", key, value.to_string(), expected)
            })?,
        };
        Ok(Self::new(checkpoint.tokenizer.truncating(checkpoint.cross_encoder_length(max_length)?)?, activation))
    }
}

impl Processor for CrossEncoderProcessor {
    type Model = BertForSequenceClassification;
    type Request<'a> = (&'a str, &'a str);
    type Input = Sequence;
    /// The score.
    type Output = f32;
    type Answer = f32;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, &(first, second): &(&str, &str)) -> Result<Vec<Sequence>> {
        Ok(vec![self.tokenizer.sequence(first, Some(second))?])
    }

    fn sequences(input: &Sequence) -> &[Sequence] {
        std::slice::from_ref(input)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, inputs: &[&Sequence]) -> Vec<f32> {
        self.head(model, model.bert.encode(batch), inputs)
    }

    fn postprocess(&self, _request: &(&str, &str), _inputs: &[Sequence], outputs: &[f32]) -> f32 {
        outputs.first().copied().unwrap_or(f32::NAN)
    }
}

impl HeadProcessor for CrossEncoderProcessor {
    const READS_CLS_ONLY: bool = true;

    fn bert(model: &BertForSequenceClassification) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &Self::Model, hidden: Tensor<3>, _inputs: &[&Sequence]) -> Vec<f32> {
        self.activation.apply(model.head(hidden)).into_data().iter::<f32>().collect()
    }
}
