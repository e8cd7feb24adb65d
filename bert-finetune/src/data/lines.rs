//! Lines of text with their numbers, owned: the layer under every line-based format here.
//!
//! What is refused, and how, [`LineReader`] says; one line is held at a time, so that a file may be larger than memory.

use std::path::Path;
use std::sync::Arc;

use bert_model::Result;
use bert_pretrain::lines::LineReader;

/// One line without its ending; `number` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    pub text: String,
}

/// The lines of a file or of the standard input.
pub struct Lines {
    reader: LineReader,
    path: Arc<Path>,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// [`bert_model::Error::Io`] if there is no such file or it may not be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::new(LineReader::open(path)?))
    }

    /// The standard input.
    pub fn stdin() -> Self {
        Self::new(LineReader::stdin())
    }

    fn new(reader: LineReader) -> Self {
        Self { path: reader.path().into(), reader }
    }

    /// Lines of a text in memory.
    #[cfg(test)]
    pub fn of(text: &'static str) -> Self {
        Self::new(LineReader::new(Path::new("x"), Box::new(text.as_bytes())))
    }

    /// The file's name, for messages; cheap to clone.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.reader.next_line().map(|line| line.map(str::to_string)).transpose()?;
        Some(text.map(|text| Line { number: self.reader.number(), text }))
    }
}
