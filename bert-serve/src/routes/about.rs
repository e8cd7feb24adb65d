//! Routes about the server itself: models, health, metrics, the OpenAPI document, and the page.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bert_model::pipeline::Precision;
use serde_json::{Value, json};

use super::ask::{json_response, model_of};
use crate::app::App;
use crate::error::ApiError;
use crate::models::Model;
use crate::serve::text_threads;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Scripts and styles may only be inline, data may only come from this server, and everything else is blocked.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`: the page for trying the models.
pub async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
    ];
    (headers, include_str!("../page.html")).into_response()
}

/// `GET /openapi.json`: the OpenAPI document.
pub async fn openapi() -> Response {
    json_response(include_str!("../openapi.json").replace("\"0.0.0\"", &format!("{VERSION:?}")).into_bytes())
}

/// `GET /health`: always succeeds while the process responds.
pub async fn health() -> Response {
    json_response(br#"{"status":"ok"}"#.to_vec())
}

/// `GET /ready`: succeeds while the server accepts new requests. The port opens only after the models are loaded, so
/// this fails only during shutdown.
///
/// # Errors
/// 503 once the server is shutting down.
pub async fn ready(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    if app.is_ending() { Err(ApiError::ending()) } else { Ok(json_response(br#"{"status":"ready"}"#.to_vec())) }
}

/// `GET /metrics`: metrics for Prometheus.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.to_text()).into_response()
}

/// `GET /v1/models`: OpenAI's list of models, with the routes of each model.
pub async fn models(State(app): State<Arc<App>>) -> Response {
    let models: Vec<Value> = app.models.iter().map(|model| entry(model)).collect();
    json_response(json!({"object": "list", "data": models}).to_string().into_bytes())
}

/// `GET /v1/models/NAME`: the entry of one model.
///
/// # Errors
/// 404 if there is no such model.
pub async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let model = app.models.pick(Some(&name), "/v1/models", |_| true)?;
    Ok(json_response(entry(model).to_string().into_bytes()))
}

fn entry(model: &Model) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "bert-serve",
        "architecture": model.architecture(),
        "routes": model.routes(),
    })
}

/// `GET /info`: the fields of text-embeddings-inference, plus the routes of the model.
///
/// # Errors
/// 404 if there is no such model.
pub async fn info(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let named = model_of(request.uri())?;
    let model = app.models.pick(named.as_deref(), "/info", |_| true)?;
    let limits = &app.limits;
    let info = json!({
        "model_id": model.name,
        "model_sha": null,
        "model_dtype": dtype(limits.precision),
        "model_type": model_type(model),
        "architecture": model.architecture(),
        "routes": model.routes(),
        "max_concurrent_requests": limits.queue,
        "max_input_length": model.max_input_length(),
        "max_batch_tokens": limits.batch_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": limits.inputs,
        "auto_truncate": limits.truncate,
        "tokenization_workers": text_threads(),
        "version": VERSION,
    });
    Ok(json_response(info.to_string().into_bytes()))
}

/// text-embeddings-inference's name of a precision; it has none for int8.
fn dtype(precision: Precision) -> &'static str {
    match precision {
        Precision::Bf16 => "bfloat16",
        Precision::Int8 => "int8",
        _ => "float32",
    }
}

fn model_type(model: &Model) -> Value {
    let labels = match (&model.classify, &model.tag) {
        (Some(batcher), _) => batcher.pipeline().processor().labels(),
        (_, Some(batcher)) => batcher.pipeline().processor().labels(),
        _ => &[],
    };
    let id2label: Value = labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: Value = labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
    let labels = json!({"id2label": id2label, "label2id": label2id});
    let poolings = model.embed.as_ref().map(|batcher| batcher.pipeline().description().pooling.as_slice());
    let embedding = json!({"pooling": poolings.and_then(<[_]>::first).map(|pooling| pooling.name())});
    match () {
        () if model.rank.is_some() && model.fill.is_none() => json!({"reranker": labels}),
        () if model.classify.is_some() => json!({"classifier": labels}),
        () if model.tag.is_some() => json!({"tagger": labels}),
        () if model.answer.is_some() => json!({"question_answering": {}}),
        () if model.choose.is_some() => json!({"multiple_choice": {}}),
        () if model.fill.is_some() => json!({"masked_lm": {}, "embedding": embedding}),
        () => json!({"embedding": embedding}),
    }
}
