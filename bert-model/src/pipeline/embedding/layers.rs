//! Selects the hidden states that an embedding is computed from, and combines those of several layers.

use std::str::FromStr;

use burn::tensor::Tensor;

use crate::error::{Error, Result};

/// How the vectors of several layers are combined into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Combine {
    /// Concatenate them, in the order of [`Layers`].
    #[default]
    Concat,
    /// Add them up.
    Sum,
    /// Average them.
    Mean,
}

impl Combine {
    /// Combines the hidden states of several layers, each `[B, T, H]`, into one tensor.
    pub(super) fn apply(self, states: Vec<Tensor<3>>) -> Tensor<3> {
        let count = states.len() as f64;
        match self {
            Self::Concat => Tensor::cat(states, 2),
            Self::Sum => Tensor::stack::<4>(states, 0).sum_dim(0).squeeze_dim(0),
            Self::Mean => Tensor::stack::<4>(states, 0).sum_dim(0).squeeze_dim::<3>(0) / count,
        }
    }
}

/// A list of hidden layers of a model: 0 is the output of the embeddings, -1 the last layer.
///
/// ```
/// use bert_model::pipeline::Layers;
///
/// assert_eq!("-4..-1".parse(), Ok(Layers::new([-4, -3, -2, -1])));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<i64>);

/// The maximum number of layers in a configuration.
const MAX_LAYERS: i64 = 10_000;

impl Default for Layers {
    fn default() -> Self {
        Self(vec![-1])
    }
}

impl FromStr for Layers {
    type Err = String;

    /// Parses comma-separated numbers and inclusive ranges: `-1`, `-1,-2`, `-4..-1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("`{text}` is not a layer number"));
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
    /// Selects these layers, in this order.
    pub fn new(layers: impl Into<Vec<i64>>) -> Self {
        Self(layers.into())
    }

    /// Resolves the layers to indices among the `states` hidden states of a model, which has one more of them than
    /// layers.
    ///
    /// # Errors
    /// If the list is empty, or the model lacks one of the layers.
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
