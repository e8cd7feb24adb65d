//! Models by their names on the Hugging Face Hub: `owner/name`, `owner/name@revision`, or a bare `bert-base-uncased`.
//!
//! [`model_directory`] and [`tokenizer_directory`] stand before everything that opens a directory: a path that exists
//! is taken as it is, a name is fetched. Files go to the cache that Python's `huggingface_hub` keeps and are taken from
//! there, so that neither fetches what the other has. Only the files that a model needs are fetched.
//!
//! In the order of a fetch: `name` is what a user writes, `environment` where to fetch from and to, `client` asks the
//! Hub, `snapshot` is one commit of one model, `cache` is where its files lie, `transfer` brings a file, and `files`
//! says which ones a model needs.
//!
//! Fetching needs the cargo feature `hub`; without it a name is an error that says so.

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod files;
mod name;
#[cfg(feature = "hub")]
mod response;
#[cfg(feature = "hub")]
mod snapshot;
#[cfg(feature = "hub")]
mod transfer;

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
pub use environment::{Download, Hub};
pub use name::HubName;

use crate::error::Result;

/// Why a model could not be had from the Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubProblem {
    /// The revision, or a file that the model names, could lead out of the cache.
    Name,
    /// This build lacks the cargo feature `hub`.
    NotBuilt,
    /// `HF_HUB_OFFLINE` is set, and the cache lacks the model.
    Offline,
    /// There is no answer from the Hub, and the cache lacks the model.
    Unreachable,
    /// The token is not valid, or there is none.
    Unauthorized,
    /// The model's terms must be accepted first, or the token may not read it.
    Forbidden,
    /// There is no such model.
    NoRepository,
    /// The model has no such branch, tag or commit.
    NoRevision,
    /// The model lacks a file that is needed.
    NoFile,
    /// The Hub asks to wait longer than is sensible.
    Busy,
    /// The Hub failed, again and again.
    Server,
    /// The answer is none of a Hub's.
    Protocol,
    /// What arrived is not the file: its size or its hash does not fit.
    Damaged,
}

/// The directory of a model: `name` itself if there is such a path, else its files from the Hub's cache, fetched where
/// they are not there yet.
///
/// A path that neither exists nor can be a Hub name is returned as it is: whoever opens it says what is wrong.
///
/// # Errors
/// [`Error::Hub`](crate::Error::Hub) if the model cannot be had, [`Error::Io`](crate::Error::Io) if the cache cannot be
/// written.
pub fn model_directory(name: impl AsRef<Path>) -> Result<PathBuf> {
    match HubName::of_path(name.as_ref())? {
        None => Ok(name.as_ref().into()),
        #[cfg(feature = "hub")]
        Some(name) => Hub::from_env()?.model(&name),
        #[cfg(not(feature = "hub"))]
        Some(name) => Err(not_built(&name)),
    }
}

/// As [`model_directory`], for a tokenizer alone: no weights are fetched.
///
/// # Errors
/// As [`model_directory`].
pub fn tokenizer_directory(name: impl AsRef<Path>) -> Result<PathBuf> {
    match HubName::of_path(name.as_ref())? {
        None => Ok(name.as_ref().into()),
        #[cfg(feature = "hub")]
        Some(name) => Hub::from_env()?.tokenizer(&name),
        #[cfg(not(feature = "hub"))]
        Some(name) => Err(not_built(&name)),
    }
}

#[cfg(not(feature = "hub"))]
fn not_built(name: &HubName) -> crate::error::Error {
    let expected = "a model directory, or for a name on the Hugging Face Hub a build of bert-model with the cargo \
                    feature `hub`";
    name.error(HubProblem::NotBuilt, "no such directory", expected)
}
