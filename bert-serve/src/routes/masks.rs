//! `/fill-mask`: predicts the WordPiece behind each `[MASK]`, with the JSON of `bert-pretrain fill-mask`.

use std::sync::Arc;

use bert_model::pipeline::{FilledText, MaskProcessor};
use serde::Deserialize;

use super::ask::{Asked, Route};
use super::one_or_many::{OneOrMany, Texts};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// Default and maximum number of predictions per mask.
const TOP_K: usize = 5;
const MOST_TOP_K: usize = 1000;

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
    type Processor = MaskProcessor;
    type Body = FillBody;
    type Question = (Texts, usize);
    type Reply = OneOrMany<FilledText>;

    fn model(body: &FillBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<MaskProcessor>>> {
        model.fill.as_ref()
    }

    fn question(body: FillBody, _asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        body.text.check("text")?;
        Ok((body.text, check_top_k(body.top_k)?))
    }

    fn requests((texts, top_k): &Self::Question) -> Vec<(&str, usize)> {
        texts.as_slice().iter().map(|text| (text.as_str(), *top_k)).collect()
    }

    fn reply((texts, _): Self::Question, answers: Vec<FilledText>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        Ok(texts.like(answers))
    }
}

/// The number of predictions per mask.
///
/// # Errors
/// 422 if `top_k` is out of range.
pub fn check_top_k(top_k: Option<usize>) -> Result<usize, ApiError> {
    match top_k.unwrap_or(TOP_K) {
        count if (1..=MOST_TOP_K).contains(&count) => Ok(count),
        count => Err(ApiError::invalid(format!("`top_k`: found {count}, expected 1 to {MOST_TOP_K}"))),
    }
}
