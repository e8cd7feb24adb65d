//! Reading a request body within its limits, and parsing it.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::app::App;
use crate::error::ApiError;

/// Bytes of memory per permit.
pub const PERMIT_BYTES: usize = 1024;

/// How long, and how many bytes of, an oversized body are still read, so that its client gets to read the response.
const DRAIN_TIME: Duration = Duration::from_secs(5);
const DRAIN_BYTES: usize = 256 << 20;

/// A body, and the permit that reserves its share of memory.
pub type ReadBody = (Vec<u8>, OwnedSemaphorePermit);

/// Reads a whole body.
///
/// # Errors
/// 413 if the body is too long, 408 if it arrives too slowly, 429 if too many bodies are being read.
pub async fn read_body(app: &App, request: Request) -> Result<ReadBody, ApiError> {
    let limit = app.limits.body;
    let too_long = || ApiError::too_large(format!("the body is longer than {limit} bytes (--max-body)"));
    let (parts, mut body) = request.into_parts();
    let length = content_length(&parts.headers);
    if length.is_some_and(|length| length > limit) {
        refuse(&parts.headers, &mut body).await;
        return Err(too_long());
    }
    let claim = |bytes: usize| {
        let busy = |_| ApiError::busy("too many bodies are being read at once; try again later");
        let permits = bytes.div_ceil(PERMIT_BYTES) as u32;
        app.body_memory.clone().try_acquire_many_owned(permits).map_err(busy)
    };
    let mut claimed = length.unwrap_or_default();
    let mut permit = match claim(claimed) {
        Ok(permit) => permit,
        Err(busy) => {
            refuse(&parts.headers, &mut body).await;
            return Err(busy);
        }
    };
    let mut bytes = Vec::with_capacity(claimed);
    let read = async {
        while let Some(data) = next_data(&mut body).await? {
            let needed = bytes.len() + data.len();
            if needed > limit {
                drain(&mut body).await;
                return Err(too_long());
            }
            // The length of a body in chunks is not known before.
            if needed > claimed {
                let more = (needed - claimed).max(claimed).min(limit - claimed);
                match claim(more) {
                    Ok(more) => permit.merge(more),
                    Err(busy) => {
                        drain(&mut body).await;
                        return Err(busy);
                    }
                }
                claimed += more;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    let slow = |_| ApiError::slow_client("the body did not arrive in time (--read-timeout)");
    timeout(app.limits.read_timeout, read).await.map_err(slow)??;
    Ok((bytes, permit))
}

/// The next bytes of a body, or `None` at its end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(ApiError::malformed(format!("the body was cut off: {error}"))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Reads what the client of a refused request sends, or it would see its connection break instead of the answer. A
/// client that sent `Expect: 100-continue` has not sent its body yet.
pub async fn refuse(headers: &HeaderMap, body: &mut Body) {
    if !headers.contains_key(EXPECT) {
        drain(body).await;
    }
}

async fn drain(body: &mut Body) {
    let mut left = DRAIN_BYTES;
    let all = async {
        while let Ok(Some(data)) = next_data(body).await {
            left = left.saturating_sub(data.len());
            if left == 0 {
                break;
            }
        }
    };
    // Clients slower than this see the connection close.
    let _ = timeout(DRAIN_TIME, all).await;
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Parses a body.
///
/// # Errors
/// 400 if the body is not JSON, 422 if the JSON is not what the route expects.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => ApiError::invalid(error.to_string()),
        _ => ApiError::malformed(format!("the body is not JSON: {error}")),
    })
}
