//! Values of command-line options that are neither numbers nor texts.

use std::str::FromStr;

use bert_model::pipeline;
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

impl Pooling {
    /// As the library has it; `None` for a vector of every token.
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
    /// Inversely to their frequency.
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
                    number.parse().map_err(|_| format!("`{name}` is none of encoder, embeddings, a number"))?;
                Ok(Self::Layers(number))
            }
        }
    }
}
