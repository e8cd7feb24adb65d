//! A text file or standard input, and how to read it.

use std::fmt;
use std::path::{Path, PathBuf};

use bert_model::{Error, Result};

use super::keep::{Keep, KeptRows, keep};
use super::kind::{FileKind, Format};
use super::parquet::Parquet;
use crate::lines::{Lines, STDIN};

/// How to convert files that contain neither lines of text nor a table, by extension.
const CONVERSIONS: [(&[&str], &str); 4] = [
    (&["conll", "conllu", "bio", "iob", "iob2"], "words with tags are for `--task tagging`"),
    (
        &["json"],
        "convert a list of objects to `.jsonl` with `jq -c '.[]' FILE`; SQuAD's JSON is for \
         `--task question-answering`",
    ),
    (&["xlsx", "xls", "ods"], "save the sheet as `.csv`"),
    (&["pdf", "doc", "docx", "odt", "html"], "save it as plain text"),
];

/// A text file or standard input, and how to read it.
#[derive(Debug, Clone)]
pub struct Input {
    /// The path; `-` is standard input.
    pub path: PathBuf,
    /// The format. `None` for a file with an unknown extension, and for standard input unless a format was given.
    pub format: Option<Format>,
    /// Receives the number of each row and the columns to keep.
    pub keep: Option<Keep>,
}

impl Input {
    /// Creates an input whose format is determined by the file's name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { format: FileKind::of(&path).format, path, keep: None }
    }

    /// Replaces the format if one is given, regardless of the file's name.
    pub fn in_format(self, format: Option<Format>) -> Self {
        Self { format: format.or(self.format), ..self }
    }

    /// Keeps these columns; also returns the receiver of row numbers and kept cells.
    pub fn keeping(self, columns: Vec<String>) -> (Self, KeptRows) {
        let (keep, rows) = keep(columns);
        (Self { keep: Some(keep), ..self }, rows)
    }

    /// The name to show in messages.
    pub fn name(&self) -> PathBuf {
        if self.is_stdin() { STDIN.into() } else { self.path.clone() }
    }

    /// The format if columns can be named, or `None` for lines of text. A `.txt` file may be a table if its first line
    /// contains tabs.
    pub fn table_format(&self) -> Option<Format> {
        match self.format? {
            Format::Text if FileKind::of(&self.path).format == Some(Format::Text) && self.is_regular_file() => {
                self.lines().ok()?.sniff()
            }
            format => Some(format).filter(|format| format.has_columns()),
        }
    }

    /// Whether this is a file that ends and never pauses, as opposed to a pipe or a terminal.
    pub fn is_regular_file(&self) -> bool {
        let path = if self.is_stdin() { Path::new("/dev/stdin") } else { &self.path };
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
    }

    /// The error for a format that cannot be read here, suggesting how to convert it.
    pub fn error(&self, expected: &str) -> Error {
        if self.is_stdin() {
            return Error::file(STDIN, "an unknown format", format!("{expected}; specify it with --input-format"));
        }
        match self.conversion() {
            Some(advice) => FileKind::error(&self.path, format!("{expected}; {advice}")),
            None => FileKind::error(&self.path, expected),
        }
    }

    /// How to convert a file that is known to contain neither lines of text nor a table.
    pub fn conversion(&self) -> Option<&'static str> {
        let name = self.path.to_string_lossy().to_lowercase();
        let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
        let (_, extension) = name.rsplit_once('.')?;
        CONVERSIONS.iter().find(|(extensions, _)| extensions.contains(&extension)).map(|(_, advice)| *advice)
    }

    /// Whether this is standard input.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Opens the input for reading, decompressing it if necessary.
    ///
    /// # Errors
    /// [`Error::Io`] if the file does not exist or cannot be read.
    pub fn lines(&self) -> Result<Lines> {
        match self.format {
            Some(Format::Parquet) => Parquet::open(self)?.lines(),
            _ if self.is_stdin() => Ok(Lines::stdin()),
            _ => Lines::open(&self.path),
        }
    }
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Self {
        Self::new(path)
    }
}

impl From<&PathBuf> for Input {
    fn from(path: &PathBuf) -> Self {
        Self::new(path)
    }
}

impl From<&Input> for Input {
    fn from(input: &Input) -> Self {
        input.clone()
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_how_to_convert_what_is_known() {
        for (name, advice) in [
            ("a.conll", "--task tagging"),
            ("a.conllu.gz", "--task tagging"),
            ("a.json", "jq -c"),
            ("a.XLSX", ".csv"),
            ("a.pdf", "plain text"),
        ] {
            let message = Input::new(name).error("`.txt`").to_string();
            assert!(message.contains("expected `.txt`; ") && message.contains(advice), "{message}");
        }
        assert!(Input::new("a.train").error("`.txt`").to_string().ends_with("expected `.txt`"));
        assert!(Input::new("-").error("`.txt`").to_string().ends_with("specify it with --input-format"));
    }
}
