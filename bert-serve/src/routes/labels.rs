//! Labels and ranks: text-embeddings-inference's `/predict` and `/rerank`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ask::{Asked, Route, TextOrPair};
use super::embeddings::Direction;
use super::one_or_many::{OneOrMany, Texts, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;
use crate::scores::ScoreProcessor;

/// A label and its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Label {
    pub score: f32,
    pub label: String,
}

/// A text, and the second text of a pair.
pub type OwnedPair = (String, Option<String>);

/// `POST /predict`.
pub struct Predict;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictBody {
    /// A text, a pair `["a", "b"]`, or a list of texts and pairs `[["a"], ["b", "c"]]`.
    inputs: OneOrMany<Texts>,
    truncate: Option<bool>,
    raw_scores: Option<bool>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
    model: Option<String>,
}

/// The texts to classify, with their options.
pub struct Judged {
    pub pairs: OneOrMany<OwnedPair>,
    pub truncate: Option<bool>,
    pub raw_scores: bool,
}

impl Judged {
    /// The pipeline requests.
    pub fn requests(&self) -> Vec<TextOrPair<'_>> {
        self.pairs.as_slice().iter().map(|(text, pair)| (text.as_str(), pair.as_deref())).collect()
    }

    /// The texts, if they must not be truncated; `truncate` is the default.
    pub fn whole_texts(&self, truncate: bool) -> Option<Vec<TextOrPair<'_>>> {
        (!self.truncate.unwrap_or(truncate)).then(|| self.requests())
    }
}

impl Route for Predict {
    const PATH: &'static str = "/predict";
    type Processor = ScoreProcessor;
    type Body = PredictBody;
    type Question = Judged;
    type Reply = OneOrMany<Vec<Label>>;

    fn model(body: &PredictBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<ScoreProcessor>>> {
        model.classify.as_ref()
    }

    fn question(body: PredictBody, asked: &Asked<Self>) -> Result<Judged, ApiError> {
        let pairs = pairs_of(body.inputs)?;
        check_pairs(pairs.as_slice(), &asked.model)?;
        Ok(Judged { pairs, truncate: body.truncate, raw_scores: body.raw_scores.unwrap_or(false) })
    }

    fn requests(question: &Judged) -> Vec<TextOrPair<'_>> {
        question.requests()
    }

    fn whole_texts<'a>(question: &'a Judged, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        question.whole_texts(asked.app.limits.truncate)
    }

    fn reply(question: Judged, answers: Vec<Vec<f32>>, asked: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        let processor = asked.batcher.pipeline().processor();
        let labels = answers.iter().map(|scores| labels_of(processor, scores, question.raw_scores)).collect();
        Ok(question.pairs.like(labels))
    }
}

/// The labels of a text with their scores, highest score first.
pub fn labels_of(processor: &ScoreProcessor, scores: &[f32], raw: bool) -> Vec<Label> {
    let scores = if raw { scores.to_vec() } else { processor.activation().apply(scores) };
    let label = |(label, score): (&String, f32)| Label { score, label: label.clone() };
    let mut labels: Vec<Label> = processor.labels().iter().zip(scores).map(label).collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    labels
}

/// Interprets the allowed forms of `inputs` as texts and pairs.
fn pairs_of(inputs: OneOrMany<Texts>) -> Result<OneOrMany<OwnedPair>, ApiError> {
    let wrong = |found: usize| {
        let expected = "expected a text, a pair [text, text], or a list of both [[text], [text, text], …]";
        ApiError::invalid(format!("`inputs`: found a list of {found}, {expected}"))
    };
    let pair = |texts: Vec<String>| {
        let count = texts.len();
        let mut texts = texts.into_iter();
        match (texts.next(), texts.next(), count) {
            (Some(text), pair, 1 | 2) => Ok((text, pair)),
            _ => Err(wrong(count)),
        }
    };
    match inputs {
        OneOrMany::One(texts) => pair(texts.as_slice().to_vec()).map(OneOrMany::One),
        OneOrMany::Many(list) if list.is_empty() => Err(wrong(0)),
        OneOrMany::Many(list) if list.iter().all(|texts| matches!(texts, OneOrMany::Many(_))) => {
            let pairs = list.into_iter().map(|texts| pair(texts.as_slice().to_vec()));
            pairs.collect::<Result<_, _>>().map(OneOrMany::Many)
        }
        OneOrMany::Many(list) => {
            let text = |texts: &Texts| match texts {
                OneOrMany::One(text) => Ok(text.clone()),
                OneOrMany::Many(_) => Err(ApiError::invalid("`inputs`: found both texts and lists, expected one kind")),
            };
            pair(list.iter().map(text).collect::<Result<_, _>>()?).map(OneOrMany::One)
        }
    }
}

/// Checks that no text is empty, and that the model can read pairs if there are any.
///
/// # Errors
/// 422 if a check fails.
pub fn check_pairs(pairs: &[OwnedPair], model: &Model) -> Result<(), ApiError> {
    if pairs.iter().any(|(_, pair)| pair.is_some()) {
        model.check_reads_pairs()?;
    }
    pairs.iter().try_for_each(|(text, _)| check_text(text, "inputs"))
}

/// `POST /rerank`: ranks texts by how well they answer a query, using a cross-encoder.
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
    type Processor = ScoreProcessor;
    type Body = RerankBody;
    type Question = RerankBody;
    type Reply = Vec<Rank>;

    fn model(body: &RerankBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<ScoreProcessor>>> {
        model.classify.as_ref().filter(|_| model.is_ranker())
    }

    fn question(body: RerankBody, asked: &Asked<Self>) -> Result<RerankBody, ApiError> {
        check_text(&body.query, "query")?;
        asked.model.check_reads_pairs()?;
        Ok(body)
    }

    fn requests(question: &RerankBody) -> Vec<TextOrPair<'_>> {
        question.texts.iter().map(|text| (question.query.as_str(), Some(text.as_str()))).collect()
    }

    fn whole_texts<'a>(question: &'a RerankBody, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        let truncate = question.truncate.unwrap_or(asked.app.limits.truncate);
        (!truncate).then(|| Self::requests(question))
    }

    fn reply(question: RerankBody, answers: Vec<Vec<f32>>, asked: &Asked<Self>) -> Result<Vec<Rank>, ApiError> {
        let activation = asked.batcher.pipeline().processor().activation();
        let rank = |(index, scores): (usize, &Vec<f32>)| {
            let scores = if question.raw_scores == Some(true) { scores.clone() } else { activation.apply(scores) };
            let text = question.return_text.unwrap_or(false).then(|| question.texts[index].clone());
            Rank { index, score: scores.first().copied().unwrap_or_default(), text }
        };
        let mut ranks: Vec<Rank> = answers.iter().enumerate().map(rank).collect();
        ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::OneOrMany::{Many, One};
    use super::*;

    #[test]
    fn inputs_are_a_text_a_pair_or_a_list_of_both() {
        let parse = |json: &str| pairs_of(serde_json::from_str(json).unwrap());
        let (a, b) = (String::from("a"), String::from("b"));
        assert_eq!(parse(r#""a""#).unwrap(), One((a.clone(), None)));
        assert_eq!(parse(r#"["a"]"#).unwrap(), One((a.clone(), None)));
        assert_eq!(parse(r#"["a", "b"]"#).unwrap(), One((a.clone(), Some(b.clone()))));
        let batch = Many(vec![(a.clone(), None), (a, Some(b))]);
        assert_eq!(parse(r#"[["a"], ["a", "b"]]"#).unwrap(), batch);
        for wrong in ["[]", "[[]]", r#"["a", "b", "c"]"#, r#"[["a", "b", "c"]]"#, r#"["a", ["b"]]"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
