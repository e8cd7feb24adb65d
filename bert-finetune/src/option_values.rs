//! Types of command-line option values other than numbers and texts.

use std::str::FromStr;

use bert_model::pipeline;
use clap::ValueEnum;

/// Parses a number of at least 1.
///
/// # Errors
/// If it is not such a number.
pub fn at_least_1(number: &str) -> Result<usize, String> {
    number.parse().ok().filter(|&number| number > 0).ok_or_else(|| "expected a number, at least 1".into())
}

/// Parses a number from 1 to 20.
///
/// # Errors
/// If it is not such a number.
pub fn from_1_to_20(number: &str) -> Result<usize, String> {
    at_least_1(number).ok().filter(|&number| number <= 20).ok_or_else(|| "expected a number from 1 to 20".into())
}

/// How to pool the vectors of a text's tokens into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// The mean over all tokens, without padding.
    Mean,
    /// The vector of `[CLS]`.
    Cls,
    /// The maximum of each component.
    Max,
    /// The pooler's output.
    Pooler,
    /// No pooling: every token keeps its vector.
    None,
}

impl Pooling {
    /// The corresponding pooling of the library; `None` if every token keeps its vector.
    pub fn of_text(self) -> Option<pipeline::Pooling> {
        match self {
            Self::Mean => Some(pipeline::Pooling::Mean),
            Self::Cls => Some(pipeline::Pooling::Cls),
            Self::Max => Some(pipeline::Pooling::Max),
            Self::Pooler => Some(pipeline::Pooling::Pooler),
            Self::None => None,
        }
    }
}

/// How to combine the vectors of several layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Combine {
    /// Their concatenation.
    Concat,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

impl From<Combine> for pipeline::Combine {
    fn from(combine: Combine) -> Self {
        match combine {
            Combine::Concat => Self::Concat,
            Combine::Sum => Self::Sum,
            Combine::Mean => Self::Mean,
        }
    }
}

/// How to weight classes in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassWeights {
    /// Inversely to the classes' frequency.
    Balanced,
}

/// Which parameters to freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// The embeddings and all encoder layers.
    Encoder,
    /// The embeddings and this many of the lowest encoder layers.
    Layers(usize),
}

impl FromStr for Freeze {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "encoder" => Ok(Self::Encoder),
            "embeddings" => Ok(Self::Layers(0)),
            number => {
                let number =
                    number.parse().map_err(|_| format!("found `{name}`, expected encoder, embeddings or a number"))?;
                Ok(Self::Layers(number))
            }
        }
    }
}
