//! `/tag`: tags words and finds the entities that they mark, with the JSON of `bert-finetune predict`.

use std::sync::Arc;

use bert_model::pipeline::{TaggedText, TaggingProcessor, Words};
use serde::Deserialize;

use super::ask::{Route, Target, Task};
use super::one_or_many::{OneOrMany, Texts};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// Tagging the words of texts.
pub struct Tagging;

impl Task for Tagging {
    type Processor = TaggingProcessor;
    type Question = OneOrMany<Words>;

    fn batcher(model: &Model) -> Option<&Arc<Batcher<TaggingProcessor>>> {
        model.tag.as_ref()
    }

    fn requests(texts: &OneOrMany<Words>) -> Vec<&Words> {
        texts.as_slice().iter().collect()
    }
}

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

impl Route for Tag {
    const PATH: &'static str = "/tag";
    type Task = Tagging;
    type Body = TagBody;
    type Reply = OneOrMany<TaggedText>;

    fn model(body: &TagBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: TagBody, target: &Target<Tagging>) -> Result<OneOrMany<Words>, ApiError> {
        match (body.text, body.words) {
            (Some(texts), None) => words_of_texts(&texts, target.batcher.pipeline().processor()),
            (None, Some(words)) => words_as_given(words),
            _ => Err(ApiError::invalid("expected `text` or `words`, one of the two")),
        }
    }

    fn reply(
        texts: OneOrMany<Words>,
        answers: Vec<TaggedText>,
        _target: &Target<Tagging>,
    ) -> Result<Self::Reply, ApiError> {
        Ok(texts.like(answers))
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
