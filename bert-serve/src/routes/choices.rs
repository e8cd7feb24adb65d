//! `/choose`: picks the best of several continuations, with the JSON of `bert-finetune predict`.

use std::borrow::Cow;
use std::sync::Arc;

use bert_model::pipeline::{Choice, ChoiceProcessor};
use serde::{Deserialize, Serialize};

use super::ask::{Route, Target, Task, check_count};
use super::one_or_many::{OneOrMany, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// Choosing the best of several continuations.
pub struct Choices;

impl Task for Choices {
    type Processor = ChoiceProcessor;
    type Question = OneOrMany<Continuations>;

    fn batcher(model: &Model) -> Option<&Arc<Batcher<ChoiceProcessor>>> {
        model.choose.as_ref()
    }

    fn requests(questions: &OneOrMany<Continuations>) -> Vec<(Cow<'_, str>, &[String])> {
        let questions = questions.as_slice().iter();
        questions.map(|Continuations { text, choices }| (Cow::from(text.as_str()), choices.as_slice())).collect()
    }
}

/// `POST /choose`.
pub struct Choose;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChooseBody {
    #[serde(alias = "prompt")]
    text: Option<String>,
    choices: Option<Vec<String>>,
    /// Alternative to `text` and `choices`: one such object, or a list of them.
    inputs: Option<OneOrMany<Continuations>>,
    model: Option<String>,
}

/// A text and its possible continuations.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuations {
    #[serde(alias = "prompt")]
    text: String,
    choices: Vec<String>,
}

#[derive(Serialize)]
pub struct Chosen {
    choice: usize,
    probabilities: Vec<f32>,
}

impl Route for Choose {
    const PATH: &'static str = "/choose";
    type Task = Choices;
    type Body = ChooseBody;
    type Reply = OneOrMany<Chosen>;

    fn model(body: &ChooseBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: ChooseBody, target: &Target<Choices>) -> Result<OneOrMany<Continuations>, ApiError> {
        let questions = match (body.text, body.choices, body.inputs) {
            (Some(text), Some(choices), None) => OneOrMany::One(Continuations { text, choices }),
            (None, None, Some(inputs)) => inputs,
            _ => return Err(ApiError::invalid("expected `text` and `choices`, or a list of both in `inputs`")),
        };
        for Continuations { text, choices } in questions.as_slice() {
            check_text(text, "text")?;
            OneOrMany::Many(choices.clone()).check("choices")?;
            if choices.is_empty() {
                return Err(ApiError::invalid("`choices`: found an empty list, expected at least one choice"));
            }
        }
        let choices = questions.as_slice().iter().map(|question| question.choices.len()).sum();
        // If there are no questions at all, the check of the request count reports it.
        check_count(std::cmp::max(choices, 1), target.app.limits.inputs)?;
        Ok(questions)
    }

    fn reply(
        questions: OneOrMany<Continuations>,
        answers: Vec<Choice>,
        _target: &Target<Choices>,
    ) -> Result<Self::Reply, ApiError> {
        let chosen = |Choice { index, probabilities, .. }: Choice| Chosen { choice: index, probabilities };
        Ok(questions.like(answers.into_iter().map(chosen).collect()))
    }
}
