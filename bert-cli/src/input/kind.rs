//! What a file holds, told by its name: the only place that looks at extensions.

use std::fmt;
use std::path::{Path, PathBuf};

use bert_model::{Error, Result};
use clap::ValueEnum;

use crate::lines::Lines;

/// How a file is written; the values of `--input-format` are those that texts may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `.txt`: one text per line.
    #[value(name = "txt")]
    Text,
    /// `.tsv`: fields separated by tabs, without quoting.
    Tsv,
    /// `.csv`: RFC 4180.
    Csv,
    /// `.jsonl`: one JSON value per line.
    #[value(name = "jsonl")]
    JsonLines,
    /// `.parquet`: columns, compressed by themselves.
    Parquet,
    /// `.json`: one JSON value.
    #[value(skip)]
    Json,
    /// `.conllu`: CoNLL-U. Other CoNLL files have any name.
    #[value(skip)]
    ConllU,
    /// `.npy`: a NumPy array.
    #[value(skip)]
    Npy,
    /// `.safetensors`: named tensors.
    #[value(skip)]
    Safetensors,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstandard,
}

/// The format and compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// `None` if the extension is not a known one.
    pub format: Option<Format>,
    /// `None` if the file is not compressed.
    pub compression: Option<Compression>,
}

impl FileKind {
    /// Tells the kind by the extension, in upper or lower case; `.gz` and `.zst` stand after that of the format.
    ///
    /// ```
    /// use bert_cli::input::kind::{Compression, FileKind, Format};
    ///
    /// let kind = FileKind::of("reviews.csv.GZ".as_ref());
    /// assert_eq!((kind.format, kind.compression), (Some(Format::Csv), Some(Compression::Gzip)));
    /// ```
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (stem, compression) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, Some(Compression::Gzip)),
            Some((stem, "zst")) => (stem, Some(Compression::Zstandard)),
            _ => (&*name, None),
        };
        let format = stem.rsplit_once('.').and_then(|(_, extension)| Format::of(extension));
        Self { format, compression }
    }

    /// The error for a file whose extension is not one of the expected ones.
    pub fn error(path: &Path, expected: impl Into<String>) -> Error {
        let extension = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let mut found = extension(path);
        if Self::of(path).compression.is_some() {
            let inner = extension(Path::new(path.file_stem().unwrap_or_default()));
            found = if inner.is_empty() { found } else { format!("{inner}.{found}") };
        }
        Error::file(path, format!("the extension `{found}`"), expected)
    }
}

impl Format {
    fn of(extension: &str) -> Option<Self> {
        Some(match extension {
            "txt" => Self::Text,
            "tsv" => Self::Tsv,
            "csv" => Self::Csv,
            "jsonl" => Self::JsonLines,
            "parquet" => Self::Parquet,
            "json" => Self::Json,
            "conllu" => Self::ConllU,
            "npy" => Self::Npy,
            "safetensors" => Self::Safetensors,
            _ => return None,
        })
    }
}

/// A file of text, or the standard input, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// `-` is the standard input.
    pub path: PathBuf,
    /// `None` for the standard input unless it is named, and for a file with an unknown extension.
    pub format: Option<Format>,
}

impl Input {
    /// Takes the format from the file's name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { format: FileKind::of(&path).format, path }
    }

    /// Whether this is the standard input.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Opens it, decompressing on the way.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such file or it may not be read.
    pub fn lines(&self) -> Result<Lines> {
        if self.is_stdin() { Ok(Lines::stdin()) } else { Lines::open(&self.path) }
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
    fn the_kind_is_told_by_the_name_in_any_case() {
        for (name, format, compression) in [
            ("a.txt", Some(Format::Text), None),
            ("a.b.TSV", Some(Format::Tsv), None),
            ("a.csv.gz", Some(Format::Csv), Some(Compression::Gzip)),
            ("a.JsonL.ZST", Some(Format::JsonLines), Some(Compression::Zstandard)),
            ("a.json.gz", Some(Format::Json), Some(Compression::Gzip)),
            ("a.Parquet", Some(Format::Parquet), None),
            ("a.conllu", Some(Format::ConllU), None),
            ("a.conll", None, None),
            ("a.pdf.gz", None, Some(Compression::Gzip)),
            ("a.gz", None, Some(Compression::Gzip)),
            ("a.txt.gz.gz", None, Some(Compression::Gzip)),
            ("directory.txt/a", None, None),
            ("txt", None, None),
            ("-", None, None),
        ] {
            assert_eq!(FileKind::of(Path::new(name)), FileKind { format, compression }, "{name}");
        }
    }

    #[test]
    fn an_error_names_the_whole_extension() {
        for (name, found) in [("a.PDF", "`pdf`"), ("a.pdf.gz", "`pdf.gz`"), ("a.gz", "`gz`"), ("a", "``")] {
            let message = FileKind::error(Path::new(name), "`.txt`").to_string();
            assert_eq!(message, format!("{name}: found the extension {found}, expected `.txt`"));
        }
    }

    #[test]
    fn texts_may_come_in_five_formats() {
        let names: Vec<String> = Format::value_variants()
            .iter()
            .filter_map(|format| Some(format.to_possible_value()?.get_name().to_string()))
            .collect();
        assert_eq!(names, ["txt", "tsv", "csv", "jsonl", "parquet"]);
    }
}
