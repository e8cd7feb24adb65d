//! Reads the lines of a text file, plain or compressed, one at a time with bounded memory.
//!
//! Input that is not text is refused with its line number: UTF-16, bytes that are not UTF-8,
//! truncated compressed data, an overlong line. A byte order mark and carriage returns at line ends
//! are dropped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bert_model::{Error, Result};
use flate2::bufread::MultiGzDecoder;

use crate::input::kind::{Compression, FileKind};

/// The longest line allowed, in bytes, so that memory use does not depend on the corpus.
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

    /// Reads standard input, called `<stdin>` in messages.
    pub fn stdin() -> Self {
        Self::new(Path::new("<stdin>"), Box::new(BufReader::new(io::stdin())))
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
            Err(error) => Err(self.not_utf8(dropped + error.valid_up_to())),
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
        self.error("the byte order mark of UTF-16", expected)
    }

    /// The error for a byte that is not UTF-8; `offset` is in bytes from the start of the line.
    fn not_utf8(&self, offset: usize) -> Error {
        let byte = self.buffer.get(offset).copied().unwrap_or_default();
        let found = format!("byte 0x{byte:02x} at offset {offset} of the line, which is not UTF-8");
        self.error(found, "UTF-8: convert the file, for instance with `iconv -f latin1 -t utf-8`")
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
}

enum Source {
    Text(LineReader),
    /// The rows of a table, each written as a line.
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
        Self { path: reader.path().into(), source: Source::Text(reader) }
    }

    /// The rows of a table that is no text, each written as a line; `path` is its name in messages.
    pub fn of_rows(path: Arc<Path>, rows: impl Iterator<Item = Result<Line>> + Send + 'static) -> Self {
        Self { path, source: Source::Rows(Box::new(rows)) }
    }

    /// The lines of a text in memory, called `x` in messages.
    pub fn of(text: &'static str) -> Self {
        Self::new(LineReader::new(Path::new("x"), Box::new(text.as_bytes())))
    }

    /// The name of the file, for messages; cheap to clone.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Text(reader) => {
                let text = reader.next_line().map(|line| line.map(str::to_string)).transpose()?;
                Some(text.map(|text| Line { number: reader.number(), text }))
            }
            Source::Rows(rows) => rows.next(),
        }
    }
}

/// Reads a whole file, decompressing `.gz` and `.zst`.
///
/// # Errors
/// If the file cannot be read, or its compressed data is damaged.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable(path, None, error))?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = BufReader::new(File::open(path).map_err(Error::io(path, "open"))?);
    Ok(match FileKind::of(path).compression {
        None => Box::new(file),
        Some(Compression::Gzip) => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        Some(Compression::Zstandard) => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(Error::io(path, "read"))?;
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
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write;

    /// The lines of a file of this name and content, or the message of the first error.
    fn lines(name: &str, content: &[u8]) -> std::result::Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut reader = LineReader::open(&path).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().map_err(|error| error.to_string())? {
            lines.push(line.to_string());
        }
        Ok(lines)
    }

    fn refusal(name: &str, content: &[u8]) -> String {
        lines(name, content).unwrap_err()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Incompressible lines, so that truncation hits data rather than the trailer.
    fn numbers() -> String {
        (0..50_000u32).map(|number| format!("{}\n", number.wrapping_mul(2_654_435_761))).collect()
    }

    #[test]
    fn marks_and_carriage_returns_are_dropped_and_nothing_else() {
        assert_eq!(lines("a.txt", b"\xef\xbb\xbfone\r\n two \0\n\r\nlast").unwrap(), ["one", " two \0", "", "last"]);
        assert_eq!(lines("a.txt", b"").unwrap(), [""; 0]);
    }

    #[test]
    fn compressed_files_read_as_plain_ones() {
        let text = numbers();
        let expected: Vec<&str> = text.lines().collect();
        assert_eq!(lines("a.txt.gz", &gzip(text.as_bytes())).unwrap(), expected);
        assert_eq!(lines("a.txt.zst", &zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_whole_file_is_read_decompressed_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json.gz");
        let text = numbers();
        std::fs::write(&path, gzip(text.as_bytes())).unwrap();
        assert_eq!(read_file(&path).unwrap(), text.as_bytes());
        std::fs::write(&path, &gzip(text.as_bytes())[..1000]).unwrap();
        let message = read_file(&path).unwrap_err().to_string();
        assert!(message.contains("a.json.gz: found an unexpected end of file within compressed data"), "{message}");
    }

    #[test]
    fn joined_gzip_files_are_read_to_the_end() {
        assert_eq!(lines("a.GZ", &[gzip(b"one\n"), gzip(b"two\n")].concat()).unwrap(), ["one", "two"]);
    }

    #[test]
    fn a_compressed_file_cut_short_names_the_line_reached() {
        let text = numbers();
        for (name, whole) in [("a.gz", gzip(text.as_bytes())), ("a.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())]
        {
            let message = refusal(name, &whole[..whole.len() / 2]);
            assert!(message.contains("an unexpected end of file within compressed data"), "{message}");
            let line: u64 = message.split(':').nth(1).unwrap().parse().unwrap();
            assert!((10_000..40_000).contains(&line), "{message}");
        }
    }

    #[test]
    fn what_is_not_compressed_is_not_taken_for_it() {
        assert!(refusal("a.gz", b"plain text\n").contains("a.gz:1: found data that cannot be decompressed"));
        assert!(refusal("a.zst", b"plain text\n").contains("a.zst:1: found data that cannot be decompressed"));
    }

    #[test]
    fn a_byte_that_is_not_utf_8_is_named_with_its_place() {
        let message = refusal("a.txt", b"good\ncaf\xe9 noir\n");
        assert!(message.contains("a.txt:2: found byte 0xe9 at offset 3 of the line"), "{message}");
        assert!(message.contains("iconv -f latin1"), "{message}");
        assert!(refusal("a.txt", b"\xef\xbb\xbfa\xff\n").contains("byte 0xff at offset 4"));
    }

    #[test]
    fn utf_16_is_named() {
        assert!(refusal("a.txt", b"\xff\xfea\0\n\0").contains("a.txt:1: found the byte order mark of UTF-16"));
        assert!(refusal("a.txt", b"\xfe\xff\0a\0\n").contains("iconv -f utf-16"));
    }

    #[test]
    fn a_line_may_have_16_mib_and_no_more() {
        let mut content = vec![b'a'; MAX_LINE_BYTES];
        content.extend_from_slice(b"\r\nb");
        assert_eq!(lines("a.txt", &content).unwrap()[1], "b");
        content.insert(0, b'a');
        assert!(refusal("a.txt", &content).contains("a.txt:1: found a line of over 16 MiB, expected lines of at most"));
    }

    #[test]
    fn a_line_without_end_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zeros.txt");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let mut reader = LineReader::open(&path).unwrap();
        assert!(reader.next_line().unwrap_err().to_string().contains("over 16 MiB"));
        assert!(reader.buffer.capacity() <= 4 * MAX_LINE_BYTES);
    }
}
