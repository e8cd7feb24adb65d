//! Uses of a pretrained model: which words fit where `[MASK]` stands, and whether one sentence follows another.

use bert_model::text::{Sequence, collate};
use bert_model::{BertConfig, BertForMaskedLM, BertForNextSentencePrediction, Error, Result, Tokenizer};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use serde::Serialize;

/// A text and what fits its masks.
#[derive(Debug, Clone, Serialize)]
pub struct FilledText {
    /// As it was given.
    pub text: String,
    /// One for each `[MASK]`, in order.
    pub masks: Vec<FilledMask>,
}

/// What fits one mask.
#[derive(Debug, Clone, Serialize)]
pub struct FilledMask {
    /// The token position, `[CLS]` being 0.
    pub position: usize,
    /// Most probable first.
    pub predictions: Vec<Prediction>,
}

/// A WordPiece and its probability.
#[derive(Debug, Clone, Serialize)]
pub struct Prediction {
    /// The piece.
    pub token: String,
    /// Its number in the vocabulary.
    pub id: u32,
    /// In 0..=1, over the whole vocabulary.
    pub probability: f64,
}

/// The `top_k` most probable pieces for every `[MASK]` in `text`.
///
/// # Errors
/// If the text has no `[MASK]` or does not fit into the model.
pub fn fill_mask(
    model: &BertForMaskedLM,
    config: &BertConfig,
    tokenizer: &Tokenizer,
    text: &str,
    top_k: usize,
    device: &Device,
) -> Result<FilledText> {
    let sequence = encode(tokenizer, config, text, None)?;
    let mask = tokenizer.special().mask;
    let positions: Vec<usize> = (0..sequence.len()).filter(|&at| sequence.ids[at] == mask).collect();
    if positions.is_empty() {
        return Err(Error::Setting(format!("found no [MASK] in {text:?}; write [MASK] where a word is to be guessed")));
    }
    let flat: Vec<i32> = positions.iter().map(|&at| at as i32).collect();
    let input = collate(&[&sequence], tokenizer.special().pad, device);
    let logits = model.forward(input, Tensor::<1, Int>::from_data(flat.as_slice(), device));
    let [_, vocab] = logits.dims();
    let probabilities: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
    let masks = positions.iter().zip(probabilities.chunks(vocab)).map(|(&position, probabilities)| FilledMask {
        position,
        predictions: top_predictions(probabilities, top_k, tokenizer),
    });
    Ok(FilledText { text: text.to_string(), masks: masks.collect() })
}

/// The probability that `second` follows `first`.
///
/// # Errors
/// If the pair does not fit into the model.
pub fn next_sentence(
    model: &BertForNextSentencePrediction,
    config: &BertConfig,
    tokenizer: &Tokenizer,
    first: &str,
    second: &str,
    device: &Device,
) -> Result<f64> {
    let sequence = encode(tokenizer, config, first, Some(second))?;
    let logits = model.forward(collate(&[&sequence], tokenizer.special().pad, device));
    let probabilities = softmax(logits, 1).into_data();
    Ok(probabilities.iter::<f32>().next().map_or(f64::NAN, f64::from))
}

fn encode(tokenizer: &Tokenizer, config: &BertConfig, text: &str, pair: Option<&str>) -> Result<Sequence> {
    let sequence = Sequence::from(&tokenizer.encode(text, pair)?);
    match sequence.len() > config.max_position_embeddings {
        true => Err(Error::Setting(format!(
            "the text has {} tokens, the model takes at most {}; shorten it",
            sequence.len(),
            config.max_position_embeddings
        ))),
        false => Ok(sequence),
    }
}

/// The most probable pieces, best first.
pub(crate) fn top_predictions(probabilities: &[f32], top_k: usize, tokenizer: &Tokenizer) -> Vec<Prediction> {
    let mut ids: Vec<usize> = (0..probabilities.len()).collect();
    ids.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
    let prediction = |&id: &usize| Prediction {
        token: tokenizer.piece(id as u32),
        id: id as u32,
        probability: f64::from(probabilities[id]),
    };
    // A model may have more rows than its tokenizer has pieces.
    ids.iter().map(prediction).filter(|prediction| !prediction.token.is_empty()).take(top_k).collect()
}
