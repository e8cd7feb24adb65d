//! Models from the Hugging Face Hub by name: `owner/name`, `owner/name@revision`, or a bare `bert-base-uncased`.
//!
//! [`model_directory`] and [`tokenizer_directory`] resolve what a user wrote to a directory: an existing path is
//! returned unchanged, and a name is fetched. Files are stored in the cache of Python's `huggingface_hub`, so neither
//! downloads what the other already has. Only the files that a model needs are downloaded.
//!
//! The modules, in the order of a download: `name` parses names, `environment` holds the settings, `client` sends
//! requests to the Hub, `snapshot` represents one commit of one model, `cache` manages the cache directory, `transfer`
//! downloads a file, and `files` determines which files a model needs.
//!
//! Downloading requires the cargo feature `hub`. Without it, names lead to an error that says so.

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

pub use crate::error::HubProblem;
use crate::error::Result;

/// Returns the directory of a model: `name` itself if it is an existing path, otherwise its directory in the Hub's
/// cache, after downloading any missing files.
///
/// A path that does not exist and cannot be a Hub name is returned unchanged, so that opening it reports the error.
///
/// # Errors
/// [`Error::Hub`](crate::Error::Hub) if the model cannot be obtained, [`Error::Io`](crate::Error::Io) if the cache
/// cannot be written.
pub fn model_directory(name: impl AsRef<Path>) -> Result<PathBuf> {
    match HubName::of_path(name.as_ref())? {
        None => Ok(name.as_ref().into()),
        #[cfg(feature = "hub")]
        Some(name) => Hub::from_env()?.model(&name),
        #[cfg(not(feature = "hub"))]
        Some(name) => Err(not_built(&name)),
    }
}

/// Like [`model_directory`], but for a tokenizer alone: no weights are downloaded.
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
    let expected = "a model directory; loading from the Hugging Face Hub requires a build of bert-model with the cargo \
                    feature `hub`";
    name.error(HubProblem::NotBuilt, "no such directory", expected)
}
