//! `POST /`: what a model's head is for, in the form of Hugging Face's inference API, which `InferenceClient` speaks:
//! `{"inputs", "parameters"}`, and answers as transformers' pipelines give them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bert_model::pipeline::{
    Answer, EmbeddingProcessor, FilledText, MaskProcessor, Prediction, QuestionProcessor, TaggedText, TaggingProcessor,
    TokenEmbeddings, Words,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ask::{Asked, Route, TextOrPair, ask, model_of};
use super::embeddings::{self, Direction, finish, of_texts, singles};
use super::heads::{Answered, Asking, check_asked, check_top_k, questions_of, words_of_texts};
use super::labels::{Judged, Label, OwnedPair, check_pairs, labels_of};
use super::one_or_many::{OneOrMany, Texts};
use crate::app::App;
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::{Model, N_BEST};
use crate::scores::ScoreProcessor;

/// Answers as the head of the model does that the query names; of the first one, if it names none.
///
/// # Errors
/// Those of [`ask`], and 422 for a head that the inference API has no form for.
pub async fn infer(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let named = model_of(request.uri())?;
    let model = app.models.pick(named.as_deref(), "POST /", |model| model.choose.is_none())?.clone();
    let app = State(app);
    match () {
        () if model.fill.is_some() => ask::<Masks>(app, request).await,
        () if model.embed.is_some() => ask::<Features>(app, request).await,
        () if model.classify.is_some() => ask::<Classes>(app, request).await,
        () if model.tag.is_some() => ask::<Tokens>(app, request).await,
        () => ask::<Answers>(app, request).await,
    }
}

/// A body of the inference API with the parameters of one task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body<I, P> {
    inputs: I,
    parameters: Option<P>,
    /// How that service caches and waits; nothing here.
    #[serde(rename = "options")]
    _options: Option<Map<String, Value>>,
    model: Option<String>,
}

/// What stands at the top level for feature extraction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureBody {
    inputs: Texts,
    normalize: Option<bool>,
    truncate: Option<bool>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
    parameters: Option<FeatureParameters>,
    #[serde(rename = "options")]
    _options: Option<Map<String, Value>>,
    model: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureParameters {
    normalize: Option<bool>,
    truncate: Option<bool>,
}

struct Features;

impl Route for Features {
    const PATH: &'static str = "POST /";
    type Processor = EmbeddingProcessor;
    type Body = FeatureBody;
    type Question = FeatureBody;
    type Reply = Vec<Vec<f32>>;

    fn model(body: &FeatureBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<EmbeddingProcessor>>> {
        model.embed.as_ref()
    }

    fn question(body: FeatureBody, _asked: &Asked<Self>) -> Result<FeatureBody, ApiError> {
        body.inputs.check("inputs")?;
        Ok(body)
    }

    fn requests(question: &FeatureBody) -> Vec<embeddings::Request<'_>> {
        of_texts(question.inputs.as_slice())
    }

    fn whole_texts<'a>(question: &'a FeatureBody, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        let inner = question.parameters.as_ref().and_then(|parameters| parameters.truncate);
        let truncate = question.truncate.or(inner).unwrap_or(asked.app.limits.truncate);
        (!truncate).then(|| singles(question.inputs.as_slice()))
    }

    fn reply(question: FeatureBody, answers: Vec<TokenEmbeddings>, _: &Asked<Self>) -> Result<Self::Reply, ApiError> {
        let inner = question.parameters.and_then(|parameters| parameters.normalize);
        finish(answers, question.normalize.or(inner).unwrap_or(true), None)
    }
}

struct Classes;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassParameters {
    top_k: Option<usize>,
    function_to_apply: Option<Function>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Function {
    /// The scores of the head.
    None,
}

impl Route for Classes {
    const PATH: &'static str = "POST /";
    type Processor = ScoreProcessor;
    type Body = Body<Texts, ClassParameters>;
    type Question = (Judged, Option<usize>);
    type Reply = Vec<Vec<Label>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<ScoreProcessor>>> {
        model.classify.as_ref()
    }

    fn question(body: Self::Body, asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        let pair = |text: &String| -> OwnedPair { (text.clone(), None) };
        let pairs = body.inputs.like(body.inputs.as_slice().iter().map(pair).collect());
        check_pairs(pairs.as_slice(), &asked.model)?;
        let (top_k, function) =
            body.parameters.map_or((None, None), |parameters| (parameters.top_k, parameters.function_to_apply));
        Ok((Judged { pairs, truncate: None, raw_scores: function == Some(Function::None) }, top_k))
    }

    fn requests((judged, _): &Self::Question) -> Vec<TextOrPair<'_>> {
        judged.requests()
    }

    fn whole_texts<'a>((judged, _): &'a Self::Question, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        judged.whole_texts(asked.app.limits.truncate)
    }

    fn reply(
        (judged, top_k): Self::Question,
        answers: Vec<Vec<f32>>,
        asked: &Asked<Self>,
    ) -> Result<Self::Reply, ApiError> {
        let processor = asked.batcher.pipeline().processor();
        let labels = |scores: &Vec<f32>| {
            let mut labels = labels_of(processor, scores, judged.raw_scores);
            labels.truncate(top_k.unwrap_or(usize::MAX));
            labels
        };
        Ok(answers.iter().map(labels).collect())
    }
}

struct Tokens;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenParameters {
    /// Words of one entity always stand together.
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
struct EntityGroup {
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

struct Answers;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerParameters {
    top_k: Option<usize>,
}

impl Route for Answers {
    const PATH: &'static str = "POST /";
    type Processor = QuestionProcessor;
    type Body = Body<OneOrMany<Asking>, AnswerParameters>;
    type Question = (OneOrMany<Asking>, usize);
    /// With `top_k` above 1 a list of answers for each question.
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

struct Masks;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskParameters {
    top_k: Option<usize>,
}

#[derive(Serialize)]
struct MaskToken {
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
    /// With one mask in a text a list of tokens, with several a list for each.
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
        let mask = tokenizer.piece(tokenizer.special().mask);
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

/// The text with its `number`-th mask replaced.
fn filled_in(text: &str, mask: &str, number: usize, token: &str) -> String {
    match text.match_indices(mask).nth(number) {
        Some((at, _)) => [&text[..at], token, &text[at + mask.len()..]].concat(),
        None => text.to_string(),
    }
}
