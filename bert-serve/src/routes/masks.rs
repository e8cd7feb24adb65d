//! `/fill-mask`: predicts the WordPiece behind each `[MASK]`, with the JSON of `bert-pretrain fill-mask`.

use std::sync::Arc;

use bert_model::pipeline::{FilledText, MaskProcessor};
use serde::Deserialize;

use super::ask::{Asked, Route, Task};
use super::one_or_many::{OneOrMany, Texts};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// Default and maximum number of predictions per mask.
const TOP_K: usize = 5;
const MOST_TOP_K: usize = 1000;

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

/// The texts and the number of predictions of a request.
///
/// # Errors
/// 422 if a text is empty, or `top_k` is out of range.
pub fn question(texts: Texts, field: &str, top_k: Option<usize>) -> Result<(Texts, usize), ApiError> {
    texts.check(field)?;
    match top_k.unwrap_or(TOP_K) {
        count if (1..=MOST_TOP_K).contains(&count) => Ok((texts, count)),
        count => Err(ApiError::invalid(format!("`top_k`: found {count}, expected 1 to {MOST_TOP_K}"))),
    }
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

    fn question(body: FillBody, _asked: &Asked<Filling>) -> Result<(Texts, usize), ApiError> {
        question(body.text, "text", body.top_k)
    }

    fn reply(
        (texts, _): (Texts, usize),
        answers: Vec<FilledText>,
        _asked: &Asked<Filling>,
    ) -> Result<Self::Reply, ApiError> {
        Ok(texts.like(answers))
    }
}
