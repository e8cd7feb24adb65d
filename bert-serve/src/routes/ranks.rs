//! Ranks: text-embeddings-inference's `/rerank`.

use std::borrow::Cow;
use std::sync::Arc;

use bert_model::pipeline::{PairProcessor, PairScore};
use serde::{Deserialize, Serialize};

use super::ask::{Route, Target, Task, WholeText};
use super::embeddings::Direction;
use super::one_or_many::check_text;
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// Scoring how well texts answer a query.
pub struct Ranking;

impl Task for Ranking {
    type Processor = PairProcessor;
    type Question = RerankBody;

    fn batcher(model: &Model) -> Option<&Arc<Batcher<PairProcessor>>> {
        model.rank.as_ref()
    }

    fn requests(RerankBody { query, texts, .. }: &RerankBody) -> Vec<(&str, &str)> {
        texts.iter().map(|text| (query.as_str(), text.as_str())).collect()
    }

    fn whole_texts<'a>(body: &'a RerankBody, target: &Target<Self>) -> Option<Vec<WholeText<'a>>> {
        if body.truncate.unwrap_or(target.app.limits.truncate) {
            return None;
        }
        let query = format!("{}{}", target.batcher.pipeline().processor().prompt(), body.query);
        Some(body.texts.iter().map(|text| (Cow::from(query.clone()), Some(text.as_str()))).collect())
    }
}

/// `POST /rerank`: ranks texts by how well they answer a query, as a cross-encoder scores them, or by the probability
/// that they follow it, for a next-sentence head.
pub struct Rerank;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankBody {
    query: String,
    texts: Vec<String>,
    truncate: Option<bool>,
    raw_scores: Option<bool>,
    return_text: Option<bool>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
    model: Option<String>,
}

#[derive(Serialize)]
pub struct Rank {
    /// Index of the text in the request.
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Route for Rerank {
    const PATH: &'static str = "/rerank";
    type Task = Ranking;
    type Body = RerankBody;
    type Reply = Vec<Rank>;

    fn model(body: &RerankBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: RerankBody, _target: &Target<Ranking>) -> Result<RerankBody, ApiError> {
        check_text(&body.query, "query")?;
        body.texts.iter().try_for_each(|text| check_text(text, "texts"))?;
        Ok(body)
    }

    fn reply(body: RerankBody, answers: Vec<PairScore>, _target: &Target<Ranking>) -> Result<Vec<Rank>, ApiError> {
        let rank = |(index, found): (usize, &PairScore)| {
            let score = if body.raw_scores == Some(true) { found.logit } else { found.score };
            let text = body.return_text.unwrap_or(false).then(|| body.texts[index].clone());
            Rank { index, score, text }
        };
        let mut ranks: Vec<Rank> = answers.iter().enumerate().map(rank).collect();
        ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranks)
    }
}
