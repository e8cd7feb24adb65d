//! BERT's other use (paper, section 5.3): contextual embeddings as features, from any layers, pooled or for every token.

use std::str::FromStr;

use bert_model::Workers;
use bert_model::text::{Sequence, collate};
use bert_model::{BertInput, BertModel, Error, Result};
use burn::tensor::{Device, Tensor};
use clap::ValueEnum;

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// Their mean, padding left out.
    Mean,
    /// That of `[CLS]`.
    Cls,
    /// The highest of each component.
    Max,
    /// The pooler's output.
    Pooler,
    /// They stay as they are.
    None,
}

/// How the vectors of several layers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Combine {
    /// Behind each other.
    Concat,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

/// Hidden layers: 0 is the embeddings' output, −1 the last layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<i64>);

impl FromStr for Layers {
    type Err = String;

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
                    layers.extend(first..=last);
                }
                None => layers.push(number(part)?),
            }
        }
        Ok(Self(layers))
    }
}

impl Layers {
    /// Indices among the `states` hidden states of a model.
    ///
    /// # Errors
    /// If the model has no such layer.
    pub fn resolve(&self, states: usize) -> Result<Vec<usize>> {
        let resolve = |&layer: &i64| {
            let index = if layer < 0 { layer + states as i64 } else { layer };
            usize::try_from(index).ok().filter(|index| *index < states).ok_or_else(|| {
                Error::Usage(format!("--layers: found {layer}, expected a layer from -{states} to {}", states - 1))
            })
        };
        self.0.iter().map(resolve).collect()
    }
}

/// What an embedding is made of.
#[derive(Debug, Clone)]
pub struct EmbedOptions {
    /// Tokens to one vector.
    pub pooling: Pooling,
    /// Which hidden states, as indices.
    pub layers: Vec<usize>,
    /// Several layers to one vector.
    pub combine: Combine,
    /// To length 1.
    pub normalize: bool,
}

/// The vectors of one text: one, or one for every token.
pub type Vectors = Vec<Vec<f32>>;

/// The embeddings of tokenized texts, in their order.
///
/// # Errors
/// If the system refuses threads.
pub fn embed(
    model: &BertModel,
    sequences: &[Sequence],
    pad_id: u32,
    options: &EmbedOptions,
    device: &Device,
) -> Result<Vec<Vectors>> {
    let lengths: Vec<usize> = sequences.iter().map(Sequence::len).collect();
    let embed = |batch: &[usize]| {
        let selected: Vec<&Sequence> = batch.iter().map(|&index| &sequences[index]).collect();
        let vectors = options.apply(model, collate(&selected, pad_id, device));
        let [_, rows, width] = vectors.dims();
        let values: Vec<f32> = vectors.into_data().iter::<f32>().collect();
        let own = |(place, &index): (usize, &usize)| {
            let kept = if options.pooling == Pooling::None { lengths[index] } else { 1 };
            values[place * rows * width..][..kept * width].chunks(width).map(<[f32]>::to_vec).collect()
        };
        batch.iter().enumerate().map(own).collect::<Vec<Vectors>>()
    };
    Ok(Workers::for_device(device)?.run_by_length(&lengths, embed))
}

impl EmbedOptions {
    /// Output: `[B, 1, W]`, or `[B, T, W]` without pooling; W is H, times the number of layers if they are concatenated.
    fn apply(&self, model: &BertModel, input: BertInput) -> Tensor<3> {
        let mask = input.attention_mask.clone();
        let pooled = match self.pooling {
            Pooling::None => self.token_states(model, input),
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
        };
        if self.normalize { normalized(pooled) } else { pooled }
    }

    /// The chosen layers of every token, combined: `[B, T, W]`.
    fn token_states(&self, model: &BertModel, input: BertInput) -> Tensor<3> {
        let hidden_states = model.hidden_states(input);
        let chosen: Vec<Tensor<3>> = self.layers.iter().map(|&layer| hidden_states[layer].clone()).collect();
        let count = chosen.len() as f64;
        match self.combine {
            Combine::Concat => Tensor::cat(chosen, 2),
            Combine::Sum => Tensor::stack::<4>(chosen, 0).sum_dim(0).squeeze_dim(0),
            Combine::Mean => Tensor::stack::<4>(chosen, 0).sum_dim(0).squeeze_dim::<3>(0) / count,
        }
    }
}

/// Vectors along the last dimension, to length 1.
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
        assert!("-8".parse::<Layers>().unwrap().resolve(7).is_err());
    }
}
