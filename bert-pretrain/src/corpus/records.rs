//! Reads corpora of records: each line of a `.jsonl` file, or each row of a `.parquet` file, is a document.

use bert_cli::input::parquet::ParquetRows;
use bert_cli::lines::LineReader;
use bert_model::{Error, Result};
use serde_json::Value;

use super::is_blank;

/// The text of a line of `.jsonl` or a row of `.parquet`, and the position up to which it has been read.
#[derive(Default)]
pub(super) struct RecordText {
    text: String,
    position: usize,
}

impl RecordText {
    pub fn new(text: String) -> Self {
        Self { text, position: 0 }
    }

    /// The next line of the text with its line ending.
    pub fn raw_line(&mut self) -> Option<&str> {
        let line = self.text[self.position..].split_inclusive('\n').next()?;
        self.position += line.len();
        Some(line)
    }

    /// The next non-blank line of the text.
    pub fn next_line(&mut self) -> Option<&str> {
        loop {
            let start = self.position;
            let is_blank = is_blank(self.raw_line()?);
            if !is_blank {
                return self.text[start..self.position].lines().next();
            }
        }
    }
}

/// A source of documents that are one record each.
pub(super) enum Records {
    Json(LineReader),
    /// The rows, and the number of the last one read.
    Parquet(ParquetRows, u64),
}

impl Records {
    /// The text of the next record, skipping blank lines of `.jsonl`.
    pub fn next_text(&mut self) -> Result<Option<String>> {
        match self {
            Self::Json(reader) => {
                let text = loop {
                    match reader.next_line()? {
                        None => return Ok(None),
                        Some(line) if is_blank(line) => (),
                        Some(line) => break text_of(line),
                    }
                };
                text.map(Some).map_err(|found| reader.error(found, "a JSON object with a string under the key `text`"))
            }
            Self::Parquet(rows, number) => {
                let Some(row) = rows.next() else { return Ok(None) };
                let (row, cells) = row?;
                *number = row;
                match cells.into_iter().next() {
                    Some(Value::String(text)) => Ok(Some(text)),
                    None | Some(Value::Null) => Ok(Some(String::new())),
                    Some(other) => {
                        let found = format!("{} in the column `text`", kind(&other));
                        Err(Error::line(&**rows.path(), row, found, "a string"))
                    }
                }
            }
        }
    }

    /// The number of the last line or row read, from 1.
    pub fn number(&self) -> u64 {
        match self {
            Self::Json(reader) => reader.number(),
            Self::Parquet(_, number) => *number,
        }
    }
}

/// The string under the key `text`, or a description of what was found instead.
fn text_of(line: &str) -> Result<String, String> {
    let kind = match serde_json::from_str(line).map_err(|error| format!("malformed JSON ({})", cause(&error)))? {
        Value::Object(mut fields) => match fields.remove("text") {
            Some(Value::String(text)) => return Ok(text),
            Some(other) => return Err(format!("{} under the key `text`", kind(&other))),
            None => "a JSON object without the key `text`",
        },
        other => kind(&other),
    };
    Err(kind.to_string())
}

/// serde_json's message with the column, but without the line number, which is always 1.
fn cause(error: &serde_json::Error) -> String {
    error.to_string().replace("at line 1 column", "at column")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
