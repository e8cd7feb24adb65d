//! text-embeddings-inference's `/tokenize`: the tokens that the model reads.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use bert_model::text::CodePoints;
use bert_model::{Result, Tokenizer};
use serde::{Deserialize, Serialize};

use super::ask::{check_answer, check_count, in_turn, json_response, model_of, one_name, until};
use super::one_or_many::Texts;
use crate::app::App;
use crate::body::{parse, read_body};
use crate::error::ApiError;
use crate::models::Model;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    inputs: Texts,
    add_special_tokens: Option<bool>,
    /// The model's prompt to put in front of each text, by name.
    prompt_name: Option<String>,
    model: Option<String>,
}

/// A token and its place in the text, in code points. Special tokens have no place.
#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// `POST /tokenize`: the tokens of each text.
///
/// # Errors
/// 4xx if the request is invalid.
pub async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let named = model_of(request.uri())?;
    let body = read_body(&app, request).await?;
    let deadline = Instant::now() + app.limits.timeout;
    let server = app.clone();
    let tokens = in_turn(&app, body, move |bytes| {
        let body: Body = parse(bytes)?;
        let name = one_name(named.as_deref(), body.model.as_deref())?;
        let model = server.models.pick(name, "/tokenize", |_| true)?;
        let texts = body.inputs.as_slice();
        check_count(texts.len(), server.limits.inputs)?;
        body.inputs.check("inputs")?;
        check_lengths(texts, model)?;
        let prompt = prompt_of(model, body.prompt_name.as_deref())?;
        let special = body.add_special_tokens.unwrap_or(true);
        let (mut tokens, mut count): (Vec<Vec<Token>>, usize) = (Vec::new(), 0);
        for text in texts {
            if Instant::now() > deadline {
                return Err(ApiError::timeout(server.limits.timeout.as_secs_f64()));
            }
            tokens.push(tokens_of(&model.tokenizer, &format!("{prompt}{text}"), special)?);
            count += tokens.last().map_or(0, Vec::len);
            check_answer("tokens", count, MOST_TOKENS, "fewer texts")?;
        }
        serde_json::to_vec(&tokens).map_err(|error| ApiError::internal(error.to_string()))
    });
    Ok(json_response(until(deadline, &app, tokens).await?))
}

/// The most characters of a text for each token that the model can read, as in text-embeddings-inference: the offsets
/// of a text's tokens take hundreds of bytes a character.
const CHARACTERS_PER_TOKEN: usize = 250;

/// Maximum number of tokens in an answer.
const MOST_TOKENS: usize = 1 << 18;

fn check_lengths(texts: &[String], model: &Model) -> Result<(), ApiError> {
    let most = CHARACTERS_PER_TOKEN * model.max_input_length();
    match texts.iter().position(|text| text.chars().nth(most).is_some()) {
        None => Ok(()),
        Some(place) => Err(ApiError::invalid(format!("input {place} has more than {most} characters"))),
    }
}

/// The model's prompt with this name, or its default prompt.
fn prompt_of<'a>(model: &'a Model, name: Option<&str>) -> Result<&'a str, ApiError> {
    match (&model.embed, name) {
        (Some(embedder), Some(name)) => Ok(embedder.pipeline().description().prompts.named(name)?),
        (Some(embedder), None) => Ok(embedder.pipeline().description().prompts.default_text()),
        (None, None) => Ok(""),
        (None, Some(name)) => {
            let message = format!("`prompt_name`: found {name:?}, but the model `{}` embeds no texts", model.name);
            Err(ApiError::invalid(message))
        }
    }
}

fn tokens_of(tokenizer: &Tokenizer, text: &str, add_special_tokens: bool) -> Result<Vec<Token>> {
    let encoding = tokenizer.encode(text, None)?;
    let code_points = CodePoints::new(text);
    let token = |index: usize| {
        let (id, special) = (encoding.get_ids()[index], encoding.get_special_tokens_mask()[index] == 1);
        let (start, stop) = encoding.get_offsets()[index];
        match special {
            true => Token { id, text: tokenizer.piece(id), special, start: None, stop: None },
            false => Token {
                id,
                text: code_points.slice(text, start, stop).to_string(),
                special,
                start: Some(start),
                stop: Some(stop),
            },
        }
    };
    let tokens = (0..encoding.len()).map(token);
    Ok(tokens.filter(|token| add_special_tokens || !token.special).collect())
}
