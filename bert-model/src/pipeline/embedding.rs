//! Contextual embeddings as features (paper, section 5.3): from any layers, pooled or for every token.

use std::str::FromStr;

use burn::tensor::{Device, Tensor};

use super::{Builder, Checkpoint, FromCheckpoint, Pipeline, Processor};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::model::{BertInput, BertModel};
use crate::pretrained::weights::Weights;
use crate::pretrained::{Loaded, load_weights_partial};
use crate::text::{Sequence, Tokenizer};

/// Texts to vectors.
///
/// The width `W` of a vector is the model's hidden size H, times the number of layers if several are concatenated.
///
/// ```no_run
/// use bert_model::pipeline::{Pooling, TextEmbedder};
///
/// # fn main() -> bert_model::Result<()> {
/// let embedder = TextEmbedder::builder().pooling(Pooling::Cls).normalize(true).open("DIR")?;
/// let vectors: Vec<Vec<f32>> = embedder.embed(&["a short text", "a longer text than the first"])?;
/// # Ok(())
/// # }
/// ```
pub type TextEmbedder = Pipeline<EmbeddingProcessor>;

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all tokens, special tokens included and padding left out.
    #[default]
    Mean,
    /// The vector of `[CLS]`.
    Cls,
    /// The maximum of each component over all tokens.
    Max,
    /// The pooler's output (paper, section 3.1); it reads the last layer.
    Pooler,
}

/// How the vectors of several layers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Combine {
    /// Concatenated, in the order of [`Layers`].
    #[default]
    Concat,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

/// Hidden layers of a model: 0 is the embeddings' output, -1 the last layer.
///
/// ```
/// use bert_model::pipeline::Layers;
///
/// assert_eq!("-4..-1".parse(), Ok(Layers::new([-4, -3, -2, -1])));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<i64>);

/// The largest number of layers that a configuration may have.
const MAX_LAYERS: i64 = 10_000;

impl Default for Layers {
    fn default() -> Self {
        Self(vec![-1])
    }
}

impl FromStr for Layers {
    type Err = String;

    /// Numbers and inclusive ranges with commas between: `-1`, `-1,-2`, `-4..-1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("`{text}` is no layer number"));
        let mut layers = Vec::new();
        for part in text.split(',') {
            match part.split_once("..") {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
                    if first > last {
                        return Err(format!("`{part}` runs backwards"));
                    }
                    if last.saturating_sub(first) > MAX_LAYERS {
                        return Err(format!("`{part}` has more layers than any model"));
                    }
                    layers.extend(first..=last);
                }
                None => layers.push(number(part)?),
            }
        }
        Ok(Self(layers))
    }
}

impl Layers {
    /// These layers, in this order.
    pub fn new(layers: impl Into<Vec<i64>>) -> Self {
        Self(layers.into())
    }

    /// Indices among the `states` hidden states of a model, which has one more of them than layers.
    ///
    /// # Errors
    /// If there is none, or the model has no such layer.
    pub fn resolve(&self, states: usize) -> Result<Vec<usize>> {
        let expected = || format!("expected a layer from -{states} to {}", states - 1);
        if self.0.is_empty() {
            return Err(Error::Setting(format!("layers: found none, {}", expected())));
        }
        let resolve = |&layer: &i64| {
            let index = if layer < 0 { layer + states as i64 } else { layer };
            let index = usize::try_from(index).ok().filter(|index| *index < states);
            index.ok_or_else(|| Error::Setting(format!("layers: found {layer}, {}", expected())))
        };
        self.0.iter().map(resolve).collect()
    }
}

/// What an embedding is made of.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EmbeddingOptions {
    /// Tokens to one vector.
    pub pooling: Pooling,
    /// Which hidden states.
    pub layers: Layers,
    /// Several layers to one vector.
    pub combine: Combine,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
}

impl Builder<EmbeddingProcessor> {
    /// How the vectors of a text's tokens become one; default: their mean.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.options.pooling = pooling;
        self
    }

    /// The layers that vectors are taken from; default: the last one.
    pub fn layers(mut self, layers: Layers) -> Self {
        self.options.layers = layers;
        self
    }

    /// How several layers become one vector; default: concatenated.
    pub fn combine(mut self, combine: Combine) -> Self {
        self.options.combine = combine;
        self
    }

    /// Whether every vector is scaled to length 1, so that a dot product is the cosine; default: no.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.options.normalize = normalize;
        self
    }
}

/// The text side of a [`TextEmbedder`].
#[derive(Debug, Clone)]
pub struct EmbeddingProcessor {
    tokenizer: Tokenizer,
    options: EmbeddingOptions,
    /// Indices of the chosen hidden states.
    layers: Vec<usize>,
}

/// A tokenized text.
#[derive(Debug, Clone)]
pub struct TextInput {
    sequence: Sequence,
    /// Whether every token gets a vector, rather than the text one.
    every_token: bool,
}

/// The vectors of a text's tokens.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenEmbeddings {
    /// The WordPieces, special tokens included.
    pub tokens: Vec<String>,
    /// One vector of width W for each of them.
    pub vectors: Vec<Vec<f32>>,
}

impl TextEmbedder {
    /// One vector of width W for each text. Longer texts than the model reads are truncated and
    /// [counted](Pipeline::truncated_count).
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<f32>>> {
        let requests: Vec<(&str, bool)> = texts.iter().map(|text| (text.as_ref(), false)).collect();
        let embeddings = self.run(&requests)?;
        Ok(embeddings.into_iter().map(|embedding| embedding.vectors.into_iter().next().unwrap_or_default()).collect())
    }

    /// One vector of width W for each token of each text; [`Pooling`] does not apply.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<TokenEmbeddings>> {
        let requests: Vec<(&str, bool)> = texts.iter().map(|text| (text.as_ref(), true)).collect();
        self.run(&requests)
    }
}

impl FromCheckpoint for EmbeddingProcessor {
    type Options = EmbeddingOptions;

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, options: &Self::Options) -> Result<Self> {
        const POOLER: &str = "pooler.dense.weight";
        let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
        if options.pooling == Pooling::Pooler && weights.shape(POOLER).is_none() {
            let (path, tensors) = (weights.path().into(), vec![POOLER.into()]);
            return Err(Error::MissingTensors { path, tensors });
        }
        let limit = config.max_position_embeddings;
        // The head's length in training says nothing about the encoder.
        let max_length = checkpoint.max_length(Some(max_length.unwrap_or(limit)))?;
        Ok(Self {
            tokenizer: tokenizer.truncating(max_length)?,
            layers: options.layers.resolve(config.num_hidden_layers + 1)?,
            options: options.clone(),
        })
    }
}

impl Processor for EmbeddingProcessor {
    type Model = BertModel;
    /// A text, and whether every token gets a vector.
    type Request<'a> = (&'a str, bool);
    type Input = TextInput;
    type Output = Vec<Vec<f32>>;
    type Answer = TokenEmbeddings;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A checkpoint may lack the pooler, which [`Pooling::Pooler`] alone reads.
    fn load(weights: &Weights, config: BertConfig, device: &Device) -> Result<Loaded<BertModel>> {
        let mut loaded = load_weights_partial::<BertModel>(weights, config, 0, device)?;
        if !loaded.initialized.is_empty() {
            loaded.model.pooler = None;
            loaded.initialized.clear();
        }
        Ok(loaded)
    }

    fn preprocess(&self, &(text, every_token): &(&str, bool)) -> Result<Vec<TextInput>> {
        let sequence = self.tokenizer.sequence(text, None)?;
        Ok(vec![TextInput { sequence, every_token }])
    }

    fn sequences(input: &TextInput) -> &[Sequence] {
        std::slice::from_ref(&input.sequence)
    }

    fn forward(&self, model: &BertModel, batch: BertInput, inputs: &[&TextInput]) -> Vec<Vec<Vec<f32>>> {
        let every_token = inputs.iter().any(|input| input.every_token);
        let vectors = if every_token { self.token_states(model, batch) } else { self.pooled(model, batch) };
        let vectors = if self.options.normalize { normalized(vectors) } else { vectors };
        let [_, rows, width] = vectors.dims();
        let values: Vec<f32> = vectors.into_data().iter::<f32>().collect();
        let own = |(place, input): (usize, &&TextInput)| {
            let kept = if every_token { input.sequence.len() } else { 1 };
            values[place * rows * width..][..kept * width].chunks(width).map(<[f32]>::to_vec).collect()
        };
        inputs.iter().enumerate().map(own).collect()
    }

    fn postprocess(&self, _request: &(&str, bool), inputs: &[TextInput], outputs: &[Vec<Vec<f32>>]) -> TokenEmbeddings {
        let sequences = inputs.iter().filter(|input| input.every_token).map(|input| &input.sequence);
        let tokens = sequences.flat_map(|sequence| sequence.ids.iter().map(|&id| self.tokenizer.piece(id))).collect();
        TokenEmbeddings { tokens, vectors: outputs.concat() }
    }
}

impl EmbeddingProcessor {
    /// One vector a text, `[B, 1, W]`.
    fn pooled(&self, model: &BertModel, input: BertInput) -> Tensor<3> {
        let mask = input.attention_mask.clone();
        match self.options.pooling {
            Pooling::Cls => self.token_states(model, input).slice_dim(1, 0..1),
            Pooling::Pooler => model.pool(model.encode(input)).unsqueeze_dim(1),
            Pooling::Mean => {
                let weights = mask.float().unsqueeze_dim::<3>(2);
                (self.token_states(model, input) * weights.clone()).sum_dim(1) / weights.sum_dim(1)
            }
            Pooling::Max => {
                let states = self.token_states(model, input);
                let padding = mask.bool_not().unsqueeze_dim::<3>(2).expand(states.shape());
                states.mask_fill(padding, f32::MIN).max_dim(1)
            }
        }
    }

    /// The chosen layers of every token, combined: `[B, T, W]`.
    fn token_states(&self, model: &BertModel, input: BertInput) -> Tensor<3> {
        let hidden_states = model.hidden_states(input);
        let chosen: Vec<Tensor<3>> = self.layers.iter().map(|&layer| hidden_states[layer].clone()).collect();
        let count = chosen.len() as f64;
        match self.options.combine {
            Combine::Concat => Tensor::cat(chosen, 2),
            Combine::Sum => Tensor::stack::<4>(chosen, 0).sum_dim(0).squeeze_dim(0),
            Combine::Mean => Tensor::stack::<4>(chosen, 0).sum_dim(0).squeeze_dim::<3>(0) / count,
        }
    }
}

/// Vectors along the last dimension, scaled to length 1.
fn normalized(vectors: Tensor<3>) -> Tensor<3> {
    let length = vectors.clone().powi_scalar(2).sum_dim(2).sqrt().clamp_min(1e-12);
    vectors / length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbers_lists_and_ranges() {
        let layers = |text: &str| text.parse::<Layers>().unwrap().resolve(7).unwrap();
        assert_eq!(layers("-1"), [6]);
        assert_eq!(layers("-1,-2"), [6, 5]);
        assert_eq!(layers("-4..-1"), [3, 4, 5, 6]);
        assert_eq!(layers("0"), [0]);
        assert!("x".parse::<Layers>().is_err());
        assert!("-9223372036854775808..9223372036854775807".parse::<Layers>().is_err());
        assert!("-8".parse::<Layers>().unwrap().resolve(7).is_err());
        assert!(Layers::new([]).resolve(7).is_err());
    }
}
