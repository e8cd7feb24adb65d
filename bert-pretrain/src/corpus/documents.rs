//! Groups lines into documents. In text, documents are separated by empty lines; in `.jsonl`, each line is a document;
//! in `.parquet`, each row.
//!
//! The next-sentence task draws consecutive sentences from a document, so unrelated texts must never be joined. The end
//! of a file also ends a document. In hard-wrapped text, an empty line only ends a paragraph, and a document is a whole
//! file (or a line of `.jsonl`).

use std::iter::Enumerate;
use std::path::Path;
use std::vec::IntoIter;

use bert_cli::input::kind::{FileKind, Format};
use bert_cli::input::parquet::Parquet;
use bert_cli::input::source::Input;
use bert_cli::lines::LineReader;
use bert_model::Result;

use super::files::CorpusFile;
use super::is_blank;
use super::records::{RecordText, Records};
use super::wrapped::{Wrapping, join};

/// Maximum size of a document, in bytes; a longer one is split at the next line. The few examples that would span the
/// split are lost, but memory stays bounded even for a file without empty lines. The size includes Rust's overhead per
/// line.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Consecutive lines of text that form a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The paragraphs or sentences, none of them blank; for hard-wrapped text, joined paragraphs.
    pub lines: Vec<String>,
    /// Index of the document's file in [`Corpus::files`](super::Corpus::files).
    pub file: usize,
    /// Number of the document's first line in that file, from 1.
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

/// Whether the text of a file is hard-wrapped, judging by its first lines; see [`Wrapping`] for the rule. False for a
/// file that cannot be read; reading it later reports the error.
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

/// A source of lines. Both kinds return `None` at the end of a document and continue with the next one when called
/// again.
enum Source {
    Text(LineReader),
    Records(Records, RecordText),
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
            // Continues a document that was split because of its size.
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
        let records = match FileKind::of(path).format {
            Some(Format::JsonLines) => Records::Json(LineReader::open(path)?),
            Some(Format::Parquet) => {
                Records::Parquet(Parquet::open(&Input::new(path))?.rows(&["text".to_string()])?, 0)
            }
            _ => return Ok(Self::Text(LineReader::open(path)?)),
        };
        Ok(Self::Records(records, RecordText::default()))
    }

    /// Advances to the start of the next whole document: a line of `.jsonl`, or the text file itself. `None` at the end
    /// of the file.
    fn start(&mut self) -> Result<Option<()>> {
        match self {
            Self::Text(reader) => Ok((reader.number() == 0).then_some(())),
            Self::Records(reader, record) => {
                let text = reader.next_text()?;
                let found = text.is_some().then_some(());
                *record = RecordText::new(text.unwrap_or_default());
                Ok(found)
            }
        }
    }

    /// The next line of a whole document, which may be blank.
    fn raw_line(&mut self) -> Result<Option<&str>> {
        match self {
            Self::Text(reader) => reader.next_line(),
            Self::Records(_, record) => Ok(record.raw_line().and_then(|line| line.lines().next().or(Some("")))),
        }
    }

    /// The next paragraph of a hard-wrapped document, joined into one line, and the number of its first line.
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
        match self {
            Self::Text(reader) => reader.number(),
            Self::Records(records, _) => records.number(),
        }
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
            Self::Records(reader, record) => loop {
                if let Some(line) = record.next_line() {
                    return Ok(Some((line.to_string(), reader.number())));
                }
                match reader.next_text()? {
                    Some(text) => *record = RecordText::new(text),
                    None => return Ok(None),
                }
            },
        }
    }

    /// The next line of the current document.
    fn following_line(&mut self) -> Result<Option<String>> {
        let line = match self {
            Self::Text(reader) => reader.next_line()?.filter(|line| !is_blank(line)),
            Self::Records(_, record) => record.next_line(),
        };
        Ok(line.map(str::to_string))
    }
}

/// Approximate memory use of a line, in bytes.
fn size(line: &str) -> usize {
    line.len() + size_of::<String>()
}

#[cfg(test)]
mod tests;
