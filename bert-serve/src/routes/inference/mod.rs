//! `POST /`: Hugging Face's inference API, as used by `InferenceClient`. The request is `{"inputs", "parameters"}`, and
//! the response is that of transformers' pipeline for the model's head.

mod heads;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bert_model::pipeline::{EmbeddingProcessor, TokenEmbeddings};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ask::{Asked, Route, TextOrPair, ask, model_of};
use super::embeddings::{self, Direction, finish, of_texts, singles};
use super::labels::{Judged, Label, OwnedPair, check_pairs, labels_of};
use super::one_or_many::Texts;
use crate::app::App;
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;
use crate::scores::ScoreProcessor;
use heads::{Answers, Masks, Tokens};

/// Handles a request with the head of the model that the query names, or of the first suitable model.
///
/// # Errors
/// Those of [`ask`], and 422 if the inference API has no form for the head.
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

/// A request body of the inference API, with the parameters of one task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body<I, P> {
    inputs: I,
    parameters: Option<P>,
    /// Options for caching and waiting in Hugging Face's service, which are ignored.
    #[serde(rename = "options")]
    _options: Option<Map<String, Value>>,
    model: Option<String>,
}

/// A request body for feature extraction, whose parameters may also be at the top level.
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
    /// Raw scores of the head.
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
