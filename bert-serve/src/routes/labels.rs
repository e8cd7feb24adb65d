//! Labels: text-embeddings-inference's `/predict`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ask::{Route, Target, Task, WholeText};
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

/// Classifying texts and pairs.
pub struct Classifying;

/// The texts to classify, with their options.
pub struct Judged {
    pub pairs: OneOrMany<OwnedPair>,
    pub truncate: Option<bool>,
    pub raw_scores: bool,
    /// The number of labels to list, if not all.
    pub top_k: Option<usize>,
}

impl Task for Classifying {
    type Processor = ScoreProcessor;
    type Question = Judged;

    fn batcher(model: &Model) -> Option<&Arc<Batcher<ScoreProcessor>>> {
        model.classify.as_ref()
    }

    fn requests(judged: &Judged) -> Vec<(&str, Option<&str>)> {
        judged.pairs.as_slice().iter().map(|(text, pair)| (text.as_str(), pair.as_deref())).collect()
    }

    fn whole_texts<'a>(judged: &'a Judged, target: &Target<Self>) -> Option<Vec<WholeText<'a>>> {
        let texts = judged.pairs.as_slice().iter();
        (!judged.truncate.unwrap_or(target.app.limits.truncate))
            .then(|| texts.map(|(text, pair)| (Cow::from(text), pair.as_deref())).collect())
    }
}

impl Judged {
    /// Checks that no text is empty, and that the model can read pairs if there are any.
    ///
    /// # Errors
    /// 422 if a check fails.
    pub fn check(self, model: &Model) -> Result<Self, ApiError> {
        let pairs = self.pairs.as_slice();
        if pairs.iter().any(|(_, pair)| pair.is_some()) {
            model.check_reads_pairs()?;
        }
        pairs.iter().try_for_each(|(text, _)| check_text(text, "inputs"))?;
        Ok(self)
    }

    /// The labels of a text with their scores, highest score first.
    pub fn labels(&self, processor: &ScoreProcessor, scores: &[f32]) -> Vec<Label> {
        let scores = if self.raw_scores { scores.to_vec() } else { processor.activation().apply(scores) };
        let label = |(label, score): (&String, f32)| Label { score, label: label.clone() };
        let mut labels: Vec<Label> = processor.labels().iter().zip(scores).map(label).collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        labels.truncate(self.top_k.unwrap_or(usize::MAX));
        labels
    }
}

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

impl Route for Predict {
    const PATH: &'static str = "/predict";
    type Task = Classifying;
    type Body = PredictBody;
    type Reply = OneOrMany<Vec<Label>>;

    fn model(body: &PredictBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: PredictBody, target: &Target<Classifying>) -> Result<Judged, ApiError> {
        let (pairs, raw_scores) = (pairs_of(body.inputs)?, body.raw_scores.unwrap_or(false));
        Judged { pairs, truncate: body.truncate, raw_scores, top_k: None }.check(&target.model)
    }

    fn reply(judged: Judged, answers: Vec<Vec<f32>>, target: &Target<Classifying>) -> Result<Self::Reply, ApiError> {
        let processor = target.batcher.pipeline().processor();
        let labels = answers.iter().map(|scores| judged.labels(processor, scores)).collect();
        Ok(judged.pairs.like(labels))
    }
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
