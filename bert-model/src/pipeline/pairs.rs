//! Scores for pairs of texts: the probability that the second follows the first (Devlin et al. 2018, §3.1, task 2), or
//! the score of a cross-encoder, a classifier with one label that reads two texts together and tells how well they fit
//! (Nogueira and Cho 2019, "Passage Re-ranking with BERT").

use std::borrow::Cow;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use super::sentence_transformers::CrossEncoderSettings;
use super::{Checkpoint, FromCheckpoint, Pipeline, Processor};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::model::heads::TaskHead;
use crate::model::{BertForNextSentencePrediction, BertForSequenceClassification, BertInput, OutputActivation};
use crate::ops::dropout::Dropout;
use crate::pretrained::weights::Weights;
use crate::pretrained::{Loaded, load_weights};
use crate::text::{Sequence, Tokenizer};

/// Scores pairs of texts, with a next-sentence head or a classifier with one label (a cross-encoder).
///
/// ```no_run
/// use bert_model::pipeline::PairScorer;
///
/// # fn main() -> bert_model::Result<()> {
/// let scorer = PairScorer::open("DIR")?;
/// let scores: Vec<f32> = scorer.score(&[("It rained.", "She opened the umbrella.")])?;
/// # Ok(())
/// # }
/// ```
pub type PairScorer = Pipeline<PairProcessor>;

/// The score of a pair of texts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PairScore {
    /// The head's output before its activation: of a next-sentence head, the logit of "is next".
    pub logit: f32,
    /// The score; see [`PairScorer::score`].
    pub score: f32,
}

/// Converts pairs to model input, and the head's outputs to scores.
#[derive(Debug, Clone)]
pub struct PairProcessor {
    tokenizer: Tokenizer,
    head: PairHead,
    /// Precedes the first text of every pair.
    prompt: String,
}

/// What scores a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PairHead {
    /// A next-sentence head. It needs to see where the texts meet and end, so longer pairs are rejected.
    NextSentence { max_length: usize },
    /// A classifier with one label, whose output is mapped to the score.
    CrossEncoder(OutputActivation),
}

impl PairScorer {
    /// Computes the score of each pair. For a next-sentence head, this is the probability, from 0 to 1, that the second
    /// text follows the first. For a classifier with one label (a cross-encoder), it is the head's output passed
    /// through the activation that the configuration names, or the sigmoid if it names none, as in
    /// sentence-transformers.
    ///
    /// # Errors
    /// If a text cannot be tokenized. A pair longer than the model's maximum length is an error for a next-sentence
    /// head, which needs to see where the texts meet and end; a classifier truncates it, the longer side first.
    pub fn score<A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> Result<Vec<f32>> {
        let requests: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect();
        Ok(self.run(&requests)?.into_iter().map(|found| found.score).collect())
    }
}

impl PairProcessor {
    /// Builds a processor for a next-sentence head and pairs of at most `max_length` tokens; longer ones are rejected.
    pub fn next_sentence(tokenizer: Tokenizer, max_length: usize) -> Self {
        Self { tokenizer, head: PairHead::NextSentence { max_length }, prompt: String::new() }
    }

    /// Builds a processor for a classifier with one label. `tokenizer` must truncate to the model's maximum length;
    /// `activation` maps the head's output to the score.
    pub fn cross_encoder(tokenizer: Tokenizer, activation: OutputActivation) -> Self {
        Self { tokenizer, head: PairHead::CrossEncoder(activation), prompt: String::new() }
    }

    /// The prompt before the first text of every pair; empty if there is none.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Puts a prompt before the first text of every pair.
    pub fn with_prompt(self, prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..self }
    }
}

/// The activation that a cross-encoder's configuration names in `sentence_transformers.activation_fn` or, in models of
/// older versions, in `sbert_ce_default_activation_function`.
fn configured_activation(config: &BertConfig) -> Option<(&'static str, &Value)> {
    let newer = config.other.get("sentence_transformers").and_then(|settings| settings.get("activation_fn"));
    let older = config.other.get("sbert_ce_default_activation_function").filter(|value| !value.is_null());
    let newer = newer.filter(|value| !value.is_null()).map(|value| ("sentence_transformers.activation_fn", value));
    newer.or(older.map(|value| ("sbert_ce_default_activation_function", value)))
}

/// The activation of a cross-encoder; the sigmoid if its directory names none.
fn activation(of_file: Option<String>, config: &BertConfig) -> Result<OutputActivation> {
    let of_file = of_file.map(Value::from);
    let of_file = of_file.as_ref().map(|value| ("config_sentence_transformers.json", ("activation_fn", value)));
    let named = of_file.or(configured_activation(config).map(|named| ("config.json", named)));
    let Some((file, (key, value))) = named else { return Ok(OutputActivation::Sigmoid) };
    value.as_str().and_then(OutputActivation::of_class).ok_or_else(|| {
        let expected = format!("a class of torch.nn: {}", OutputActivation::names());
        Error::config(file, key, value.to_string(), expected)
    })
}

impl FromCheckpoint for PairProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
        tokenizer.check_fits_pairs(config)?;
        if weights.shape("cls.seq_relationship.weight").is_some() {
            return Ok(Self::next_sentence(tokenizer.clone(), checkpoint.max_length(max_length)?));
        }
        match weights.shape("classifier.weight") {
            Some(&[1, _]) => {
                checkpoint.check_head::<BertForSequenceClassification>()?;
                let tokenizer = tokenizer.truncating(checkpoint.cross_encoder_length(max_length)?)?;
                let CrossEncoderSettings { activation: named, prompt } = checkpoint.cross_encoder()?;
                Ok(Self::cross_encoder(tokenizer, activation(named, config)?).with_prompt(prompt))
            }
            found => {
                let found = found.map_or("neither".into(), |shape| format!("a classifier with {} labels", shape[0]));
                Err(Error::file(weights.path(), found, "a next-sentence head or a classifier with one label"))
            }
        }
    }
}

impl Processor for PairProcessor {
    /// A next-sentence head is a classifier of two labels, "is next" and "is random", without dropout.
    type Model = BertForSequenceClassification;
    type Request<'a> = (&'a str, &'a str);
    type Input = Sequence;
    type Output = PairScore;
    type Answer = PairScore;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn load(&self, weights: &Weights, config: BertConfig, device: &Device) -> Result<Loaded<Self::Model>> {
        if let PairHead::CrossEncoder(_) = self.head {
            return load_weights(weights, config, device);
        }
        let loaded: Loaded<BertForNextSentencePrediction> = load_weights(weights, config, device)?;
        Ok(loaded.map(|BertForNextSentencePrediction { bert, nsp }| BertForSequenceClassification {
            bert,
            classifier: TaskHead { dropout: Dropout::new(0.0), dense: nsp },
        }))
    }

    fn preprocess(&self, &(first, second): &(&str, &str)) -> Result<Vec<Sequence>> {
        let first = match self.prompt.is_empty() {
            true => Cow::Borrowed(first),
            false => Cow::Owned(format!("{}{first}", self.prompt)),
        };
        Ok(vec![match self.head {
            PairHead::NextSentence { max_length } => self.tokenizer.whole_sequence(&first, Some(second), max_length)?,
            PairHead::CrossEncoder(_) => self.tokenizer.sequence(&first, Some(second))?,
        }])
    }

    fn sequences(input: &Sequence) -> &[Sequence] {
        std::slice::from_ref(input)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, _inputs: &[&Sequence]) -> Vec<PairScore> {
        let outputs = model.forward(batch);
        let scores = match self.head {
            PairHead::NextSentence { .. } => softmax(outputs.clone(), 1),
            PairHead::CrossEncoder(activation) => activation.apply(outputs.clone()),
        };
        let first = |values: Tensor<2>| values.slice_dim(1, 0..1).into_data().iter::<f32>().collect::<Vec<_>>();
        let pairs = first(outputs).into_iter().zip(first(scores));
        pairs.map(|(logit, score)| PairScore { logit, score }).collect()
    }

    fn postprocess(&self, _request: &(&str, &str), _inputs: &[Sequence], outputs: &[PairScore]) -> PairScore {
        outputs.first().copied().unwrap_or(PairScore { logit: f32::NAN, score: f32::NAN })
    }
}
