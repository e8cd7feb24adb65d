//! The path of a request through the server: body → question → tokens → queue → batch → answers → body.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bert_model::pipeline::Processor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tokio::time::{Instant as Moment, timeout_at};

use crate::app::App;
use crate::batching::Batcher;
use crate::body::{ReadBody, parse, read_body};
use crate::error::ApiError;
use crate::models::Model;

/// What the head of a model can be asked, whatever the form of the request.
pub trait Task: 'static {
    /// The processor that tokenizes the requests.
    type Processor: Processor<Input: 'static, Output: 'static> + 'static;
    /// What a client asks, validated.
    type Question: Send + 'static;

    /// The queue of `model` for this task, or `None` if its head cannot do it.
    fn batcher(model: &Model) -> Option<&Arc<Batcher<Self::Processor>>>;

    /// The pipeline requests for a question.
    fn requests(question: &Self::Question) -> Vec<<Self::Processor as Processor>::Request<'_>>;

    /// The texts that must not be truncated, or `None` if the question allows truncation.
    fn whole_texts<'a>(_question: &'a Self::Question, _target: &Target<Self>) -> Option<Vec<WholeText<'a>>> {
        None
    }
}

/// One input of the model for a task.
type InputOf<T> = <<T as Task>::Processor as Processor>::Input;

/// The answer to one request of a task.
pub type AnswerOf<T> = <<T as Task>::Processor as Processor>::Answer;

/// A route that runs a model: the form in which a task is asked and answered.
pub trait Route: 'static {
    /// The route's path, as shown in messages.
    const PATH: &'static str;
    /// What is asked.
    type Task: Task;
    /// The request body.
    type Body: DeserializeOwned + Send + 'static;
    /// The response body.
    type Reply: Serialize;

    /// The model that the body names, if any.
    fn model(body: &Self::Body) -> Option<&str>;

    /// Validates a body.
    ///
    /// # Errors
    /// If the body is invalid for this model.
    fn question(body: Self::Body, target: &Target<Self::Task>) -> Result<<Self::Task as Task>::Question, ApiError>;

    /// Builds the response from the answers to the question's requests.
    ///
    /// # Errors
    /// If the question asks for more than the model provides.
    fn reply(
        question: <Self::Task as Task>::Question,
        answers: Vec<AnswerOf<Self::Task>>,
        target: &Target<Self::Task>,
    ) -> Result<Self::Reply, ApiError>;
}

/// Larger bodies, in bytes, take turns.
const LARGE_BODY: usize = 64 << 10;

/// A text as the model reads it, with its prompt, and the second text of a pair.
pub type WholeText<'a> = (Cow<'a, str>, Option<&'a str>);

/// The model and queue that a request is for.
pub struct Target<T: Task + ?Sized> {
    /// The server's state.
    pub app: Arc<App>,
    /// The model that answers the request.
    pub model: Arc<Model>,
    /// The model's queue for this task.
    pub batcher: Arc<Batcher<T::Processor>>,
    /// Total tokens of all inputs; 0 until they are tokenized.
    pub tokens: usize,
}

/// A tokenized question, and the number of inputs of each of its requests.
struct Prepared<T: Task> {
    target: Target<T>,
    question: T::Question,
    inputs: Vec<InputOf<T>>,
    counts: Vec<usize>,
}

/// Handles a request to route `R`.
///
/// # Errors
/// 4xx if the request is invalid; 429, 500, or 504 if the server cannot answer it.
pub async fn ask<R: Route>(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let named = model_of(request.uri())?;
    let body = read_body(&app, request).await?;
    answer::<R>(app, named, body).await
}

/// Handles a request to route `R` whose body was read; `named` is the model that its address names.
///
/// # Errors
/// As [`ask`].
pub async fn answer<R: Route>(app: Arc<App>, named: Option<String>, body: ReadBody) -> Result<Response, ApiError> {
    let deadline = Instant::now() + app.limits.timeout;
    let answer = async {
        let server = app.clone();
        let prepared = in_turn(&app, body, move |bytes| prepare::<R>(server, named, bytes, deadline)).await?;
        let Prepared { target, question, inputs, counts } = prepared;
        let ticket = target.batcher.submit(inputs, deadline)?;
        let (pending, outputs) = ticket.outputs().await?;
        blocking(move || reply::<R>(target, question, pending.inputs(), &counts, outputs)).await
    };
    let bytes = until(deadline, &app, answer).await?;
    Ok(json_response(bytes))
}

/// Runs blocking work on a body; large bodies take turns.
///
/// # Errors
/// As [`blocking`].
pub async fn in_turn<T: Send + 'static>(
    app: &App,
    (bytes, memory): ReadBody,
    work: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let turn = match bytes.len() > LARGE_BODY {
        true => app.large_bodies.clone().acquire_owned().await.ok(),
        false => None,
    };
    let work = move || {
        // Work that has started continues even if its client disconnects, so it must keep its permits.
        let _claims = (turn, memory);
        work(&bytes)
    };
    blocking(work).await
}

/// Waits for an answer until the deadline.
///
/// # Errors
/// 504 if the deadline passes, and those of `answer`.
pub async fn until<T>(
    deadline: Instant,
    app: &App,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let late = |_| ApiError::timeout(app.limits.timeout.as_secs_f64());
    timeout_at(Moment::from_std(deadline), answer).await.map_err(late)?
}

/// The model that a request names, in its address or in its body.
///
/// # Errors
/// If the two differ.
pub fn one_name<'a>(in_address: Option<&'a str>, in_body: Option<&'a str>) -> Result<Option<&'a str>, ApiError> {
    match (in_address, in_body) {
        (Some(a), Some(b)) if a != b => Err(ApiError::invalid(format!("found two models, `{a}` and `{b}`"))),
        (a, b) => Ok(a.or(b)),
    }
}

/// Parses, validates, and tokenizes a body, until the deadline.
fn prepare<R: Route>(
    app: Arc<App>,
    named: Option<String>,
    bytes: &[u8],
    deadline: Instant,
) -> Result<Prepared<R::Task>, ApiError> {
    let body: R::Body = parse(bytes)?;
    let name = one_name(named.as_deref(), R::model(&body))?;
    let model = app.models.pick(name, R::PATH, |model| R::Task::batcher(model).is_some())?.clone();
    let batcher = R::Task::batcher(&model).cloned().ok_or_else(|| ApiError::internal("no queue"))?;
    batcher.check_room()?;
    let mut target = Target { app, model, batcher, tokens: 0 };
    let question = R::question(body, &target)?;
    let pipeline = target.batcher.pipeline();
    let (mut inputs, mut counts) = (Vec::new(), Vec::new());
    {
        let requests = R::Task::requests(&question);
        check_count(requests.len(), target.app.limits.inputs)?;
        let whole = R::Task::whole_texts(&question, &target);
        for (number, request) in requests.iter().enumerate() {
            // Its client has had an answer by then, but the work would go on.
            if Instant::now() > deadline {
                return Err(ApiError::timeout(target.app.limits.timeout.as_secs_f64()));
            }
            let own = pipeline.preprocess(request)?;
            own.iter().try_for_each(|input| check_size::<R::Task>(input, target.app.limits.batch_tokens))?;
            if let Some(texts) = &whole {
                check_whole(&target, number, &texts[number], &own)?;
            }
            counts.push(own.len());
            inputs.extend(own);
        }
        let lengths = inputs.iter().map(|input| sequence_lengths::<R::Task>(input).sum::<usize>());
        target.tokens = lengths.sum();
    }
    Ok(Prepared { target, question, inputs, counts })
}

/// Turns the outputs into the response body.
fn reply<R: Route>(
    target: Target<R::Task>,
    question: <R::Task as Task>::Question,
    inputs: &[InputOf<R::Task>],
    counts: &[usize],
    outputs: Vec<<<R::Task as Task>::Processor as Processor>::Output>,
) -> Result<Vec<u8>, ApiError> {
    let processor = target.batcher.pipeline().processor();
    let mut start = 0;
    let answers = {
        let requests = R::Task::requests(&question);
        let answer = |(request, count): (_, &usize)| {
            let own = start..start + count;
            start += count;
            processor.postprocess(request, &inputs[own.clone()], &outputs[own])
        };
        requests.iter().zip(counts).map(answer).collect()
    };
    let reply = R::reply(question, answers, &target)?;
    serde_json::to_vec(&reply).map_err(|error| ApiError::internal(error.to_string()))
}

/// Checks that the number of inputs is at least 1 and at most `limit`.
///
/// # Errors
/// 422 if it is 0, 413 if it exceeds `limit`.
pub fn check_count(count: usize, limit: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::invalid("found an empty list, expected at least one input")),
        _ if count > limit => {
            Err(ApiError::too_large(format!("found {count} inputs, expected at most {limit} (--max-inputs)")))
        }
        _ => Ok(()),
    }
}

/// Checks that an answer has at most `limit` of `what`, which a short request can ask for; `advice` says what to ask
/// for instead.
///
/// # Errors
/// 413 if it has more.
pub fn check_answer(what: &str, found: usize, limit: usize, advice: &str) -> Result<(), ApiError> {
    match found > limit {
        false => Ok(()),
        true => Err(ApiError::too_large(format!(
            "the answer would have {found} {what}, expected at most {limit}; ask for {advice}"
        ))),
    }
}

/// Checks that the sequences of one input, such as the choices of a question, fit into a batch: they are computed
/// together.
fn check_size<T: Task>(input: &InputOf<T>, limit: usize) -> Result<(), ApiError> {
    let (count, longest) = (sequence_lengths::<T>(input).count(), sequence_lengths::<T>(input).max().unwrap_or(0));
    match count > 1 && count.saturating_mul(longest) > limit {
        false => Ok(()),
        true => Err(ApiError::too_large(format!(
            "found {count} choices of up to {longest} tokens, expected at most {limit} tokens in all (--max-batch-tokens)"
        ))),
    }
}

/// Checks that the text of a request was not truncated. Only inputs of the maximum length need a closer look.
fn check_whole<T: Task>(
    target: &Target<T>,
    number: usize,
    (text, pair): &WholeText<'_>,
    inputs: &[InputOf<T>],
) -> Result<(), ApiError> {
    let Some(limit) = target.batcher.pipeline().processor().tokenizer().max_length() else { return Ok(()) };
    if !inputs.iter().flat_map(sequence_lengths::<T>).any(|length| length >= limit) {
        return Ok(());
    }
    let tokens = target.model.tokenizer.sequence(text, *pair)?.len();
    match tokens > limit {
        false => Ok(()),
        true => Err(ApiError::too_large(format!(
            "input {number} has {tokens} tokens, the model takes at most {limit}; shorten it, or set \"truncate\": true"
        ))),
    }
}

fn sequence_lengths<T: Task>(input: &InputOf<T>) -> impl Iterator<Item = usize> {
    T::Processor::sequences(input).iter().map(bert_model::text::Sequence::len)
}

/// Runs blocking work off the network threads.
///
/// # Errors
/// The error of `work`, or 500 if it panics.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// The model named in the query (`?model=NAME`).
///
/// # Errors
/// If the query has anything else.
pub fn model_of(uri: &Uri) -> Result<Option<String>, ApiError> {
    let mut model = None;
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("model", name)) if model.is_none() => model = Some(percent_decoded(name)),
            _ => return Err(ApiError::invalid(format!("the query has `{pair}`, expected `model=NAME` or nothing"))),
        }
    }
    Ok(model)
}

/// Decodes `%XX` codes and `+`; invalid codes are kept as they are.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).filter(|code| byte == b'%' && code.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        decoded.push(code.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A JSON response.
pub fn json_response(bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_model_and_nothing_else() {
        let model = |uri: &str| model_of(&uri.parse().unwrap());
        assert_eq!(model("/embed").unwrap(), None);
        assert_eq!(model("/embed?").unwrap(), None);
        assert_eq!(model("/embed?model=a%2Fb+c%25%zz%e").unwrap().unwrap(), "a/b c%%zz%e");
        assert!(model("/embed?mdoel=a").is_err());
        assert!(model("/embed?model=a&model=b").is_err());
    }
}
