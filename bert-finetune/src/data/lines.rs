//! Lines of UTF-8 text, numbered from 1: the layer under every line-based format here.
//!
//! A byte-order mark at the start is dropped, and lines may end in LF or CRLF. Text that is not UTF-8 is refused, with
//! its line and the command that converts it, because a guessed encoding would silently give other words. One line is
//! held at a time, so that a file may be larger than memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    str,
    sync::Arc,
};

use bert_model::{Error, Result};

/// One line without its ending; `number` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    pub text: String,
}

/// The lines of a file or of the standard input.
pub struct Lines {
    path: Arc<Path>,
    reader: Box<dyn BufRead + Send>,
    number: u64,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such file or it may not be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        Ok(Self::new(path, BufReader::new(file)))
    }

    /// The standard input; messages call it `<stdin>`.
    pub fn stdin() -> Self {
        Self::new(Path::new("<stdin>"), BufReader::new(io::stdin()))
    }

    /// Any reader; `path` is its name in messages.
    pub fn new(path: &Path, reader: impl BufRead + Send + 'static) -> Self {
        Self { path: path.into(), reader: Box::new(reader), number: 0 }
    }

    /// The file's name, for messages; cheap to clone.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// The next line's bytes without their ending, or `None` at the end of the file.
    fn next_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes).map_err(Error::io(&self.path, "read"))?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        Ok((read > 0).then_some(bytes))
    }

    fn decode(&self, bytes: Vec<u8>) -> Result<String> {
        let mut text = String::from_utf8(bytes).map_err(|error| self.not_utf8(error.as_bytes(), error.utf8_error()))?;
        if self.number == 1 && text.starts_with('\u{feff}') {
            text.remove(0);
        }
        Ok(text)
    }

    fn not_utf8(&self, bytes: &[u8], error: str::Utf8Error) -> Error {
        let column = error.valid_up_to();
        let utf16 = self.number == 1 && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff"));
        let (found, encoding) = match utf16 {
            true => ("UTF-16".to_string(), "utf-16"),
            false => (
                format!("byte 0x{:02X} (byte {} of the line), which is not UTF-8", bytes[column], column + 1),
                "latin1",
            ),
        };
        let expected =
            format!("UTF-8; if the file is {encoding}, convert it: `iconv -f {encoding} -t utf-8 OLD > NEW`");
        Error::line(&self.path, self.number, found, expected)
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = match self.next_bytes() {
            Ok(bytes) => bytes?,
            Err(error) => return Some(Err(error)),
        };
        self.number += 1;
        Some(self.decode(bytes).map(|text| Line { number: self.number, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<Result<Line>> {
        Lines::new(Path::new("x.txt"), bytes).collect()
    }

    fn texts(bytes: &'static [u8]) -> Vec<String> {
        lines(bytes).into_iter().map(|line| line.unwrap().text).collect()
    }

    #[test]
    fn endings_and_byte_order_mark() {
        assert_eq!(texts(b"\xef\xbb\xbfone\r\ntwo\n\nlast"), ["one", "two", "", "last"]);
        assert_eq!(texts(b"only\n"), ["only"]);
        assert!(texts(b"").is_empty());
    }

    #[test]
    fn other_encodings_are_refused_with_line_and_advice() {
        let latin1 = lines(b"good\ncaf\xe9 au lait\n").pop().unwrap().unwrap_err().to_string();
        assert!(latin1.starts_with("x.txt:2: found byte 0xE9 (byte 4 of the line)"), "{latin1}");
        assert!(latin1.contains("iconv -f latin1"), "{latin1}");
        let utf16 = lines(b"\xff\xfea\0b\0").pop().unwrap().unwrap_err().to_string();
        assert!(utf16.starts_with("x.txt:1: found UTF-16") && utf16.contains("iconv -f utf-16"), "{utf16}");
    }
}
