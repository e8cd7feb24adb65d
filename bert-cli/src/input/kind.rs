//! Determines the format of a file from its name. No other module inspects extensions, except to say how a file that
//! cannot be read could be converted ([`super::source`]).

use std::path::Path;

use bert_model::Error;
use clap::ValueEnum;

/// A file format. Formats of texts and tables are the values of `--input-format`.
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
    /// `.parquet`: columns with built-in compression.
    Parquet,
    /// `.json`: one JSON value.
    #[value(skip)]
    Json,
    /// `.conllu`: CoNLL-U. Other CoNLL files may have any name.
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
    /// The format; `None` if the extension is unknown.
    pub format: Option<Format>,
    /// The compression; `None` if the file is not compressed.
    pub compression: Option<Compression>,
}

impl FileKind {
    /// Determines the format and compression from the extensions, ignoring case; `.gz` or `.zst` follows the extension
    /// of the format.
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
        let found = if found.is_empty() { "no extension".into() } else { format!("the extension `{found}`") };
        Error::file(path, found, expected)
    }
}

impl Format {
    /// Whether rows have named columns.
    pub fn has_columns(self) -> bool {
        matches!(self, Self::Tsv | Self::Csv | Self::JsonLines | Self::Parquet)
    }

    /// Whether every row is an object whose keys are the column names.
    pub fn has_objects(self) -> bool {
        matches!(self, Self::JsonLines | Self::Parquet)
    }

    /// Whether the first line may contain the column names.
    pub fn has_header(self) -> bool {
        matches!(self, Self::Tsv | Self::Csv)
    }

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
        for (name, found) in [
            ("a.PDF", "the extension `pdf`"),
            ("a.pdf.gz", "the extension `pdf.gz`"),
            ("a.gz", "the extension `gz`"),
            ("a", "no extension"),
        ] {
            let message = FileKind::error(Path::new(name), "`.txt`").to_string();
            assert_eq!(message, format!("{name}: found {found}, expected `.txt`"));
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
