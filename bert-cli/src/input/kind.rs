//! Determines the format of a file from its name. No other module inspects extensions.

use std::fmt;
use std::path::{Path, PathBuf};

use bert_model::{Error, Result};
use clap::ValueEnum;

use super::keep::{Keep, KeptRows, keep};
use super::parquet::Parquet;
use crate::lines::{Lines, STDIN};

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

    #[test]
    fn texts_may_come_in_five_formats() {
        let names: Vec<String> = Format::value_variants()
            .iter()
            .filter_map(|format| Some(format.to_possible_value()?.get_name().to_string()))
            .collect();
        assert_eq!(names, ["txt", "tsv", "csv", "jsonl", "parquet"]);
    }
}
