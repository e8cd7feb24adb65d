//! Masked-token prediction (Devlin et al. 2018, §3.1, task 1): the most probable WordPieces for each `[MASK]` of a
//! text.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};
use serde::Serialize;

use super::{Checkpoint, FromCheckpoint, Pipeline, Processor};
use crate::error::{Error, Result};
use crate::model::{BertForMaskedLM, BertInput};
use crate::text::{Sequence, Tokenizer};

/// Predicts the masked tokens of texts.
///
/// ```no_run
/// use bert_model::pipeline::MaskFiller;
///
/// # fn main() -> bert_model::Result<()> {
/// let filled = MaskFiller::open("DIR")?.fill("Paris is the [MASK] of France.", 5)?;
/// println!("{}", filled.masks[0].predictions[0].token);
/// # Ok(())
/// # }
/// ```
pub type MaskFiller = Pipeline<MaskProcessor>;

/// A text with the predictions for its masks.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct FilledText {
    /// The original text.
    pub text: String,
    /// The predictions for each `[MASK]`, in order.
    pub masks: Vec<FilledMask>,
}

/// The predictions for one mask.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct FilledMask {
    /// The position of the mask in tokens; `[CLS]` is at 0.
    pub position: usize,
    /// The most probable WordPieces, best first.
    pub predictions: Vec<Prediction>,
}

/// A WordPiece and its probability.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Prediction {
    /// The WordPiece.
    pub token: String,
    /// Its id in the vocabulary.
    pub id: u32,
    /// Its probability, from 0 to 1, over the whole vocabulary.
    pub probability: f64,
}

/// Converts texts with masks to model input, and the model's output to [`FilledText`].
#[derive(Debug, Clone)]
pub struct MaskProcessor {
    tokenizer: Tokenizer,
    max_length: usize,
}

/// Maximum number of characters of a text to show in an error.
const SHOWN: usize = 80;

/// A tokenized text with masks.
#[derive(Debug, Clone)]
pub struct MaskedInput {
    sequence: Sequence,
    /// Positions of the masks, in tokens.
    positions: Vec<usize>,
    top_k: usize,
}

impl MaskFiller {
    /// Predicts the `top_k` most probable WordPieces for every `[MASK]` of a text.
    ///
    /// # Errors
    /// If the text has no `[MASK]`, or has more tokens than the model's maximum length.
    pub fn fill(&self, text: &str, top_k: usize) -> Result<FilledText> {
        let filled = self.run(&[(text, top_k)])?.into_iter().next();
        Ok(filled.unwrap_or_else(|| FilledText { text: text.into(), masks: Vec::new() }))
    }

    /// As [`MaskFiller::fill`], for several texts at once.
    ///
    /// # Errors
    /// As [`MaskFiller::fill`].
    pub fn fill_all<S: AsRef<str>>(&self, texts: &[S], top_k: usize) -> Result<Vec<FilledText>> {
        self.run(&texts.iter().map(|text| (text.as_ref(), top_k)).collect::<Vec<_>>())
    }
}

impl MaskProcessor {
    /// Builds a processor for sequences of at most `max_length` tokens. Longer ones are rejected, since truncation
    /// could remove a mask.
    pub fn new(tokenizer: Tokenizer, max_length: usize) -> Self {
        Self { tokenizer, max_length }
    }
}

impl FromCheckpoint for MaskProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        checkpoint.tokenizer.mask()?;
        Ok(Self::new(checkpoint.tokenizer.clone(), checkpoint.max_length(max_length)?))
    }
}

impl Processor for MaskProcessor {
    type Model = BertForMaskedLM;
    /// A text, and the number of WordPieces to predict for each mask.
    type Request<'a> = (&'a str, usize);
    type Input = MaskedInput;
    type Output = Vec<FilledMask>;
    type Answer = FilledText;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, &(text, top_k): &(&str, usize)) -> Result<Vec<MaskedInput>> {
        let mask = self.tokenizer.mask()?;
        let sequence = self.tokenizer.whole_sequence(text, None, self.max_length)?;
        let positions: Vec<usize> = (0..sequence.len()).filter(|&at| sequence.ids[at] == mask).collect();
        if positions.is_empty() {
            let mask = self.tokenizer.piece(mask);
            let start: String = text.chars().take(SHOWN).collect();
            let more = if start.len() < text.len() { "…" } else { "" };
            return Err(Error::Setting(format!(
                "found no {mask} in \"{start}{more}\"; put {mask} where a token is to be predicted"
            )));
        }
        Ok(vec![MaskedInput { sequence, positions, top_k }])
    }

    fn sequences(input: &MaskedInput) -> &[Sequence] {
        std::slice::from_ref(&input.sequence)
    }

    fn forward(&self, model: &BertForMaskedLM, batch: BertInput, inputs: &[&MaskedInput]) -> Vec<Vec<FilledMask>> {
        let ([_, tokens], device) = (batch.input_ids.dims(), batch.input_ids.device());
        let flat = |(row, input): (usize, &&MaskedInput)| {
            input.positions.iter().map(move |at| (row * tokens + at) as i32).collect::<Vec<_>>()
        };
        let flat: Vec<i32> = inputs.iter().enumerate().flat_map(flat).collect();
        let logits = model.forward(batch, Tensor::<1, Int>::from_data(flat.as_slice(), &device));
        let [_, vocab] = logits.dims();
        let probabilities: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
        let mut rows = probabilities.chunks(vocab);
        let filled = |input: &&MaskedInput| {
            let masks = input.positions.iter().zip(rows.by_ref());
            let filled = masks.map(|(&position, row)| FilledMask {
                position,
                predictions: best_pieces(row, input.top_k, &self.tokenizer),
            });
            filled.collect()
        };
        inputs.iter().map(filled).collect()
    }

    fn postprocess(&self, &(text, _): &(&str, usize), _: &[MaskedInput], outputs: &[Vec<FilledMask>]) -> FilledText {
        FilledText { text: text.to_string(), masks: outputs.concat() }
    }
}

/// The `top_k` most probable WordPieces, best first, from the probability of each id.
pub fn best_pieces(probabilities: &[f32], top_k: usize, tokenizer: &Tokenizer) -> Vec<Prediction> {
    let order = |&a: &usize, &b: &usize| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b));
    let prediction = |&id: &usize| Prediction {
        token: tokenizer.piece(id as u32),
        id: id as u32,
        probability: f64::from(probabilities[id]),
    };
    let mut ids: Vec<usize> = (0..probabilities.len()).collect();
    // A model may have more output rows than its tokenizer has WordPieces: if there are too few among the first ones,
    // all are sorted.
    for count in [top_k.saturating_mul(2), ids.len()] {
        let best = if count < ids.len() { ids.select_nth_unstable_by(count, order).0 } else { &mut ids[..] };
        best.sort_unstable_by(order);
        let predictions = best.iter().map(prediction).filter(|prediction| !prediction.token.is_empty());
        let predictions: Vec<Prediction> = predictions.take(top_k).collect();
        if predictions.len() == top_k {
            return predictions;
        }
    }
    ids.iter().map(prediction).filter(|prediction| !prediction.token.is_empty()).collect()
}
