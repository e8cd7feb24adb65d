//! The crate's error type, with one variant for each kind of failure.
//!
//! A message names the place (file, line or tensor), what was found, what was expected and, where it is not obvious,
//! what to do. The programs print it as one line and map it to an exit code. Nothing in this crate panics on invalid
//! input.

use std::path::{Path, PathBuf};

/// A result with this crate's [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a file failed. The message includes the `source`.
    #[error("{}: cannot {action}: {}", path.display(), reason(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted, such as "read".
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },

    /// A line of a text file (numbered from 1) violates its format.
    #[error("{}:{line}: found {found}, expected {expected}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },

    /// A whole file is invalid or of the wrong kind.
    #[error("{}: found {found}, expected {expected}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },

    /// A configuration key has an invalid value or is unknown.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    Config {
        /// The file or type that the configuration comes from.
        origin: String,
        /// The key.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },

    /// A tensor in a weight file is missing, malformed, or not of the configured shape.
    #[error("{}: tensor `{tensor}`: found {found}, expected {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },

    /// The checkpoint lacks parameters of the model: it has a different head, or none that was trained.
    #[error(
        "{}: no tensor `{}`: the checkpoint has no trained head for this use",
        path.display(),
        tensors.join("`, `")
    )]
    MissingTensors {
        /// The file.
        path: PathBuf,
        /// The names of the missing tensors.
        tensors: Vec<String>,
    },

    /// A text exceeds the model's maximum length and must not be truncated.
    #[error("the text has {tokens} tokens, the model takes at most {limit}; shorten it")]
    TooLong {
        /// The length of the text.
        tokens: usize,
        /// The maximum length.
        limit: usize,
    },

    /// Two inputs that are used together do not match.
    #[error("{left} does not fit {right}: {advice}")]
    Mismatch {
        /// The first input.
        left: String,
        /// The second input.
        right: String,
        /// What to do.
        advice: String,
    },

    /// This build or this machine lacks the device.
    #[error("device `{name}`: {reason}")]
    Device {
        /// The name of the device.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },

    /// The device's backend is not compiled in.
    #[error("device `{feature}`: not in this build, which lacks the cargo feature `{feature}`")]
    NotBuilt {
        /// The cargo feature to enable.
        feature: &'static str,
    },

    /// A model could not be obtained from the Hugging Face Hub.
    #[error("{name}: found {found}, expected {expected}")]
    Hub {
        /// The name of the model as the user wrote it.
        name: String,
        /// The kind of failure.
        problem: HubProblem,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },

    /// Training produced a non-finite number.
    #[error(
        "step {step}: {what} is {value}; training stopped; the last checkpoint is kept. Try a lower learning rate or a longer warmup"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// The name of the number.
        what: &'static str,
        /// Its value.
        value: f64,
    },

    /// Another process of the run has failed, and says why itself.
    #[error("another process of this run has failed")]
    OtherRank {
        /// Its exit code.
        code: u8,
    },

    /// The command line is invalid: a value is out of range, an option is missing, or options conflict.
    #[error("{0}")]
    Usage(String),

    /// A setting is invalid, or an operation without a file of its own failed (tokenizing, starting threads,
    /// serializing); the message says which.
    #[error("{0}")]
    Setting(String),
}

/// Why a model could not be obtained from the Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubProblem {
    /// The revision, or a file name given by the model, could lead outside the cache.
    Name,
    /// This build lacks the cargo feature `hub`.
    NotBuilt,
    /// `HF_HUB_OFFLINE` is set, and the model is not cached.
    Offline,
    /// The Hub does not respond, and the model is not cached.
    Unreachable,
    /// The token is missing or invalid.
    Unauthorized,
    /// The model's terms have not been accepted, or the token does not grant access.
    Forbidden,
    /// The model does not exist.
    NoRepository,
    /// The model has no such branch, tag, or commit.
    NoRevision,
    /// The model lacks a required file.
    NoFile,
    /// The Hub rejects requests because there were too many.
    Busy,
    /// The Hub failed repeatedly.
    Server,
    /// The response is not that of a Hub.
    Protocol,
    /// The downloaded file has the wrong size or hash.
    Damaged,
}

impl Error {
    /// The exit code of a program that ends with this error: 2 for an invalid command line, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::OtherRank { code } => *code,
            _ => 1,
        }
    }

    /// For `map_err`: adds the path and the attempted action ("read", "write", "open", …) to an I/O error.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// An error about a line that violates its file's format; `line` counts from 1.
    pub fn line(path: impl AsRef<Path>, line: u64, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Line { path: path.as_ref().into(), line, found: found.into(), expected: expected.into() }
    }

    /// An error about a whole file.
    pub fn file(path: impl AsRef<Path>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().into(), found: found.into(), expected: expected.into() }
    }

    /// An error about a tensor that is missing, malformed, or of the wrong shape.
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

    /// An error about a configuration key with an invalid value.
    pub fn config(
        origin: impl Into<String>,
        key: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config { origin: origin.into(), key: key.into(), found: found.into(), expected: expected.into() }
    }
}

/// The operating system's message, without the error number.
fn reason(source: &std::io::Error) -> String {
    let text = source.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
