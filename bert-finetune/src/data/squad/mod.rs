//! Reads questions about passages: the JSON of SQuAD v1.1 (Rajpurkar et al. 2016) and v2.0 (2018), and flat rows as
//! Hugging Face's `datasets` exports them.
//!
//! An answer is given by its text and its position: the number of code points (not bytes) before it in the passage. If
//! a question's list of answers is empty, its passage contains no answer; without a list, the question is unlabeled.

mod json;

use std::{path::Path, sync::Arc};

use bert_cli::input::kind::Format;
use bert_cli::input::source::Input;
use bert_cli::lines::read_file;
use bert_model::text::CodePoints;
use bert_model::{Error, Result};
use serde_json::Deserializer;

use self::json::{Article, Content, Entry, Paragraph};

/// A question about a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The id in the file, or else the question's number, for messages.
    pub id: String,
    /// The passage, shared by all of its questions.
    pub context: Arc<str>,
    /// The question.
    pub question: String,
    /// All annotated answers, empty if the passage contains none; `None` if the question is unlabeled.
    pub answers: Option<Vec<Answer>>,
}

/// An answer: a span of the passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text of the answer.
    pub text: String,
    /// Number of code points before the answer in the passage; `None` if the file gives no position, or a position at
    /// which the passage has a different text.
    pub start: Option<usize>,
}

impl Answer {
    /// The start and end of the answer in the passage, in code points.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.start.map(|start| (start, start + self.text.chars().count()))
    }
}

impl Question {
    /// Whether the question is labeled as having no answer.
    pub fn is_impossible(&self) -> bool {
        self.answers.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the question can be learned: it is labeled as having no answer, or the position of an answer is known.
    pub fn is_placed(&self) -> bool {
        self.is_impossible() || self.first_place().is_some()
    }

    /// The start and end of the first answer whose position is known, in code points.
    pub fn first_place(&self) -> Option<(usize, usize)> {
        self.answers.iter().flatten().find_map(Answer::place)
    }
}

/// Reads a file, compressed or not: SQuAD's JSON, or rows with `question`, `context` and `answers`, either as a list,
/// under `data`, as one row per line, or in `.parquet`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Line`] for malformed JSON or a missing key; [`Error::File`] for a
/// file without questions.
pub fn read_squad(path: &Path) -> Result<Vec<Question>> {
    let bytes = read(path)?;
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut questions = Vec::new();
    for content in Deserializer::from_slice(json).into_iter::<Content>() {
        content.map_err(|error| not_squad(path, &error))?.into_iter().for_each(|article| add(article, &mut questions));
    }
    if questions.is_empty() {
        return Err(Error::file(path, "no questions", "at least one"));
    }
    Ok(questions)
}

/// The bytes of a file; rows of `.parquet` are converted to lines of JSON.
fn read(path: &Path) -> Result<Vec<u8>> {
    let input = Input::new(path);
    match input.format {
        Some(Format::Parquet) => {}
        // Their fields have no place for answers.
        Some(Format::Csv | Format::Tsv) => {
            let expected = "SQuAD's `.json`, or `.jsonl` or `.parquet` with `question`, `context` and `answers`";
            return Err(input.error(expected));
        }
        _ => return read_file(path),
    }
    let mut bytes = Vec::new();
    for line in input.lines()? {
        bytes.extend(line?.text.bytes());
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn not_squad(path: &Path, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    let found = format!("{reason} (column {})", error.column());
    let expected =
        "SQuAD's JSON (`data`, its `paragraphs`, their `context` and `qas`) or rows of `question` and `context`";
    Error::line(path, error.line() as u64, found, expected)
}

fn add(article: Article, questions: &mut Vec<Question>) {
    for Paragraph { context, qas } in article.paragraphs {
        let code_points = CodePoints::new(&context);
        let context: Arc<str> = context.into();
        for Entry { id, question, answers } in qas {
            let place = |answer: json::Answer| placed(answer, &context, &code_points);
            let answers = answers.map(|answers| answers.into_iter().map(place).collect());
            let id = id.unwrap_or_else(|| (questions.len() + 1).to_string());
            questions.push(Question { id, context: context.clone(), question, answers });
        }
    }
}

/// Converts an answer, with its position if the passage contains it there.
fn placed(json::Answer { text, start }: json::Answer, context: &str, code_points: &CodePoints) -> Answer {
    let is_there =
        |start: &usize| code_points.slice(context, *start, start.saturating_add(text.chars().count())) == text;
    let start = start.and_then(|start| usize::try_from(start).ok()).filter(is_there);
    Answer { text, start }
}

#[cfg(test)]
mod tests;
