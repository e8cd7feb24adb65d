//! Reads the lines of a text file, plain or compressed, one at a time with bounded memory.
//!
//! Input that is not text is rejected with its line number: UTF-16, bytes that are not UTF-8, truncated compressed
//! data, an overlong line, a Git LFS pointer. A byte order mark and carriage returns at line ends are dropped; in a file
//! without newlines but perhaps the last, carriage returns end the lines (classic Mac OS).

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bert_model::file::refuse_pointer;
use bert_model::{Error, Result};
use flate2::bufread::MultiGzDecoder;

use crate::binary::binary_data;
use crate::input::kind::{Compression, FileKind, Format};

/// The name of standard input in messages.
pub const STDIN: &str = "<stdin>";

/// Maximum length of a line, in bytes, so that memory use does not depend on the corpus.
pub const MAX_LINE_BYTES: usize = 16 << 20;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Reads a file line by line.
pub struct LineReader {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    number: u64,
}

impl LineReader {
    /// Opens a file, decompressing `.gz` and `.zst`.
    ///
    /// # Errors
    /// If the file does not exist or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::new(path, open(path)?))
    }

    /// Reads standard input, called [`STDIN`] in messages.
    pub fn stdin() -> Self {
        Self::new(Path::new(STDIN), Box::new(BufReader::new(io::stdin())))
    }

    /// Reads any text; `path` is its name in messages.
    pub fn new(path: &Path, input: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.to_path_buf(), input, buffer: Vec::new(), number: 0 }
    }

    /// The name of the file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last line read, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// An error about the last line read.
    pub fn error(&self, found: impl Into<String>, expected: &str) -> Error {
        Error::line(&self.path, self.number, found, expected)
    }

    /// The next line without its line ending; `None` at the end of the file.
    ///
    /// # Errors
    /// If the line cannot be read, is too long, or is not UTF-8.
    pub fn next_line(&mut self) -> Result<Option<&str>> {
        self.number += 1;
        if !self.fill_buffer()? {
            return Ok(None);
        }
        if self.number == 1 {
            refuse_pointer(&self.path, &self.buffer)?;
            if self.has_old_mac_line_ends() {
                let start = io::Cursor::new(std::mem::take(&mut self.buffer));
                let rest = std::mem::replace(&mut self.input, Box::new(io::empty()));
                let text = WithNewlines { text: start.chain(rest), after_return: false };
                self.input = Box::new(BufReader::new(text));
                self.fill_buffer()?;
            }
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE_BYTES {
            return Err(self.too_long());
        }
        let mut dropped = 0;
        if self.number == 1 {
            if UTF16_MARKS.iter().any(|mark| line.starts_with(mark)) {
                return Err(self.utf16());
            }
            dropped = if line.starts_with(UTF8_MARK) { UTF8_MARK.len() } else { 0 };
        }
        match std::str::from_utf8(&line[dropped..]) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let offset = dropped + error.valid_up_to();
                let next = self.input.fill_buf().unwrap_or_default();
                let is_stdin = self.path == Path::new(STDIN);
                let binary = binary_data(self.number == 1, is_stdin, &self.buffer, next);
                Err(binary.map_or_else(|| self.not_utf8(offset), |found| self.error(found, "a text file in UTF-8")))
            }
        }
    }

    /// Whether carriage returns end the lines of a file, given what comes before its first newline: several of them, or one
    /// and no other line follows.
    fn has_old_mac_line_ends(&mut self) -> bool {
        let first = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let first = first.strip_suffix(b"\r").unwrap_or(first);
        match first.iter().filter(|&&byte| byte == b'\r').count() {
            0 => false,
            1 if self.buffer.ends_with(b"\n") => self.input.fill_buf().is_ok_and(<[u8]>::is_empty),
            _ => true,
        }
    }

    /// Reads through the next line ending, but at most two bytes more than a line may have. Returns
    /// false at the end of the file.
    fn fill_buffer(&mut self) -> Result<bool> {
        self.buffer.clear();
        let with_line_end = MAX_LINE_BYTES as u64 + 2;
        match self.input.by_ref().take(with_line_end).read_until(b'\n', &mut self.buffer) {
            Ok(bytes) => Ok(bytes > 0),
            Err(error) => Err(unreadable(&self.path, Some(self.number), error)),
        }
    }

    fn too_long(&self) -> Error {
        let expected = "lines of at most 16 MiB: put one paragraph per line (in .jsonl, one document per line)";
        self.error("a line of over 16 MiB", expected)
    }

    fn utf16(&self) -> Error {
        let expected = "UTF-8: convert the file, for instance with `iconv -f utf-16 -t utf-8`";
        self.error("a UTF-16 byte order mark", expected)
    }

    /// The error for a byte that is not UTF-8; `offset` is in bytes from the start of the line.
    fn not_utf8(&self, offset: usize) -> Error {
        let byte = self.buffer.get(offset).copied().unwrap_or_default();
        let found = format!("byte 0x{byte:02x} at offset {offset} of the line, which is not UTF-8");
        self.error(found, "UTF-8: convert the file, for instance with `iconv -f latin1 -t utf-8`")
    }
}

/// Converts carriage returns, and those with a newline, to newlines.
struct WithNewlines<R> {
    text: R,
    after_return: bool,
}

impl<R: Read> Read for WithNewlines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (read, mut kept) = (self.text.read(buffer)?, 0);
            for at in 0..read {
                let byte = buffer[at];
                if byte != b'\n' || !self.after_return {
                    buffer[kept] = if byte == b'\r' { b'\n' } else { byte };
                    kept += 1;
                }
                self.after_return = byte == b'\r';
            }
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}

/// One line without its line ending; `number` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line number, from 1.
    pub number: u64,
    /// The line without its ending.
    pub text: String,
}

/// An iterator over the lines of a file or of standard input.
pub struct Lines {
    source: Source,
    path: Arc<Path>,
    /// A line that was peeked at but not yet returned.
    next: Option<Result<Line>>,
}

enum Source {
    Text(LineReader),
    /// The rows of a table, each formatted as a line.
    Rows(Box<dyn Iterator<Item = Result<Line>> + Send>),
}

impl Lines {
    /// Opens a file, decompressing `.gz` and `.zst`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file does not exist or cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::new(LineReader::open(path)?))
    }

    /// Reads standard input.
    pub fn stdin() -> Self {
        Self::new(LineReader::stdin())
    }

    fn new(reader: LineReader) -> Self {
        Self { path: reader.path().into(), source: Source::Text(reader), next: None }
    }

    /// Iterates over the rows of a binary table, each formatted as a line; `path` is its name in messages.
    pub fn of_rows(path: Arc<Path>, rows: impl Iterator<Item = Result<Line>> + Send + 'static) -> Self {
        Self { path, source: Source::Rows(Box::new(rows)), next: None }
    }

    /// Iterates over the lines of a text in memory, called `x` in messages.
    pub fn of(text: &'static str) -> Self {
        Self::new(LineReader::new(Path::new("x"), Box::new(text.as_bytes())))
    }

    /// The name of the file, for messages; cheap to clone.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Guesses the format of a table from its first line: JSON lines begin with a brace, and TSV fields are separated
    /// by tabs. Returns `None` if neither applies.
    pub fn sniff(&mut self) -> Option<Format> {
        if self.next.is_none() {
            self.next = self.read();
        }
        match &self.next {
            Some(Ok(line)) if line.text.trim_start().starts_with('{') => Some(Format::JsonLines),
            Some(Ok(line)) if line.text.contains('\t') => Some(Format::Tsv),
            _ => None,
        }
    }

    fn read(&mut self) -> Option<Result<Line>> {
        match &mut self.source {
            Source::Text(reader) => {
                let text = reader.next_line().map(|line| line.map(str::to_string)).transpose()?;
                Some(text.map(|text| Line { number: reader.number(), text }))
            }
            Source::Rows(rows) => rows.next(),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next.take().or_else(|| self.read())
    }
}

/// Reads a whole file, decompressing `.gz` and `.zst`, or standard input if the path is `-`.
///
/// # Errors
/// If the file cannot be read, or its compressed data is damaged.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path == Path::new("-") {
        true => io::stdin().read_to_end(&mut bytes).map_err(Error::io(STDIN, "read"))?,
        false => open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable(path, None, error))?,
    };
    refuse_pointer(path, &bytes)?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path, "open"))?);
    let compression = FileKind::of(path).compression;
    if compression.is_some() {
        refuse_pointer(path, file.fill_buf().map_err(Error::io(path, "read"))?)?;
    }
    Ok(match compression {
        None => Box::new(file),
        Some(Compression::Gzip) => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        Some(Compression::Zstandard) => {
            let mut decoder = zstd::Decoder::with_buffer(file).map_err(Error::io(path, "read"))?;
            // As written by `zstd --long=31`.
            decoder.window_log_max(31).map_err(Error::io(path, "read"))?;
            Box::new(BufReader::new(decoder))
        }
    })
}

/// Classifies a read error: I/O failure of a plain file, or damage to a compressed one.
fn unreadable(path: &Path, line: Option<u64>, error: io::Error) -> Error {
    if FileKind::of(path).compression.is_none() {
        return Error::io(path, "read")(error);
    }
    let found = match error.kind() {
        ErrorKind::UnexpectedEof => "an unexpected end of file within compressed data".to_string(),
        _ => format!("data that cannot be decompressed ({error})"),
    };
    let expected = "a complete .gz or .zst file: copy or compress it again";
    match line {
        Some(line) => Error::line(path, line, found, expected),
        None => Error::file(path, found, expected),
    }
}

#[cfg(test)]
mod tests;
