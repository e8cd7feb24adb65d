//! Everything that can go wrong, one variant for each thing that can be wrong.
//!
//! A message names the place (file, line or tensor), what was found, what was expected and, where it is not obvious,
//! what to do. The programs print it as one line and turn it into an exit code; nothing in this crate panics on
//! bad input.

use std::path::{Path, PathBuf};

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: cannot {action}: {}", path.display(), reason(source))]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },

    /// A line of a text file (1-based) is not what its format asks for.
    #[error("{}:{line}: found {found}, expected {expected}", path.display())]
    Line { path: PathBuf, line: u64, found: String, expected: String },

    /// A whole file is not what it is taken for.
    #[error("{}: found {found}, expected {expected}", path.display())]
    File { path: PathBuf, found: String, expected: String },

    /// A key of a configuration has a value that BERT cannot have, or that does not exist.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    Config { origin: String, key: String, found: String, expected: String },

    /// A tensor of a weight file is missing, malformed, or of another shape than the configuration says.
    #[error("{}: tensor `{tensor}`: found {found}, expected {expected}", path.display())]
    Tensor { path: PathBuf, tensor: String, found: String, expected: String },

    /// Parameters of the model that the checkpoint lacks: it is for another head, which has to be trained first.
    #[error(
        "{}: no tensor `{}`: the checkpoint has no trained head for this use",
        path.display(),
        tensors.join("`, `")
    )]
    MissingTensors { path: PathBuf, tensors: Vec<String> },

    /// A text that has more tokens than the model reads, where it may not be truncated.
    #[error("the text has {tokens} tokens, the model takes at most {limit}; shorten it")]
    TooLong { tokens: usize, limit: usize },

    /// Two things that belong together do not fit.
    #[error("{left} does not fit {right}: {advice}")]
    Mismatch { left: String, right: String, advice: String },

    /// A device that this build or this machine lacks.
    #[error("device `{name}`: {reason}")]
    Device { name: String, reason: String },

    /// A device whose backend is not in this build.
    #[error("device `{feature}`: not in this build, which lacks the cargo feature `{feature}`")]
    NotBuilt { feature: &'static str },

    /// Training met a number that is not finite.
    #[error(
        "step {step}: {what} is {value}; training stopped, the last checkpoint is kept. Try a lower learning rate or a longer warmup"
    )]
    NotFinite { step: u64, what: &'static str, value: f64 },

    /// A command line that makes no sense: an option out of its range, one that is missing, two that exclude each other.
    #[error("{0}")]
    Usage(String),

    /// A setting that makes no sense, by itself or beside the others.
    #[error("{0}")]
    Setting(String),
}

impl Error {
    /// For `map_err`: wraps an I/O error with the path and what was being done ("read", "write", "open", …).
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// A line of a file that is not as its format asks; `line` counts from 1.
    pub fn line(path: impl AsRef<Path>, line: u64, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Line { path: path.as_ref().into(), line, found: found.into(), expected: expected.into() }
    }

    /// A file that is not what it is taken for.
    pub fn file(path: impl AsRef<Path>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().into(), found: found.into(), expected: expected.into() }
    }

    /// A tensor that is not as it should be.
    pub fn tensor(
        path: impl AsRef<Path>,
        tensor: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Tensor {
            path: path.as_ref().into(),
            tensor: tensor.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// A configuration key with an impossible value.
    pub fn config(
        origin: impl Into<String>,
        key: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config { origin: origin.into(), key: key.into(), found: found.into(), expected: expected.into() }
    }
}

/// What the system said, without its error number.
fn reason(source: &std::io::Error) -> String {
    let text = source.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
