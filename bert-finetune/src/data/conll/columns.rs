//! The columns of words and tags in a CoNLL file.

use std::{fmt, path::Path};

use bert_cli::input::kind::{FileKind, Format};
use bert_model::{Error, Result};

/// A column of a CoNLL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagColumn {
    /// Number from the left, from 1.
    FromStart(usize),
    /// Number from the right, where 1 is the last column.
    FromEnd(usize),
}

impl TagColumn {
    /// Parses a command-line argument: `4`, `-1` or `last`.
    ///
    /// # Errors
    /// [`Error::Usage`] for 0 and for anything that is not a number.
    pub fn parse(argument: &str) -> Result<Self> {
        match argument.parse::<isize>() {
            Ok(number) if number > 0 => Ok(Self::FromStart(number.unsigned_abs())),
            Ok(number) if number < 0 => Ok(Self::FromEnd(number.unsigned_abs())),
            _ if argument == "last" => Ok(Self::FromEnd(1)),
            _ => Err(Error::Usage(format!(
                "column `{argument}`: expected a number from 1, a negative number to count from the end, or `last`"
            ))),
        }
    }

    pub(super) fn of<'a>(self, fields: &[&'a str]) -> Option<&'a str> {
        let index = match self {
            Self::FromStart(number) => number.checked_sub(1),
            Self::FromEnd(number) => fields.len().checked_sub(number),
        };
        fields.get(index?).copied()
    }
}

impl fmt::Display for TagColumn {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::FromStart(number) => number.fmt(f),
            Self::FromEnd(number) => write!(f, "-{number}"),
        }
    }
}

/// The columns of words and tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConllOptions {
    /// The word column.
    pub token: TagColumn,
    /// The tag column; `None` reads words only.
    pub tag: Option<TagColumn>,
}

impl ConllOptions {
    /// The default columns: the word in the first, the tag in the last; in CoNLL-U, recognized by its extension, 2 and
    /// 4 (UPOS).
    pub fn usual(path: &Path) -> Self {
        match FileKind::of(path).format {
            Some(Format::ConllU) => Self { token: TagColumn::FromStart(2), tag: Some(TagColumn::FromStart(4)) },
            _ => Self { token: TagColumn::FromStart(1), tag: Some(TagColumn::FromEnd(1)) },
        }
    }
}

/// Columns chosen by the user; any that is not set has the default for the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConllColumns {
    /// The word column.
    pub token: Option<TagColumn>,
    /// The tag column.
    pub tag: Option<TagColumn>,
}

impl ConllColumns {
    /// The columns to use for this file.
    pub fn of(self, path: &Path) -> ConllOptions {
        let usual = ConllOptions::usual(path);
        ConllOptions { token: self.token.unwrap_or(usual.token), tag: self.tag.or(usual.tag) }
    }
}
