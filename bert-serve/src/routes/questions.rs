//! `/answer`: finds the span of a text that answers a question, with the JSON of `bert-finetune predict`.

use std::sync::Arc;

use bert_model::pipeline::{Answer, Candidate, QuestionProcessor};
use serde::{Deserialize, Serialize};

use super::ask::{Route, Target, Task};
use super::one_or_many::{OneOrMany, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::{Model, N_BEST};

/// Answering questions: the questions, and how many candidates to list for each.
pub struct Answering;

impl Task for Answering {
    type Processor = QuestionProcessor;
    type Question = (OneOrMany<Asking>, Option<usize>);

    fn batcher(model: &Model) -> Option<&Arc<Batcher<QuestionProcessor>>> {
        model.answer.as_ref()
    }

    fn requests((questions, _): &Self::Question) -> Vec<(&str, &str)> {
        let questions = questions.as_slice().iter();
        questions.map(|Asking { question, context }| (question.as_str(), context.as_str())).collect()
    }
}

/// The questions and the number of candidates of a request; `field` is the name of that number.
///
/// # Errors
/// 422 if a question or a context is empty, or the number is out of range.
pub fn question(
    questions: OneOrMany<Asking>,
    field: &str,
    candidates: Option<usize>,
) -> Result<(OneOrMany<Asking>, Option<usize>), ApiError> {
    for Asking { question, context } in questions.as_slice() {
        check_text(question, "question")?;
        check_text(context, "context")?;
    }
    match candidates {
        Some(count) if !(1..=N_BEST).contains(&count) => {
            Err(ApiError::invalid(format!("`{field}`: found {count}, expected 1 to {N_BEST}")))
        }
        candidates => Ok((questions, candidates)),
    }
}

/// `POST /answer`.
pub struct AnswerRoute;

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

impl Route for AnswerRoute {
    const PATH: &'static str = "/answer";
    type Task = Answering;
    type Body = AnswerBody;
    type Reply = OneOrMany<Answered>;

    fn model(body: &AnswerBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: AnswerBody, _target: &Target<Answering>) -> Result<<Answering as Task>::Question, ApiError> {
        let questions = match (body.question, body.context, body.inputs) {
            (Some(question), Some(context), None) => OneOrMany::One(Asking { question, context }),
            (None, None, Some(inputs)) => inputs,
            _ => return Err(ApiError::invalid("expected `question` and `context`, or a list of both in `inputs`")),
        };
        question(questions, "n_best", body.n_best)
    }

    fn reply(
        (questions, n_best): <Answering as Task>::Question,
        answers: Vec<Answer>,
        _target: &Target<Answering>,
    ) -> Result<Self::Reply, ApiError> {
        let answered = |answer: Answer| {
            let Answer { text, score, start, end, candidates, .. } = answer;
            let n_best = n_best.map(|count| candidates.into_iter().take(count).map(Answered::from).collect());
            Answered { answer: text, score, start, end, n_best }
        };
        Ok(questions.like(answers.into_iter().map(answered).collect()))
    }
}
