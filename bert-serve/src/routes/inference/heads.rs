//! Entities, answers, and masks in the JSON of transformers' pipelines.

use std::sync::Arc;

use bert_model::pipeline::{
    Answer, FilledText, MaskProcessor, Prediction, QuestionProcessor, TaggedText, TaggingProcessor, Words,
};
use serde::{Deserialize, Serialize};

use super::Body;
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::{Model, N_BEST};
use crate::routes::ask::{Asked, Route};
use crate::routes::masks::check_top_k;
use crate::routes::one_or_many::{OneOrMany, Texts};
use crate::routes::questions::{Answered, Asking, check_asked, questions_of};
use crate::routes::tags::words_of_texts;

/// Entities, for token classifiers.
pub struct Tokens;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenParameters {
    /// Ignored: the words of an entity are always grouped.
    #[serde(rename = "aggregation_strategy")]
    _aggregation: Option<Aggregation>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Aggregation {
    Simple,
    First,
    Average,
    Max,
}

#[derive(Serialize)]
pub struct EntityGroup {
    entity_group: String,
    score: f32,
    word: String,
    start: usize,
    end: usize,
}

impl Route for Tokens {
    const PATH: &'static str = "POST /";
    type Processor = TaggingProcessor;
    type Body = Body<Texts, TokenParameters>;
    type Question = OneOrMany<Words>;
    type Reply = OneOrMany<Vec<EntityGroup>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<TaggingProcessor>>> {
        model.tag.as_ref()
    }

    fn question(body: Self::Body, asked: &Asked<Self>) -> Result<OneOrMany<Words>, ApiError> {
        words_of_texts(&body.inputs, asked.batcher.pipeline().processor())
    }

    fn requests(question: &OneOrMany<Words>) -> Vec<&Words> {
        question.as_slice().iter().collect()
    }

    fn reply(question: Self::Question, answers: Vec<TaggedText>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        let group = |entity: bert_model::pipeline::Entity| EntityGroup {
            entity_group: entity.label,
            score: entity.score,
            word: entity.text,
            start: entity.start,
            end: entity.end,
        };
        let groups = |tagged: TaggedText| tagged.entities.into_iter().map(group).collect();
        Ok(question.like(answers.into_iter().map(groups).collect()))
    }
}

/// Answers, for question-answering models.
pub struct Answers;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerParameters {
    top_k: Option<usize>,
}

impl Route for Answers {
    const PATH: &'static str = "POST /";
    type Processor = QuestionProcessor;
    type Body = Body<OneOrMany<Asking>, AnswerParameters>;
    type Question = (OneOrMany<Asking>, usize);
    /// One answer per question, or a list of answers per question if `top_k` is above 1.
    type Reply = OneOrMany<OneOrMany<Answered>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<QuestionProcessor>>> {
        model.answer.as_ref()
    }

    fn question(body: Self::Body, _asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        check_asked(&body.inputs)?;
        match body.parameters.and_then(|parameters| parameters.top_k).unwrap_or(1) {
            count if (1..=N_BEST).contains(&count) => Ok((body.inputs, count)),
            count => Err(ApiError::invalid(format!("`top_k`: found {count}, expected 1 to {N_BEST}"))),
        }
    }

    fn requests((asked, _): &Self::Question) -> Vec<(&str, &str)> {
        questions_of(asked)
    }

    fn reply((asked, top_k): Self::Question, answers: Vec<Answer>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        let answered = |answer: Answer| match top_k {
            1 => {
                let Answer { text, score, start, end, .. } = answer;
                OneOrMany::One(Answered { answer: text, score, start, end, n_best: None })
            }
            _ => OneOrMany::Many(answer.candidates.into_iter().take(top_k).map(Answered::from).collect()),
        };
        Ok(asked.like(answers.into_iter().map(answered).collect()))
    }
}

/// Predicted WordPieces, for masked-LM models.
pub struct Masks;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskParameters {
    top_k: Option<usize>,
}

#[derive(Serialize)]
pub struct MaskToken {
    score: f64,
    token: u32,
    token_str: String,
    sequence: String,
}

impl Route for Masks {
    const PATH: &'static str = "POST /";
    type Processor = MaskProcessor;
    type Body = Body<Texts, MaskParameters>;
    type Question = (Texts, usize);
    /// A list of tokens for a text with one mask, or one list per mask for a text with several.
    type Reply = OneOrMany<OneOrMany<OneOrMany<MaskToken>>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<MaskProcessor>>> {
        model.fill.as_ref()
    }

    fn question(body: Self::Body, _asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        body.inputs.check("inputs")?;
        Ok((body.inputs, check_top_k(body.parameters.and_then(|parameters| parameters.top_k))?))
    }

    fn requests((texts, top_k): &Self::Question) -> Vec<(&str, usize)> {
        texts.as_slice().iter().map(|text| (text.as_str(), *top_k)).collect()
    }

    fn reply(
        (texts, _): Self::Question,
        answers: Vec<FilledText>,
        asked: &Asked<Self>,
    ) -> Result<Self::Reply, ApiError> {
        let tokenizer = &asked.model.tokenizer;
        let mask = tokenizer.piece(tokenizer.mask()?);
        let filled = |FilledText { text, masks, .. }: FilledText| {
            let token = |number: usize, Prediction { token, id, probability, .. }: Prediction| MaskToken {
                score: probability,
                token: id,
                sequence: filled_in(&text, &mask, number, &token),
                token_str: token,
            };
            let tokens = masks.into_iter().enumerate().map(|(number, mask)| {
                OneOrMany::Many(mask.predictions.into_iter().map(|prediction| token(number, prediction)).collect())
            });
            let mut tokens: Vec<OneOrMany<MaskToken>> = tokens.collect();
            match tokens.len() {
                1 => OneOrMany::One(tokens.remove(0)),
                _ => OneOrMany::Many(tokens),
            }
        };
        Ok(texts.like(answers.into_iter().map(filled).collect()))
    }
}

/// The text with its mask at index `number` replaced by `token`.
fn filled_in(text: &str, mask: &str, number: usize, token: &str) -> String {
    match text.match_indices(mask).nth(number) {
        Some((at, _)) => [&text[..at], token, &text[at + mask.len()..]].concat(),
        None => text.to_string(),
    }
}
