//! Parses tagged words, and texts, from lines of JSON.

use std::path::Path;

use bert_cli::input::columns::{json_reason, scalar};
use bert_cli::lines::Line;
use bert_model::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Sentence;

/// Hugging Face's data sets call the lists `tokens` and `ner_tags`; a row may have both names.
#[derive(Deserialize)]
struct JsonSentence {
    words: Option<Vec<String>>,
    tokens: Option<Vec<String>>,
    tags: Option<Vec<Value>>,
    ner_tags: Option<Vec<Value>>,
}

/// Parses a line with `words` and, if `with_tags`, `tags`.
pub(super) fn sentence(line: &Line, path: &Path, with_tags: bool) -> Result<Sentence> {
    let wrong = |found: String, expected: &str| Error::line(path, line.number, found, expected);
    let expected = "an object with the lists `words` and `tags`";
    let JsonSentence { words, tokens, tags, ner_tags } =
        serde_json::from_str(&line.text).map_err(|error| wrong(json_reason(&error), expected))?;
    let words = words.or(tokens).ok_or_else(|| wrong("no `words`".to_string(), expected))?;
    let tags = tags.or(ner_tags);
    let lines = vec![line.number; words.len()];
    if !with_tags {
        return Ok(Sentence { words, tags: Vec::new(), lines });
    }
    let tags = tags.ok_or_else(|| wrong("no `tags`".to_string(), "a list with a tag for each word"))?;
    if tags.len() != words.len() {
        return Err(wrong(format!("{} tag(s) for {} word(s)", tags.len(), words.len()), "a tag for each word"));
    }
    let tags: Option<Vec<String>> = tags.iter().map(scalar).collect();
    let tags = tags.ok_or_else(|| wrong("a list or an object among the tags".to_string(), "text or numbers"))?;
    Ok(Sentence { words, tags, lines })
}

/// An input for tagging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordsOrText {
    /// A sequence of words.
    Words(Vec<String>),
    /// A text to split into words.
    Text(String),
}

/// Parses a line of `.jsonl` that has `words` (or `tokens`), or else a text under `column`. If `is_only`, no column but
/// `column` is accepted, and words are ignored.
///
/// # Errors
/// If the line is not an object with one of these keys, or if the value is neither a list of words nor a text.
pub fn words_or_text(line: &Line, path: &Path, column: &str, is_only: bool) -> Result<WordsOrText> {
    let wrong = |found: String| {
        let words = if is_only { "" } else { "a list `words` or " };
        Error::line(path, line.number, found, format!("an object with {words}`{column}`"))
    };
    let mut object: Map<String, Value> =
        serde_json::from_str(&line.text).map_err(|error| wrong(json_reason(&error)))?;
    let words = ["words", "tokens"].into_iter().find_map(|key| object.remove(key)).filter(|_| !is_only);
    match (words.filter(|words| !words.is_null()), object.remove(column)) {
        (Some(words), _) => match serde_json::from_value(words) {
            Ok(words) => Ok(WordsOrText::Words(words)),
            Err(_) => Err(wrong("`words` that are not a list of texts".into())),
        },
        (None, Some(text)) => match scalar(&text) {
            Some(text) => Ok(WordsOrText::Text(text)),
            None => Err(wrong(format!("a list or an object in column `{column}`"))),
        },
        (None, None) if is_only => Err(wrong("none".into())),
        (None, None) => Err(wrong("neither".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reported bug: the named column was ignored.
    #[test]
    fn a_column_that_is_named_is_the_one_that_is_read() {
        let read = |text: &str, column: &str, is_only: bool| {
            words_or_text(&Line { number: 1, text: text.into() }, Path::new("x.jsonl"), column, is_only)
        };
        let both = r#"{"tokens":["a","b"],"text":"c","body":"d"}"#;
        assert_eq!(read(both, "text", false).unwrap(), WordsOrText::Words(vec!["a".into(), "b".into()]));
        assert_eq!(read(both, "body", true).unwrap(), WordsOrText::Text("d".into()));
        assert_eq!(read(r#"{"words":null,"text":"c"}"#, "text", false).unwrap(), WordsOrText::Text("c".into()));
        for (text, expected) in [
            ("{}", "x.jsonl:1: found neither, expected an object with a list `words` or `text`"),
            (r#"{"words":[1]}"#, "found `words` that are not a list of texts"),
            (r#"{"text":[]}"#, "found a list or an object in column `text`"),
            ("[]", "x.jsonl:1: found broken JSON"),
        ] {
            let message = read(text, "text", false).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
