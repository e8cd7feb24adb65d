//! Splits a line of text into sentences, the units from which pretraining builds segments A and B.
//!
//! Boundaries follow Unicode's annex 29 (UAX #29), which knows the full stops of every script but no language: it also
//! splits after "Mr." and initials. This is deliberate. A segment is a run of consecutive sentences, so a wrong split
//! matters only where a segment ends there, while a list of abbreviations would help English alone. A corpus with
//! better splits can have one sentence per line, which [`SentenceMode::Line`] preserves.

use std::fmt;
use std::str::FromStr;

use bert_model::{Error, Result};
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// How to split lines into sentences (`--sentences`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentenceMode {
    /// `Wrapped` for hard-wrapped files, `Unicode` for all others.
    #[default]
    Auto,
    /// Each line is a sentence.
    Line,
    /// Each line is a paragraph, split at the sentence boundaries of UAX #29.
    Unicode,
    /// Lines end within sentences and are joined up to an empty line, which ends a paragraph but not a document.
    Wrapped,
}

impl FromStr for SentenceMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "line" => Ok(Self::Line),
            "unicode" => Ok(Self::Unicode),
            "wrapped" => Ok(Self::Wrapped),
            _ => Err(Error::Setting(format!(
                "sentence mode `{name}` is unknown, expected `auto`, `line`, `unicode` or `wrapped`"
            ))),
        }
    }
}

impl fmt::Display for SentenceMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Line => "line",
            Self::Unicode => "unicode",
            Self::Wrapped => "wrapped",
        })
    }
}

/// The sentences of a line or joined paragraph, in order and trimmed; a blank line has none.
///
/// ```
/// use bert_pretrain::corpus::{SentenceMode, split_sentences};
///
/// let line = "It rained. Did they mind? They did not.";
/// let sentences: Vec<&str> = split_sentences(line, SentenceMode::Unicode).collect();
/// assert_eq!(sentences, ["It rained.", "Did they mind?", "They did not."]);
/// ```
pub fn split_sentences(line: &str, mode: SentenceMode) -> impl Iterator<Item = &str> {
    let (whole, parts) = match mode {
        SentenceMode::Line => (Some(line), None),
        _ => (None, Some(line.split_sentence_bounds())),
    };
    whole.into_iter().chain(parts.into_iter().flatten()).map(str::trim).filter(|sentence| !sentence.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unicode(line: &str) -> Vec<&str> {
        split_sentences(line, SentenceMode::Unicode).collect()
    }

    #[test]
    fn full_stops_of_several_scripts_end_a_sentence() {
        assert_eq!(unicode("Is it so? It is!  Good."), ["Is it so?", "It is!", "Good."]);
        assert_eq!(unicode("吾輩は猫である。名前はまだ無い。"), ["吾輩は猫である。", "名前はまだ無い。"]);
        assert_eq!(unicode("यह सच है। वह गया।"), ["यह सच है।", "वह गया।"]);
    }

    #[test]
    fn numbers_and_lower_case_go_on() {
        assert_eq!(unicode("It cost 3.50 dollars, i.e. too much."), ["It cost 3.50 dollars, i.e. too much."]);
    }

    #[test]
    fn quotes_and_brackets_stay_with_their_sentence() {
        assert_eq!(unicode("\"Go!\" (He went.) She stayed."), ["\"Go!\"", "(He went.)", "She stayed."]);
    }

    #[test]
    fn plain_uax_29_cuts_after_a_title() {
        assert_eq!(unicode("Mr. Smith left."), ["Mr.", "Smith left."]);
    }

    #[test]
    fn a_line_is_kept_whole_but_trimmed() {
        let line = "  One. Two.\t";
        assert_eq!(split_sentences(line, SentenceMode::Line).collect::<Vec<_>>(), ["One. Two."]);
    }

    #[test]
    fn white_space_has_no_sentences() {
        for mode in [SentenceMode::Line, SentenceMode::Unicode] {
            assert_eq!(split_sentences(" \t\u{a0} ", mode).count(), 0);
            assert_eq!(split_sentences("", mode).count(), 0);
        }
    }

    #[test]
    fn no_character_but_white_space_is_lost() {
        let line = "A. b? \u{2028}C\u{85}d! e\u{301}… 「あ。」い";
        let kept: String = unicode(line).concat().split_whitespace().collect();
        assert_eq!(kept, line.split_whitespace().collect::<String>());
    }

    #[test]
    fn names_go_there_and_back() {
        for mode in [SentenceMode::Auto, SentenceMode::Line, SentenceMode::Unicode, SentenceMode::Wrapped] {
            assert_eq!(mode.to_string().parse::<SentenceMode>().unwrap(), mode);
        }
        let message = "words".parse::<SentenceMode>().unwrap_err().to_string();
        assert_eq!(message, "sentence mode `words` is unknown, expected `auto`, `line`, `unicode` or `wrapped`");
    }
}
