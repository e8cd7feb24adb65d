//! Groups lines into documents, separated by empty lines in text; in `.jsonl`, each line is one, in `.parquet` each row.
//!
//! The next-sentence task draws consecutive sentences from a document, so unrelated texts must
//! never be joined. The end of a file also ends a document.

use std::iter::Enumerate;
use std::path::Path;
use std::vec::IntoIter;

use bert_cli::input::kind::{FileKind, Format, Input};
use bert_cli::input::parquet::{Parquet, ParquetRows};
use bert_cli::lines::LineReader;
use bert_model::{Error, Result};
use serde_json::Value;

use super::files::CorpusFile;

/// A document longer than this, in bytes, is split at the next line. The few examples that would
/// span the split are lost, but memory stays bounded even for a file without empty lines. The size
/// includes Rust's overhead per line.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Consecutive lines of text that form a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Paragraphs or sentences; none is blank.
    pub lines: Vec<String>,
    /// Index of its file in [`Corpus::files`](super::Corpus::files).
    pub file: usize,
    /// Number of its first line in that file, from 1.
    pub line: u64,
}

/// Iterates over the documents of several files, one file after another.
pub struct Documents {
    files: Enumerate<IntoIter<CorpusFile>>,
    current: Option<FileDocuments>,
    failed: bool,
}

impl Documents {
    pub fn new(files: Vec<CorpusFile>) -> Self {
        Self { files: files.into_iter().enumerate(), current: None, failed: false }
    }

    fn advance(&mut self) -> Result<Option<Document>> {
        loop {
            if let Some(current) = &mut self.current
                && let Some(document) = current.next_document()?
            {
                return Ok(Some(document));
            }
            let Some((index, file)) = self.files.next() else { return Ok(None) };
            self.current = Some(FileDocuments::open(index, &file.path)?);
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let document = self.advance().transpose();
        self.failed = matches!(document, Some(Err(_)));
        document
    }
}

/// Reads the documents of one file.
struct FileDocuments {
    file: usize,
    source: Source,
}

/// Where lines come from. Both kinds return `None` at the end of a document and continue with the
/// next one when called again.
enum Source {
    Text(LineReader),
    Jsonl(LineReader, JsonlText),
    /// The second is the number of the row.
    Parquet(ParquetRows, u64, JsonlText),
}

impl FileDocuments {
    fn open(file: usize, path: &Path) -> Result<Self> {
        let source = match FileKind::of(path).format {
            Some(Format::JsonLines) => Source::Jsonl(LineReader::open(path)?, JsonlText::default()),
            Some(Format::Parquet) => {
                let rows = Parquet::open(&Input::new(path))?.rows(&["text".to_string()])?;
                Source::Parquet(rows, 0, JsonlText::default())
            }
            _ => Source::Text(LineReader::open(path)?),
        };
        Ok(Self { file, source })
    }

    fn next_document(&mut self) -> Result<Option<Document>> {
        let Some((first, line)) = self.source.first_line()? else { return Ok(None) };
        let mut bytes = size(&first);
        let mut lines = vec![first];
        while bytes < MAX_DOCUMENT_BYTES
            && let Some(next) = self.source.following_line()?
        {
            bytes += size(&next);
            lines.push(next);
        }
        Ok(Some(Document { lines, file: self.file, line }))
    }
}

impl Source {
    /// The next non-blank line of the file, with its number; `None` at the end of the file.
    fn first_line(&mut self) -> Result<Option<(String, u64)>> {
        match self {
            Self::Text(reader) => loop {
                match reader.next_line()? {
                    None => return Ok(None),
                    Some(line) if is_blank(line) => (),
                    Some(line) => {
                        let line = line.to_string();
                        return Ok(Some((line, reader.number())));
                    }
                }
            },
            Self::Jsonl(reader, record) => loop {
                if let Some(line) = record.next_line() {
                    return Ok(Some((line.to_string(), reader.number())));
                }
                match read_record(reader)? {
                    Some(text) => *record = JsonlText { text, position: 0 },
                    None => return Ok(None),
                }
            },
            Self::Parquet(rows, number, record) => loop {
                if let Some(line) = record.next_line() {
                    return Ok(Some((line.to_string(), *number)));
                }
                let Some(row) = rows.next() else { return Ok(None) };
                let (row, cells) = row?;
                *number = row;
                *record = JsonlText { text: row_text(cells, row, rows.path())?, position: 0 };
            },
        }
    }

    /// The next line of the current document.
    fn following_line(&mut self) -> Result<Option<String>> {
        let line = match self {
            Self::Text(reader) => reader.next_line()?.filter(|line| !is_blank(line)),
            Self::Jsonl(_, record) | Self::Parquet(_, _, record) => record.next_line(),
        };
        Ok(line.map(str::to_string))
    }
}

/// The text of one line of `.jsonl` or one row of `.parquet`, and the position up to which it has been read.
#[derive(Default)]
struct JsonlText {
    text: String,
    position: usize,
}

impl JsonlText {
    /// The next non-blank line of the text.
    fn next_line(&mut self) -> Option<&str> {
        while let Some(line) = self.text[self.position..].split_inclusive('\n').next() {
            let start = self.position;
            self.position += line.len();
            if !is_blank(line) {
                return self.text[start..self.position].lines().next();
            }
        }
        None
    }
}

/// The text of a row of a `.parquet` file; a row without one is an empty document.
fn row_text(cells: Vec<Value>, row: u64, path: &Path) -> Result<String> {
    match cells.into_iter().next() {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Ok(String::new()),
        Some(other) => Err(Error::line(path, row, format!("{} in the column `text`", kind(&other)), "a string")),
    }
}

/// The text of the next line of a `.jsonl` file, skipping blank lines.
fn read_record(reader: &mut LineReader) -> Result<Option<String>> {
    let text = loop {
        match reader.next_line()? {
            None => return Ok(None),
            Some(line) if is_blank(line) => (),
            Some(line) => break text_of(line),
        }
    };
    text.map(Some).map_err(|found| reader.error(found, "a JSON object with a string under the key `text`"))
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

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// Approximate memory use of a line, in bytes.
fn size(line: &str) -> usize {
    line.len() + size_of::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents of a file of this name and content, up to the first error.
    fn read(name: &str, content: &str) -> Result<Vec<Document>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        Documents::new(vec![CorpusFile { path, bytes: content.len() as u64 }]).collect()
    }

    fn document(line: u64, lines: &[&str]) -> Document {
        Document { lines: lines.iter().map(|line| line.to_string()).collect(), file: 0, line }
    }

    fn refusal(content: &str) -> String {
        read("a.jsonl", content).unwrap_err().to_string()
    }

    #[test]
    fn empty_lines_end_a_document_of_text() {
        let documents = read("a.txt", "\n \nOne.\r\n Two.\n\t\n\nThree.").unwrap();
        assert_eq!(documents, [document(3, &["One.", " Two."]), document(7, &["Three."])]);
    }

    #[test]
    fn a_file_of_another_name_is_text() {
        assert_eq!(read("notes.md", "{}\n").unwrap(), [document(1, &["{}"])]);
    }

    #[test]
    fn the_end_of_a_file_ends_a_document() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["a.txt", "b.txt"].map(|name| CorpusFile { path: directory.path().join(name), bytes: 0 });
        files.iter().for_each(|file| std::fs::write(&file.path, "One.\nTwo.").unwrap());
        let documents: Vec<Document> = Documents::new(files.into()).collect::<Result<_>>().unwrap();
        assert_eq!(documents.iter().map(|document| document.file).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_line_of_jsonl_is_a_document() {
        let content = "{\"id\": 1, \"text\": \"One.\\r\\n \\n\\nTwo.\\n\"}\n\n{\"text\": \"\"}\n{\"text\": \"Three.\"}";
        assert_eq!(read("a.jsonl", content).unwrap(), [document(1, &["One.", "Two."]), document(4, &["Three."])]);
    }

    #[test]
    fn what_is_no_record_is_named_with_its_line() {
        let good = "{\"text\": \"fine\"}\n";
        let expected = "expected a JSON object with a string under the key `text`";
        for (bad, found) in [
            ("{\"text\": \"cut", "a.jsonl:2: found malformed JSON (EOF while parsing a string at column 13)"),
            ("{\"body\": \"x\"}", "a.jsonl:2: found a JSON object without the key `text`"),
            ("{\"text\": 7}", "a.jsonl:2: found a number under the key `text`"),
            ("[\"text\"]", "a.jsonl:2: found an array"),
        ] {
            let message = refusal(&format!("{good}{bad}\n{good}"));
            assert!(message.contains(found) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_first_error_is_the_last_item() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"fine\"}\nbad\n{\"text\": \"fine\"}\n").unwrap();
        let items: Vec<_> = Documents::new(vec![CorpusFile { path, bytes: 0 }]).collect();
        assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_document_too_large_for_memory_is_cut_between_lines() {
        let line = "x".repeat(999_999);
        let text = format!("{line}\n").repeat(10);
        let documents = read("a.txt", &text).unwrap();
        assert_eq!(documents.iter().map(|document| document.lines.len()).collect::<Vec<_>>(), [5, 5]);
        assert_eq!(documents[1].line, 6);
        let records = read("a.jsonl", &serde_json::json!({ "text": text }).to_string()).unwrap();
        assert_eq!(records.iter().map(|document| document.lines.len()).collect::<Vec<_>>(), [5, 5]);
        assert_eq!(records[1].line, 1);
    }

    #[test]
    fn many_tiny_lines_are_cut_by_what_they_take_in_memory() {
        let documents = read("a.txt", &"a\n".repeat(1 << 20)).unwrap();
        assert!(documents.len() > 5);
        assert_eq!(documents.iter().map(|document| document.lines.len()).sum::<usize>(), 1 << 20);
    }

    #[test]
    fn a_row_of_parquet_is_a_document() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet/documents.parquet");
        let documents: Result<Vec<Document>> = Documents::new(vec![CorpusFile { path, bytes: 0 }]).collect();
        assert_eq!(documents.unwrap(), [document(1, &["One.", "Two.", "Three."]), document(3, &["Four."])]);
    }
}
