//! The router, authentication, and request metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bert_model::pipeline::Precision;
use tokio::sync::Semaphore;

use crate::auth::Keys;
use crate::body::refuse;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::routes::ask::ask;
use crate::routes::{about, choices, embeddings, inference, labels, masks, questions, ranks, tags, tokenize};

/// State shared by all request handlers.
pub struct App {
    pub models: Models,
    pub keys: Keys,
    pub limits: RequestLimits,
    pub metrics: Metrics,
    /// Memory for request bodies: one permit per KiB.
    pub body_memory: Arc<Semaphore>,
    /// Limits how many large bodies are parsed and tokenized at once, so that small ones always find a free thread.
    pub large_bodies: Arc<Semaphore>,
    /// Whether the server is shutting down.
    pub is_ending: AtomicBool,
}

/// Limits on requests, and what `/info` tells of the command line besides.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// The precision of the models' products.
    pub precision: Precision,
    /// Maximum body size in bytes.
    pub body: usize,
    /// Maximum number of texts per request.
    pub inputs: usize,
    /// Whether texts that are too long are truncated when the request does not say.
    pub truncate: bool,
    /// How long a client may take to send its body.
    pub read_timeout: Duration,
    /// How long a request may take to be answered.
    pub timeout: Duration,
    /// Maximum batch size in tokens.
    pub batch_tokens: usize,
    /// Maximum number of waiting requests.
    pub queue: usize,
}

/// Paths that can be read without a key: the page, its description of the routes, and the probes; `/metrics` needs one.
const OPEN: [&str; 4] = ["/", "/health", "/ready", "/openapi.json"];

/// Builds the router with all routes and middleware.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/embeddings", post(ask::<embeddings::OpenAi>))
        .route("/v1/models", get(about::models))
        .route("/v1/models/{*name}", get(about::model))
        .route("/embed", post(ask::<embeddings::Embed>))
        .route("/similarity", post(ask::<embeddings::Similarity>))
        .route("/predict", post(ask::<labels::Predict>))
        .route("/rerank", post(ask::<ranks::Rerank>))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/info", get(about::info).post(about::info))
        .route("/tag", post(ask::<tags::Tag>))
        .route("/answer", post(ask::<questions::AnswerRoute>))
        .route("/fill-mask", post(ask::<masks::FillMask>))
        .route("/choose", post(ask::<choices::Choose>))
        .route("/health", get(about::health))
        .route("/ready", get(about::ready))
        .route("/metrics", get(about::metrics))
        .route("/openapi.json", get(about::openapi))
        .route("/", get(about::page).post(inference::infer))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), admit))
        .layer(from_fn_with_state(app.clone(), count))
        .with_state(app)
}

async fn no_route(request: Request) -> ApiError {
    ApiError::not_found(format!("no route {}; /openapi.json lists them", request.uri().path()))
}

async fn wrong_method(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::wrong_method(format!("{path} does not support {method}; see /openapi.json"))
}

/// Rejects requests without a valid key, except reads of [`OPEN`] paths.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_open = [Method::GET, Method::HEAD].contains(request.method()) && OPEN.contains(&request.uri().path());
    match app.keys.check(request.headers()) {
        Err(error) if !is_open => {
            let (parts, mut body) = request.into_parts();
            refuse(&parts.headers, &mut body).await;
            error.into_response()
        }
        _ => next.run(request).await,
    }
}

/// Records the count, status, and duration of requests.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (path, status, time) =
        (path.as_ref().map_or("other", MatchedPath::as_str), response.status(), started.elapsed());
    app.metrics.answered(path, status.as_u16(), time);
    tracing::debug!(path, status = status.as_u16(), milliseconds = time.as_secs_f64() * 1e3, "answered");
    response
}

impl App {
    /// Whether the server is shutting down.
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }
}
