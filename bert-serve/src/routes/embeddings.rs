//! Embeddings: OpenAI's `/v1/embeddings`, and text-embeddings-inference's `/embed` and `/similarity`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bert_model::pipeline::{EmbeddingProcessor, EmbeddingRequest, Processor, TokenEmbeddings};
use serde::{Deserialize, Serialize};

use super::ask::{Asked, Route, TextOrPair};
use super::one_or_many::{OneOrMany, Texts, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// The side that is truncated. Only the right side is supported, since the tokenizer truncates at the end.
#[derive(Debug, Clone, Copy, Deserialize)]
pub enum Direction {
    #[serde(alias = "right")]
    Right,
}

/// The request type of an embedding pipeline.
pub type Request<'a> = <EmbeddingProcessor as Processor>::Request<'a>;

/// `POST /v1/embeddings`.
pub struct OpenAi;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiBody {
    input: Texts,
    model: Option<String>,
    #[serde(default)]
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
    /// The end user's identifier, which is ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

#[derive(Serialize)]
pub struct OpenAiReply {
    object: &'static str,
    data: Vec<OpenAiVector>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct OpenAiVector {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    /// Base64 of the little-endian bytes of the numbers.
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Route for OpenAi {
    const PATH: &'static str = "/v1/embeddings";
    type Processor = EmbeddingProcessor;
    type Body = OpenAiBody;
    type Question = OpenAiBody;
    type Reply = OpenAiReply;

    fn model(body: &OpenAiBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<EmbeddingProcessor>>> {
        model.embed.as_ref()
    }

    fn question(body: OpenAiBody, _asked: &Asked<Self>) -> Result<OpenAiBody, ApiError> {
        body.input.check("input")?;
        Ok(body)
    }

    fn requests(question: &OpenAiBody) -> Vec<Request<'_>> {
        of_texts(question.input.as_slice())
    }

    fn whole_texts<'a>(question: &'a OpenAiBody, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        (!asked.app.limits.truncate).then(|| singles(question.input.as_slice()))
    }

    fn reply(
        question: OpenAiBody,
        answers: Vec<TokenEmbeddings>,
        asked: &Asked<Self>,
    ) -> Result<OpenAiReply, ApiError> {
        let vectors = finish(answers, true, question.dimensions)?;
        let vector = |(index, vector): (usize, Vec<f32>)| {
            let embedding = match question.encoding_format {
                Some(Encoding::Base64) => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                    Vector::Base64(STANDARD.encode(bytes))
                }
                _ => Vector::Float(vector),
            };
            OpenAiVector { object: "embedding", index, embedding }
        };
        Ok(OpenAiReply {
            object: "list",
            data: vectors.into_iter().enumerate().map(vector).collect(),
            model: asked.model.name.clone(),
            usage: Usage { prompt_tokens: asked.tokens, total_tokens: asked.tokens },
        })
    }
}

/// `POST /embed`.
pub struct Embed;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedBody {
    inputs: Texts,
    truncate: Option<bool>,
    normalize: Option<bool>,
    dimensions: Option<usize>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
    model: Option<String>,
}

impl Route for Embed {
    const PATH: &'static str = "/embed";
    type Processor = EmbeddingProcessor;
    type Body = EmbedBody;
    type Question = EmbedBody;
    type Reply = Vec<Vec<f32>>;

    fn model(body: &EmbedBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<EmbeddingProcessor>>> {
        model.embed.as_ref()
    }

    fn question(body: EmbedBody, _asked: &Asked<Self>) -> Result<EmbedBody, ApiError> {
        body.inputs.check("inputs")?;
        Ok(body)
    }

    fn requests(question: &EmbedBody) -> Vec<Request<'_>> {
        of_texts(question.inputs.as_slice())
    }

    fn whole_texts<'a>(question: &'a EmbedBody, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        let truncate = question.truncate.unwrap_or(asked.app.limits.truncate);
        (!truncate).then(|| singles(question.inputs.as_slice()))
    }

    fn reply(
        question: EmbedBody,
        answers: Vec<TokenEmbeddings>,
        _asked: &Asked<Self>,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        finish(answers, question.normalize.unwrap_or(true), question.dimensions)
    }
}

/// `POST /similarity`: cosine similarities between one text and others.
pub struct Similarity;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimilarityBody {
    inputs: SimilarityInputs,
    parameters: Option<SimilarityParameters>,
    model: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SimilarityInputs {
    source_sentence: String,
    sentences: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SimilarityParameters {
    truncate: Option<bool>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
}

impl Route for Similarity {
    const PATH: &'static str = "/similarity";
    type Processor = EmbeddingProcessor;
    type Body = SimilarityBody;
    /// All texts, of which the first is compared with the others, and whether to truncate them.
    type Question = (Vec<String>, Option<bool>);
    type Reply = Vec<f32>;

    fn model(body: &SimilarityBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn batcher(model: &Model) -> Option<&Arc<Batcher<EmbeddingProcessor>>> {
        model.embed.as_ref()
    }

    fn question(body: SimilarityBody, asked: &Asked<Self>) -> Result<Self::Question, ApiError> {
        let SimilarityInputs { source_sentence, sentences } = body.inputs;
        check_text(&source_sentence, "source_sentence")?;
        super::ask::check_count(sentences.len(), asked.app.limits.inputs)?;
        OneOrMany::Many(sentences.clone()).check("sentences")?;
        let truncate = body.parameters.and_then(|parameters| parameters.truncate);
        Ok(([source_sentence].into_iter().chain(sentences).collect(), truncate))
    }

    fn requests((texts, _): &Self::Question) -> Vec<Request<'_>> {
        of_texts(texts)
    }

    fn whole_texts<'a>((texts, truncate): &'a Self::Question, asked: &Asked<Self>) -> Option<Vec<TextOrPair<'a>>> {
        (!truncate.unwrap_or(asked.app.limits.truncate)).then(|| singles(texts))
    }

    fn reply(_: Self::Question, answers: Vec<TokenEmbeddings>, _: &Asked<Self>) -> Result<Vec<f32>, ApiError> {
        let vectors = finish(answers, true, None)?;
        let Some((source, others)) = vectors.split_first() else { return Ok(Vec::new()) };
        let dot = |other: &Vec<f32>| source.iter().zip(other).map(|(a, b)| a * b).sum();
        Ok(others.iter().map(dot).collect())
    }
}

/// One embedding request per text.
pub fn of_texts(texts: &[String]) -> Vec<Request<'_>> {
    texts.iter().map(|text| EmbeddingRequest::text(text)).collect()
}

/// Single texts, not pairs.
pub fn singles(texts: &[String]) -> Vec<TextOrPair<'_>> {
    texts.iter().map(|text| (text.as_str(), None)).collect()
}

/// The vectors, cut to their first `dimensions` numbers and scaled to length 1 if requested.
///
/// # Errors
/// 422 if the model has fewer dimensions.
pub fn finish(
    answers: Vec<TokenEmbeddings>,
    normalize: bool,
    dimensions: Option<usize>,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let finish = |answer: TokenEmbeddings| {
        let mut vector = answer.vectors.into_iter().next().unwrap_or_default();
        match dimensions {
            Some(count) if !(1..=vector.len()).contains(&count) => {
                let expected = format!("expected 1 to {}, the width of the model's vectors", vector.len());
                return Err(ApiError::invalid(format!("`dimensions`: found {count}, {expected}")));
            }
            Some(count) => vector.truncate(count),
            None => {}
        }
        if normalize {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        Ok(vector)
    };
    answers.into_iter().map(finish).collect()
}
