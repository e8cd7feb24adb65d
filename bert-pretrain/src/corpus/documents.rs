//! Groups lines into documents, separated by empty lines in text; in `.jsonl`, each line is one.
//!
//! The next-sentence task draws consecutive sentences from a document, so unrelated texts must
//! never be joined. The end of a file also ends a document. In hard-wrapped text an empty line ends
//! a paragraph only, and a document is a whole file (or a line of `.jsonl`).

use std::iter::Enumerate;
use std::path::Path;
use std::vec::IntoIter;

use bert_cli::input::kind::{FileKind, Format};
use bert_cli::lines::LineReader;
use bert_model::Result;
use serde_json::Value;

use super::files::CorpusFile;
use super::wrapped::{Wrapping, join};

/// A document longer than this, in bytes, is split at the next line. The few examples that would
/// span the split are lost, but memory stays bounded even for a file without empty lines. The size
/// includes Rust's overhead per line.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Consecutive lines of text that form a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Paragraphs or sentences, none of them blank; of hard-wrapped text, joined paragraphs.
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
            self.current = Some(FileDocuments::open(index, &file)?);
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

/// Whether the text of a file is hard-wrapped; see [`Wrapping`] for the rule. Looks at the first lines only. What cannot
/// be read is not, and fails when it is read.
pub(super) fn is_wrapped(path: &Path) -> bool {
    let mut wrapping = Wrapping::default();
    let mut look = || -> Result<()> {
        let mut source = Source::open(path)?;
        while source.start()?.is_some() {
            wrapping.end_paragraph();
            while let Some(line) = source.raw_line()? {
                if !wrapping.add(line) {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let _ = look();
    wrapping.is_wrapped()
}

/// Reads the documents of one file.
struct FileDocuments {
    file: usize,
    source: Source,
    is_wrapped: bool,
}

/// Where lines come from. Both kinds return `None` at the end of a document and continue with the
/// next one when called again.
enum Source {
    Text(LineReader),
    Jsonl(LineReader, JsonlText),
}

impl FileDocuments {
    fn open(file: usize, CorpusFile { path, is_wrapped, .. }: &CorpusFile) -> Result<Self> {
        Ok(Self { file, source: Source::open(path)?, is_wrapped: *is_wrapped })
    }

    fn next_document(&mut self) -> Result<Option<Document>> {
        let Some((first, line)) = self.first_unit()? else { return Ok(None) };
        let mut bytes = size(&first);
        let mut lines = vec![first];
        while bytes < MAX_DOCUMENT_BYTES
            && let Some(next) = self.following_unit()?
        {
            bytes += size(&next);
            lines.push(next);
        }
        Ok(Some(Document { lines, file: self.file, line }))
    }

    /// The first line or paragraph of the next document, with its line number; `None` at the end of the file.
    fn first_unit(&mut self) -> Result<Option<(String, u64)>> {
        if !self.is_wrapped {
            return self.source.first_line();
        }
        loop {
            // A document that was split because of its size goes on.
            if let Some(found) = self.source.paragraph()? {
                return Ok(Some(found));
            }
            if self.source.start()?.is_none() {
                return Ok(None);
            }
        }
    }

    /// The next line or paragraph of the current document.
    fn following_unit(&mut self) -> Result<Option<String>> {
        match self.is_wrapped {
            true => Ok(self.source.paragraph()?.map(|(paragraph, _)| paragraph)),
            false => self.source.following_line(),
        }
    }
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let reader = LineReader::open(path)?;
        Ok(match FileKind::of(path).format {
            Some(Format::JsonLines) => Self::Jsonl(reader, JsonlText::default()),
            _ => Self::Text(reader),
        })
    }

    /// Goes to the start of the next whole document: a line of `.jsonl`, or the text file itself. `None` at the end of the
    /// file.
    fn start(&mut self) -> Result<Option<()>> {
        match self {
            Self::Text(reader) => Ok((reader.number() == 0).then_some(())),
            Self::Jsonl(reader, record) => {
                let text = read_record(reader)?;
                let found = text.is_some().then_some(());
                *record = JsonlText { text: text.unwrap_or_default(), position: 0 };
                Ok(found)
            }
        }
    }

    /// The next line of a whole document, which may be blank.
    fn raw_line(&mut self) -> Result<Option<&str>> {
        match self {
            Self::Text(reader) => reader.next_line(),
            Self::Jsonl(_, record) => Ok(record.raw_line().and_then(|line| line.lines().next().or(Some("")))),
        }
    }

    /// The next paragraph of a hard-wrapped document, joined to one line, and the number of its first line.
    fn paragraph(&mut self) -> Result<Option<(String, u64)>> {
        let (mut paragraph, mut number) = (String::new(), 0);
        while paragraph.len() < MAX_DOCUMENT_BYTES {
            let Some(line) = self.raw_line()?.map(str::to_string) else { break };
            match (is_blank(&line), paragraph.is_empty()) {
                (true, true) => {}
                (true, false) => break,
                (false, is_first) => {
                    join(&mut paragraph, &line);
                    number = if is_first { self.number() } else { number };
                }
            }
        }
        Ok((!paragraph.is_empty()).then_some((paragraph, number)))
    }

    /// The number of the last line read.
    fn number(&self) -> u64 {
        let (Self::Text(reader) | Self::Jsonl(reader, _)) = self;
        reader.number()
    }

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
        }
    }

    /// The next line of the current document.
    fn following_line(&mut self) -> Result<Option<String>> {
        let line = match self {
            Self::Text(reader) => reader.next_line()?.filter(|line| !is_blank(line)),
            Self::Jsonl(_, record) => record.next_line(),
        };
        Ok(line.map(str::to_string))
    }
}

/// The text of one line of `.jsonl`, and the position up to which it has been read.
#[derive(Default)]
struct JsonlText {
    text: String,
    position: usize,
}

impl JsonlText {
    /// The next line of the text with its line ending.
    fn raw_line(&mut self) -> Option<&str> {
        let line = self.text[self.position..].split_inclusive('\n').next()?;
        self.position += line.len();
        Some(line)
    }

    /// The next non-blank line of the text.
    fn next_line(&mut self) -> Option<&str> {
        loop {
            let start = self.position;
            let is_blank = is_blank(self.raw_line()?);
            if !is_blank {
                return self.text[start..self.position].lines().next();
            }
        }
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
mod tests;
