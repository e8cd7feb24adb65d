//! Tags, answers, masks and choices, with the JSON that the programs print.

use std::borrow::Cow;
use std::sync::Arc;

use bert_model::pipeline::{
    Answer, Candidate, Choice, ChoiceProcessor, FilledText, MaskProcessor, QuestionProcessor, TaggedText,
    TaggingProcessor, Words,
};
use serde::{Deserialize, Serialize};

use super::ask::{Asked, Route};
use super::one_or_many::{OneOrMany, Texts, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::{Model, N_BEST};

/// WordPieces that are listed for a mask, unless the request says how many, and at most.
const TOP_K: usize = 5;
const MOST_TOP_K: usize = 1000;

/// `POST /tag`.
pub struct Tag;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagBody {
    #[serde(alias = "inputs", alias = "input")]
    text: Option<Texts>,
    /// Instead of a text: its words, or a list of lists of words.
    words: Option<Vec<Texts>>,
    model: Option<String>,
}

/// A text's words with their tags.
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

/// Texts cut into words.
///
/// # Errors
/// 422 for an empty one.
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

/// `POST /answer`.
pub struct Answering;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    question: Option<String>,
    context: Option<String>,
    /// Instead: a question with its context, or several.
    inputs: Option<OneOrMany<Asking>>,
    n_best: Option<usize>,
    model: Option<String>,
}

/// A question and the text that it is about.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    pub question: String,
    pub context: String,
}

/// A span of the context; an empty one is no answer.
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

/// Checks that neither questions nor contexts are empty.
///
/// # Errors
/// 422.
pub fn check_asked(asked: &OneOrMany<Asking>) -> Result<(), ApiError> {
    asked.as_slice().iter().try_for_each(|Asking { question, context }| {
        check_text(question, "question")?;
        check_text(context, "context")
    })
}

/// What the model is asked.
pub fn questions_of(asked: &OneOrMany<Asking>) -> Vec<(&str, &str)> {
    asked.as_slice().iter().map(|Asking { question, context }| (question.as_str(), context.as_str())).collect()
}

/// `POST /fill-mask`.
pub struct FillMask;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillBody {
    #[serde(alias = "inputs", alias = "input")]
    text: Texts,
    top_k: Option<usize>,
    model: Option<String>,
}

impl Route for FillMask {
    const PATH: &'static str = "/fill-mask";
    type Processor = MaskProcessor;
    type Body = FillBody;
    type Question = (Texts, usize);
    type Reply = OneOrMany<FilledText>;

    fn model(body: &FillBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<MaskProcessor>>> {
        model.fill.as_ref()
    }

    fn question(body: FillBody, _asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        body.text.check("text")?;
        Ok((body.text, check_top_k(body.top_k)?))
    }

    fn requests((texts, top_k): &Self::Question) -> Vec<(&str, usize)> {
        texts.as_slice().iter().map(|text| (text.as_str(), *top_k)).collect()
    }

    fn reply((texts, _): Self::Question, answers: Vec<FilledText>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        Ok(texts.like(answers))
    }
}

/// How many WordPieces are listed for a mask.
///
/// # Errors
/// 422 for none, or for very many.
pub fn check_top_k(top_k: Option<usize>) -> Result<usize, ApiError> {
    match top_k.unwrap_or(TOP_K) {
        count if (1..=MOST_TOP_K).contains(&count) => Ok(count),
        count => Err(ApiError::invalid(format!("`top_k`: found {count}, expected 1 to {MOST_TOP_K}"))),
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
    /// Instead: a text with its choices, or several.
    inputs: Option<OneOrMany<Choosing>>,
    model: Option<String>,
}

/// A text and what may follow it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choosing {
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
    type Processor = ChoiceProcessor;
    type Body = ChooseBody;
    type Question = OneOrMany<Choosing>;
    type Reply = OneOrMany<Chosen>;

    fn model(body: &ChooseBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<ChoiceProcessor>>> {
        model.choose.as_ref()
    }

    fn question(body: ChooseBody, asked: &Asked<Self>) -> Result<OneOrMany<Choosing>, ApiError> {
        let questions = match (body.text, body.choices, body.inputs) {
            (Some(text), Some(choices), None) => OneOrMany::One(Choosing { text, choices }),
            (None, None, Some(inputs)) => inputs,
            _ => return Err(ApiError::invalid("expected `text` and `choices`, or a list of both in `inputs`")),
        };
        for Choosing { text, choices } in questions.as_slice() {
            check_text(text, "text")?;
            OneOrMany::Many(choices.clone()).check("choices")?;
            if choices.is_empty() {
                return Err(ApiError::invalid("`choices`: found an empty list, expected at least one choice"));
            }
        }
        let choices = questions.as_slice().iter().map(|question| question.choices.len()).sum();
        // An empty list of questions is told by whoever counts the requests.
        super::ask::check_count(std::cmp::max(choices, 1), asked.app.limits.inputs)?;
        Ok(questions)
    }

    fn requests(questions: &OneOrMany<Choosing>) -> Vec<(Cow<'_, str>, &[String])> {
        let questions = questions.as_slice().iter();
        questions.map(|Choosing { text, choices }| (Cow::from(text.as_str()), choices.as_slice())).collect()
    }

    fn reply(questions: OneOrMany<Choosing>, answers: Vec<Choice>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        let chosen = |Choice { index, probabilities, .. }: Choice| Chosen { choice: index, probabilities };
        Ok(questions.like(answers.into_iter().map(chosen).collect()))
    }
}
