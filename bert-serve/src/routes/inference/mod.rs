//! `POST /`: Hugging Face's inference API, as used by `InferenceClient`. The request is `{"inputs", "parameters"}`, and
//! the response is that of transformers' pipeline for the model's head.

mod heads;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bert_model::pipeline::TokenEmbeddings;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ask::{Route, Target, answer, blocking, model_of, one_name};
use super::embeddings::{Direction, Embedded, Embedding};
use super::labels::{Classifying, Judged, Label, OwnedPair};
use super::one_or_many::Texts;
use crate::app::App;
use crate::body::read_body;
use crate::error::ApiError;
use crate::models::Model;
use heads::{Answers, Masks, Tokens};

/// Handles a request with the head of the model that the query or the body names, or of the first suitable model.
///
/// # Errors
/// Those of [`answer`], and 422 if the inference API has no form for the head.
pub async fn infer(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let named = model_of(request.uri())?;
    let body = read_body(&app, request).await?;
    let find = move || {
        // Whatever else is wrong with the body is told by the route of the head.
        let named = serde_json::from_slice::<Named>(&body.0).ok().and_then(|body| body.model);
        Ok((named, body))
    };
    let (in_body, body) = blocking(find).await?;
    let name = one_name(named.as_deref(), in_body.as_deref())?;
    let model = app.models.pick(name, "POST /", has_form)?.clone();
    match () {
        () if model.fill.is_some() => answer::<Masks>(app, named, body).await,
        () if model.embed.is_some() => answer::<Features>(app, named, body).await,
        () if model.classify.is_some() => answer::<Classes>(app, named, body).await,
        () if model.tag.is_some() => answer::<Tokens>(app, named, body).await,
        () => answer::<Answers>(app, named, body).await,
    }
}

/// The part of a body that chooses the model, and so its form.
#[derive(Deserialize)]
struct Named {
    model: Option<String>,
}

/// Whether the inference API has a form for the model's head.
fn has_form(model: &Model) -> bool {
    let Model { fill, embed, classify, tag, answer, .. } = model;
    fill.is_some() || embed.is_some() || classify.is_some() || tag.is_some() || answer.is_some()
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
    prompt_name: Option<String>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
    parameters: Option<FeatureParameters>,
    #[serde(rename = "options")]
    _options: Option<Map<String, Value>>,
    model: Option<String>,
}

/// The options of feature extraction, as `InferenceClient` sends them.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureParameters {
    normalize: Option<bool>,
    truncate: Option<bool>,
    prompt_name: Option<String>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
}

struct Features;

impl Route for Features {
    const PATH: &'static str = "POST /";
    type Task = Embedding;
    type Body = FeatureBody;
    type Reply = Vec<Vec<f32>>;

    fn model(body: &FeatureBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: FeatureBody, _target: &Target<Embedding>) -> Result<Embedded, ApiError> {
        let inner = body.parameters.unwrap_or_default();
        Ok(Embedded {
            prompt: body.prompt_name.or(inner.prompt_name),
            truncate: body.truncate.or(inner.truncate),
            normalize: body.normalize.or(inner.normalize).unwrap_or(true),
            ..Embedded::new(body.inputs, "inputs")?
        })
    }

    fn reply(
        embedded: Embedded,
        answers: Vec<TokenEmbeddings>,
        _target: &Target<Embedding>,
    ) -> Result<Self::Reply, ApiError> {
        embedded.vectors(answers)
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
    type Task = Classifying;
    type Body = Body<Texts, ClassParameters>;
    type Reply = Vec<Vec<Label>>;

    fn model(body: &Self::Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: Self::Body, target: &Target<Classifying>) -> Result<Judged, ApiError> {
        let pair = |text: &String| -> OwnedPair { (text.clone(), None) };
        let pairs = body.inputs.like(body.inputs.as_slice().iter().map(pair).collect());
        let (top_k, function) =
            body.parameters.map_or((None, None), |parameters| (parameters.top_k, parameters.function_to_apply));
        let raw_scores = function == Some(Function::None);
        Judged { pairs, truncate: None, raw_scores, top_k }.check(&target.model)
    }

    fn reply(judged: Judged, answers: Vec<Vec<f32>>, target: &Target<Classifying>) -> Result<Self::Reply, ApiError> {
        let processor = target.batcher.pipeline().processor();
        Ok(answers.iter().map(|scores| judged.labels(processor, scores)).collect())
    }
}
