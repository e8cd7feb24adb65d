//! `/answer`: finds the span of a text that answers a question, with the JSON of `bert-finetune predict`.

use std::sync::Arc;

use bert_model::pipeline::{Answer, Candidate, QuestionProcessor};
use serde::{Deserialize, Serialize};

use super::ask::{Asked, Route};
use super::one_or_many::{OneOrMany, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::{Model, N_BEST};

/// `POST /answer`.
pub struct Answering;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    question: Option<String>,
    context: Option<String>,
    /// Alternative to `question` and `context`: one such object, or a list of them.
    inputs: Option<OneOrMany<Asking>>,
    n_best: Option<usize>,
    model: Option<String>,
}

/// A question and the context that may answer it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    pub question: String,
    pub context: String,
}

/// A span of the context. An empty span means that there is no answer.
#[derive(Serialize)]
pub struct Answered {
    pub answer: String,
    pub score: f64,
    pub start: usize,
    pub end: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_best: Option<Vec<Answered>>,
}

impl From<Candidate> for Answered {
    fn from(Candidate { text, score, start, end, .. }: Candidate) -> Self {
        Self { answer: text, score, start, end, n_best: None }
    }
}

impl Route for Answering {
    const PATH: &'static str = "/answer";
    type Processor = QuestionProcessor;
    type Body = AnswerBody;
    type Question = (OneOrMany<Asking>, Option<usize>);
    type Reply = OneOrMany<Answered>;

    fn model(body: &AnswerBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<QuestionProcessor>>> {
        model.answer.as_ref()
    }

    fn question(body: AnswerBody, _asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        let asked = match (body.question, body.context, body.inputs) {
            (Some(question), Some(context), None) => OneOrMany::One(Asking { question, context }),
            (None, None, Some(inputs)) => inputs,
            _ => return Err(ApiError::invalid("expected `question` and `context`, or a list of both in `inputs`")),
        };
        check_asked(&asked)?;
        match body.n_best {
            Some(count) if !(1..=N_BEST).contains(&count) => {
                Err(ApiError::invalid(format!("`n_best`: found {count}, expected 1 to {N_BEST}")))
            }
            n_best => Ok((asked, n_best)),
        }
    }

    fn requests((asked, _): &Self::Question) -> Vec<(&str, &str)> {
        questions_of(asked)
    }

    fn reply((asked, n_best): Self::Question, answers: Vec<Answer>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        let answered = |answer: Answer| {
            let Answer { text, score, start, end, candidates, .. } = answer;
            let n_best = n_best.map(|count| candidates.into_iter().take(count).map(Answered::from).collect());
            Answered { answer: text, score, start, end, n_best }
        };
        Ok(asked.like(answers.into_iter().map(answered).collect()))
    }
}

/// Checks that no question and no context is empty.
///
/// # Errors
/// 422 if one is empty.
pub fn check_asked(asked: &OneOrMany<Asking>) -> Result<(), ApiError> {
    asked.as_slice().iter().try_for_each(|Asking { question, context }| {
        check_text(question, "question")?;
        check_text(context, "context")
    })
}

/// The pipeline requests.
pub fn questions_of(asked: &OneOrMany<Asking>) -> Vec<(&str, &str)> {
    asked.as_slice().iter().map(|Asking { question, context }| (question.as_str(), context.as_str())).collect()
}
