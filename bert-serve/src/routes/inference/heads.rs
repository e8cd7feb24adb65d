//! Entities, answers, and masks in the JSON of transformers' pipelines.

use bert_model::pipeline::{Answer, FilledText, Prediction, TaggedText, Words};
use serde::{Deserialize, Serialize};

use super::Body;
use crate::error::ApiError;
use crate::routes::ask::{Route, Target, Task};
use crate::routes::masks::{self, Filling};
use crate::routes::one_or_many::{OneOrMany, Texts};
use crate::routes::questions::{Answered, Answering, Asking, question};
use crate::routes::tags::{Tagging, words_of_texts};

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
    type Task = Tagging;
    type Body = Body<Texts, TokenParameters>;
    type Reply = OneOrMany<Vec<EntityGroup>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: Self::Body, target: &Target<Tagging>) -> Result<OneOrMany<Words>, ApiError> {
        words_of_texts(&body.inputs, target.batcher.pipeline().processor())
    }

    fn reply(
        texts: OneOrMany<Words>,
        answers: Vec<TaggedText>,
        _target: &Target<Tagging>,
    ) -> Result<Self::Reply, ApiError> {
        let group = |entity: bert_model::pipeline::Entity| EntityGroup {
            entity_group: entity.label,
            score: entity.score,
            word: entity.text,
            start: entity.start,
            end: entity.end,
        };
        let groups = |tagged: TaggedText| tagged.entities.into_iter().map(group).collect();
        Ok(texts.like(answers.into_iter().map(groups).collect()))
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
    type Task = Answering;
    type Body = Body<OneOrMany<Asking>, AnswerParameters>;
    /// One answer per question, or a list of answers per question if `top_k` is above 1.
    type Reply = OneOrMany<OneOrMany<Answered>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: Self::Body, _target: &Target<Answering>) -> Result<<Answering as Task>::Question, ApiError> {
        question(body.inputs, "top_k", body.parameters.and_then(|parameters| parameters.top_k))
    }

    fn reply(
        (questions, top_k): <Answering as Task>::Question,
        answers: Vec<Answer>,
        _target: &Target<Answering>,
    ) -> Result<Self::Reply, ApiError> {
        let top_k = top_k.unwrap_or(1);
        let answered = |answer: Answer| match top_k {
            1 => {
                let Answer { text, score, start, end, .. } = answer;
                OneOrMany::One(Answered { answer: text, score, start, end, n_best: None })
            }
            _ => OneOrMany::Many(answer.candidates.into_iter().take(top_k).map(Answered::from).collect()),
        };
        Ok(questions.like(answers.into_iter().map(answered).collect()))
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
    type Task = Filling;
    type Body = Body<Texts, MaskParameters>;
    /// A list of tokens for a text with one mask, or one list per mask for a text with several.
    type Reply = OneOrMany<OneOrMany<OneOrMany<MaskToken>>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: Self::Body, target: &Target<Filling>) -> Result<(Texts, usize), ApiError> {
        let top_k = body.parameters.and_then(|parameters| parameters.top_k);
        masks::question(body.inputs, "inputs", top_k, true, target)
    }

    fn reply(
        (texts, _): (Texts, usize),
        answers: Vec<FilledText>,
        target: &Target<Filling>,
    ) -> Result<Self::Reply, ApiError> {
        let mask = masks::mask_of(target)?;
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

/// The text with its mask at index `number` replaced by `token`; a continuation such as `##ing` is joined to the word
/// before.
fn filled_in(text: &str, mask: &str, number: usize, token: &str) -> String {
    let Some((at, _)) = text.match_indices(mask).nth(number) else { return text.to_string() };
    let (before, after) = (&text[..at], &text[at + mask.len()..]);
    match token.strip_prefix("##") {
        Some(rest) => [before.trim_end(), rest, after].concat(),
        None => [before, token, after].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_is_joined_to_the_word_before_the_mask() {
        let filled = |number, token| filled_in("play [MASK] a [MASK].", "[MASK]", number, token);
        assert_eq!(filled(0, "##ing"), "playing a [MASK].");
        assert_eq!(filled(1, "game"), "play [MASK] a game.");
        assert_eq!(filled(2, "game"), "play [MASK] a [MASK].");
    }
}
