//! Embeddings: OpenAI's `/v1/embeddings`, and text-embeddings-inference's `/embed` and `/similarity`.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bert_model::pipeline::{EmbeddingProcessor, EmbeddingRequest, TokenEmbeddings};
use serde::{Deserialize, Serialize};

use super::ask::{Route, Target, Task, WholeText, check_count};
use super::one_or_many::{Texts, check_text};
use crate::batching::Batcher;
use crate::error::ApiError;
use crate::models::Model;

/// The side that is truncated. Only the right side may be named: it is the tokenizer's, unless the model's files say
/// otherwise.
#[derive(Debug, Clone, Copy, Deserialize)]
pub enum Direction {
    #[serde(alias = "right")]
    Right,
}

/// Embedding texts.
pub struct Embedding;

/// The texts to embed, with their options.
pub struct Embedded {
    pub texts: Vec<String>,
    /// The model's prompt to put in front of each text, by name; `None` for its default prompt, if it has one.
    pub prompt: Option<String>,
    pub truncate: Option<bool>,
    pub normalize: bool,
    pub dimensions: Option<usize>,
    pub encoding: Encoding,
}

impl Task for Embedding {
    type Processor = EmbeddingProcessor;
    type Question = Embedded;

    fn batcher(model: &Model) -> Option<&Arc<Batcher<EmbeddingProcessor>>> {
        model.embed.as_ref()
    }

    fn requests(Embedded { texts, prompt, .. }: &Embedded) -> Vec<EmbeddingRequest<'_>> {
        let request = |text| match prompt {
            Some(name) => EmbeddingRequest::text(text).prompt(name),
            None => EmbeddingRequest::text(text),
        };
        texts.iter().map(|text| request(text)).collect()
    }

    fn whole_texts<'a>(embedded: &'a Embedded, target: &Target<Self>) -> Option<Vec<WholeText<'a>>> {
        let prompts = &target.batcher.pipeline().description().prompts;
        let prompt =
            embedded.prompt.as_ref().map_or(prompts.default_text(), |name| prompts.named(name).unwrap_or_default());
        let whole = |text: &'a String| match prompt.is_empty() {
            true => (Cow::from(text), None),
            false => (Cow::from([prompt, text].concat()), None),
        };
        (!embedded.truncate.unwrap_or(target.app.limits.truncate)).then(|| embedded.texts.iter().map(whole).collect())
    }
}

impl Embedded {
    /// Texts of the field `name`, with the default options.
    ///
    /// # Errors
    /// 422 if a text is empty.
    pub fn new(texts: Texts, name: &str) -> Result<Self, ApiError> {
        texts.check(name)?;
        let texts = texts.into_vec();
        let (prompt, truncate, dimensions) = Default::default();
        Ok(Self { texts, prompt, truncate, normalize: true, dimensions, encoding: Encoding::Float })
    }

    /// The vectors, cut to their first `dimensions` numbers and scaled to length 1 if requested.
    ///
    /// # Errors
    /// 422 if the model has fewer dimensions.
    pub fn vectors(&self, answers: Vec<TokenEmbeddings>) -> Result<Vec<Vec<f32>>, ApiError> {
        let finish = |answer: TokenEmbeddings| {
            let mut vector = answer.vectors.into_iter().next().unwrap_or_default();
            match self.dimensions {
                Some(count) if !(1..=vector.len()).contains(&count) => {
                    let expected = format!("expected 1 to {}, the width of the model's vectors", vector.len());
                    return Err(ApiError::invalid(format!("`dimensions`: found {count}, {expected}")));
                }
                Some(count) => vector.truncate(count),
                None => {}
            }
            if self.normalize {
                let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
                vector.iter_mut().for_each(|x| *x /= length);
            }
            Ok(vector)
        };
        answers.into_iter().map(finish).collect()
    }
}

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

/// How a vector is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
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
    type Task = Embedding;
    type Body = OpenAiBody;
    type Reply = OpenAiReply;

    fn model(body: &OpenAiBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: OpenAiBody, _target: &Target<Embedding>) -> Result<Embedded, ApiError> {
        let encoding = body.encoding_format.unwrap_or(Encoding::Float);
        Ok(Embedded { dimensions: body.dimensions, encoding, ..Embedded::new(body.input, "input")? })
    }

    fn reply(
        embedded: Embedded,
        answers: Vec<TokenEmbeddings>,
        target: &Target<Embedding>,
    ) -> Result<OpenAiReply, ApiError> {
        let vector = |(index, vector): (usize, Vec<f32>)| {
            let embedding = match embedded.encoding {
                Encoding::Float => Vector::Float(vector),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                    Vector::Base64(STANDARD.encode(bytes))
                }
            };
            OpenAiVector { object: "embedding", index, embedding }
        };
        Ok(OpenAiReply {
            object: "list",
            data: embedded.vectors(answers)?.into_iter().enumerate().map(vector).collect(),
            model: target.model.name.clone(),
            usage: Usage { prompt_tokens: target.tokens, total_tokens: target.tokens },
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
    prompt_name: Option<String>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
    model: Option<String>,
}

impl Route for Embed {
    const PATH: &'static str = "/embed";
    type Task = Embedding;
    type Body = EmbedBody;
    type Reply = Vec<Vec<f32>>;

    fn model(body: &EmbedBody) -> Option<&str> {
        body.model.as_deref()
    }

    fn question(body: EmbedBody, _target: &Target<Embedding>) -> Result<Embedded, ApiError> {
        let EmbedBody { truncate, dimensions, prompt_name: prompt, .. } = body;
        let normalize = body.normalize.unwrap_or(true);
        Ok(Embedded { prompt, truncate, normalize, dimensions, ..Embedded::new(body.inputs, "inputs")? })
    }

    fn reply(
        embedded: Embedded,
        answers: Vec<TokenEmbeddings>,
        _target: &Target<Embedding>,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        embedded.vectors(answers)
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
    prompt_name: Option<String>,
    #[serde(rename = "truncation_direction")]
    _direction: Option<Direction>,
}

impl Route for Similarity {
    const PATH: &'static str = "/similarity";
    type Task = Embedding;
    type Body = SimilarityBody;
    type Reply = Vec<f32>;

    fn model(body: &SimilarityBody) -> Option<&str> {
        body.model.as_deref()
    }

    /// The first of the texts is compared with the others.
    fn question(body: SimilarityBody, target: &Target<Embedding>) -> Result<Embedded, ApiError> {
        let SimilarityInputs { source_sentence, sentences } = body.inputs;
        check_text(&source_sentence, "source_sentence")?;
        let (count, most) = (sentences.len(), target.app.limits.inputs);
        check_count(count.min(most), most)?;
        if count >= most {
            let message =
                format!("found {count} sentences and their source, expected at most {most} inputs (--max-inputs)");
            return Err(ApiError::too_large(message));
        }
        let mut embedded = Embedded::new(Texts::Many(sentences), "sentences")?;
        embedded.texts.insert(0, source_sentence);
        if let Some(SimilarityParameters { truncate, prompt_name, .. }) = body.parameters {
            (embedded.truncate, embedded.prompt) = (truncate, prompt_name);
        }
        Ok(embedded)
    }

    fn reply(
        embedded: Embedded,
        answers: Vec<TokenEmbeddings>,
        _target: &Target<Embedding>,
    ) -> Result<Vec<f32>, ApiError> {
        let vectors = embedded.vectors(answers)?;
        let Some((source, others)) = vectors.split_first() else { return Ok(Vec::new()) };
        let dot = |other: &Vec<f32>| source.iter().zip(other).map(|(a, b)| a * b).sum();
        Ok(others.iter().map(dot).collect())
    }
}
