//! `/fill-mask`: predicts the WordPiece behind each `[MASK]`, with the JSON of `bert-pretrain fill-mask`.

use std::sync::Arc;

use bert_model::pipeline::{FilledText, MaskProcessor};
use serde::Deserialize;

use super::ask::{Route, Target, Task, check_answer};
use super::one_or_many::{OneOrMany, Texts};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// Default and maximum number of predictions per mask.
const TOP_K: usize = 5;
const MOST_TOP_K: usize = 1000;

/// Maximum number of predictions in an answer, and maximum length of its texts in bytes if each prediction has one.
const MOST_PREDICTIONS: usize = 100_000;
const MOST_BYTES: usize = 32 << 20;

/// Filling masks: the texts, and the number of predictions per mask.
pub struct Filling;

impl Task for Filling {
    type Processor = MaskProcessor;
    type Question = (Texts, usize);

    fn batcher(model: &Model) -> Option<&Arc<Batcher<MaskProcessor>>> {
        model.fill.as_ref()
    }

    fn requests((texts, top_k): &Self::Question) -> Vec<(&str, usize)> {
        texts.as_slice().iter().map(|text| (text.as_str(), *top_k)).collect()
    }
}

/// The texts and the number of predictions of a request. `with_texts` says whether each prediction comes with its text.
///
/// # Errors
/// 422 if a text is empty, or `top_k` is out of range; 413 if the answer would be too long.
pub fn question(
    texts: Texts,
    field: &str,
    top_k: Option<usize>,
    with_texts: bool,
    target: &Target<Filling>,
) -> Result<(Texts, usize), ApiError> {
    texts.check(field)?;
    let top_k = top_k.unwrap_or(TOP_K);
    if !(1..=MOST_TOP_K).contains(&top_k) {
        return Err(ApiError::invalid(format!("`top_k`: found {top_k}, expected 1 to {MOST_TOP_K}")));
    }
    let mask = mask_of(target)?;
    let (mut count, mut bytes) = (0, 0);
    for text in texts.as_slice() {
        let own = text.matches(&mask).count() * top_k;
        (count, bytes) = (count + own, bytes + own * text.len());
    }
    let advice = "fewer texts, or a lower `top_k`";
    check_answer("predictions", count, MOST_PREDICTIONS, advice)?;
    if with_texts {
        check_answer("bytes of text", bytes, MOST_BYTES, advice)?;
    }
    Ok((texts, top_k))
}

/// The mask token, as it is written in a text.
///
/// # Errors
/// If the tokenizer has none.
pub fn mask_of(target: &Target<Filling>) -> Result<String, ApiError> {
    let tokenizer = &target.model.tokenizer;
    Ok(tokenizer.piece(tokenizer.mask()?))
}

/// `POST /fill-mask`.
pub struct FillMask;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillBody {
    #[serde(alias = "inputs", alias = "input")]
    text: Texts,
    top_k: Option<usize>,
    model: Option<String>,
}

impl Route for FillMask {
    const PATH: &'static str = "/fill-mask";
    type Task = Filling;
    type Body = FillBody;
    type Reply = OneOrMany<FilledText>;

    fn model(body: &FillBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: FillBody, target: &Target<Filling>) -> Result<(Texts, usize), ApiError> {
        question(body.text, "text", body.top_k, false, target)
    }

    fn reply(
        (texts, _): (Texts, usize),
        answers: Vec<FilledText>,
        _target: &Target<Filling>,
    ) -> Result<Self::Reply, ApiError> {
        Ok(texts.like(answers))
    }
}
