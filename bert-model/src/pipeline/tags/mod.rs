//! Tagging schemes: how the tags of words encode where entities start and end.
//!
//! | scheme | one word | several words | next to an entity of the same type |
//! |---|---|---|---|
//! | IOB1 (CoNLL-2003 as distributed) | `I` | `I I I` | the second starts with `B` |
//! | IOB2 (BIO) | `B` | `B I I` | each starts with `B` |
//! | IOE1 | `I` | `I I I` | the first ends with `E` |
//! | IOE2 | `E` | `I I E` | each ends with `E` |
//! | IOBES (BIOES) | `S` | `B I E` | unchanged |
//! | BILOU | `U` | `B I L` | unchanged |
//! | BMES | `S` | `B M E` | unchanged |
//! | BMEWO | `W` | `B M E` | unchanged |
//! | plain | the type itself | the type on each word | cannot be told apart |
//!
//! The letter comes before or after the type, separated by `-` or `_` (`B-PER`, `PER_B`), or is the whole tag. In all
//! schemes `O` is outside of any entity, as are BMEWO+'s `BB_O_PER`, `MM_O`, `EE_O_PER` and `WW_O_PER`.
//!
//! A [`TagReader`] recognizes the scheme of a set of labels and reads entities from tags, as seqeval does.

mod notation;
mod reader;
mod spans;

use serde::{Deserialize, Serialize};

pub use reader::TagReader;

/// The encoding of entities by tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TagScheme {
    /// Inside/outside; `B` only between adjacent entities of the same type.
    Iob1,
    /// Inside/outside/begin; also called BIO.
    Iob2,
    /// Inside/outside; `E` only between adjacent entities of the same type.
    Ioe1,
    /// Inside/outside/end.
    Ioe2,
    /// Inside/outside/begin/end/single; also called BIOES.
    Iobes,
    /// Begin/inside/last/outside/unit.
    Bilou,
    /// Begin/middle/end/single.
    Bmes,
    /// Begin/middle/end/whole/outside; BMEWO+ has more tags for words outside of entities.
    Bmewo,
    /// The whole tag is the type, as for parts of speech.
    Plain,
}

/// The schemes that differ in their letters, with those letters. The scheme of a set of labels is the first one that
/// has all of its letters.
const LETTERS: [(TagScheme, &str); 6] = [
    (TagScheme::Iob2, "BI"),
    (TagScheme::Ioe2, "IE"),
    (TagScheme::Iobes, "BIES"),
    (TagScheme::Bilou, "BILU"),
    (TagScheme::Bmes, "BMES"),
    (TagScheme::Bmewo, "BMEW"),
];

/// An entity: words `start..end` of a sentence, and its type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub struct EntitySpan<'a> {
    /// Type of the entity, such as `PER`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Index of the first word.
    pub start: usize,
    /// Index after the last word.
    pub end: usize,
}

impl<'a> EntitySpan<'a> {
    /// An entity of type `kind` that consists of the words `start..end`.
    pub fn new(kind: &'a str, start: usize, end: usize) -> Self {
        Self { kind, start, end }
    }
}
