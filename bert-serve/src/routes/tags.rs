//! `/tag`: tags words and finds the entities that they mark, with the JSON of `bert-finetune predict`.

use std::sync::Arc;

use bert_model::pipeline::{TaggedText, TaggingProcessor, Words};
use serde::{Deserialize, Serialize};

use super::ask::{Asked, Route};
use super::one_or_many::{OneOrMany, Texts};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// `POST /tag`.
pub struct Tag;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagBody {
    #[serde(alias = "inputs", alias = "input")]
    text: Option<Texts>,
    /// Alternative to `text`: the words of a text, or a list of such lists.
    words: Option<Vec<Texts>>,
    model: Option<String>,
}

/// The words of a text, their tags, and the entities.
#[derive(Serialize)]
pub struct Tagged {
    words: Vec<String>,
    tags: Vec<String>,
    entities: Vec<TaggedEntity>,
}

#[derive(Serialize)]
struct TaggedEntity {
    #[serde(rename = "type")]
    kind: String,
    start: usize,
    end: usize,
    text: String,
    score: f32,
}

impl From<TaggedText> for Tagged {
    fn from(tagged: TaggedText) -> Self {
        let entity = |entity: bert_model::pipeline::Entity| TaggedEntity {
            kind: entity.label,
            start: entity.start,
            end: entity.end,
            text: entity.text,
            score: entity.score,
        };
        let TaggedText { words, tags, entities, .. } = tagged;
        Self { words, tags, entities: entities.into_iter().map(entity).collect() }
    }
}

impl Route for Tag {
    const PATH: &'static str = "/tag";
    type Processor = TaggingProcessor;
    type Body = TagBody;
    type Question = OneOrMany<Words>;
    type Reply = OneOrMany<Tagged>;

    fn model(body: &TagBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<TaggingProcessor>>> {
        model.tag.as_ref()
    }

    fn question(body: TagBody, asked: &Asked<Self>) -> Result<OneOrMany<Words>, ApiError> {
        match (body.text, body.words) {
            (Some(texts), None) => words_of_texts(&texts, asked.batcher.pipeline().processor()),
            (None, Some(words)) => words_as_given(words),
            _ => Err(ApiError::invalid("expected `text` or `words`, one of the two")),
        }
    }

    fn requests(question: &OneOrMany<Words>) -> Vec<&Words> {
        question.as_slice().iter().collect()
    }

    fn reply(question: Self::Question, answers: Vec<TaggedText>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        Ok(question.like(answers.into_iter().map(Tagged::from).collect()))
    }
}

/// Splits texts into words.
///
/// # Errors
/// 422 if a text is empty.
pub fn words_of_texts(texts: &Texts, processor: &TaggingProcessor) -> Result<OneOrMany<Words>, ApiError> {
    texts.check("text")?;
    let words = texts.as_slice().iter().map(|text| Ok(processor.split(text)?));
    Ok(texts.like(words.collect::<Result<_, ApiError>>()?))
}

fn words_as_given(words: Vec<Texts>) -> Result<OneOrMany<Words>, ApiError> {
    if words.is_empty() {
        return Err(ApiError::invalid("`words`: found an empty list, expected at least one word"));
    }
    words.iter().try_for_each(|texts| texts.check("words"))?;
    let word = |texts: &Texts| match texts {
        OneOrMany::One(word) => Some(word.clone()),
        OneOrMany::Many(_) => None,
    };
    let list = |texts: &Texts| match texts {
        OneOrMany::One(_) => None,
        OneOrMany::Many(words) => (!words.is_empty()).then(|| Words::new(words.clone())),
    };
    if let Some(words) = words.iter().map(word).collect::<Option<Vec<_>>>() {
        return Ok(OneOrMany::One(Words::new(words)));
    }
    let lists = words.iter().map(list).collect::<Option<Vec<_>>>();
    let wrong = || ApiError::invalid("`words`: expected a list of words, or a list of such lists, none of them empty");
    lists.map(OneOrMany::Many).ok_or_else(wrong)
}
