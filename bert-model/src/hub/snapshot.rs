//! One commit of one model, whose files come from the cache or the Hub.
//!
//! A branch is resolved once, with the first file. All further files come from the commit that it pointed to, so a
//! model never mixes two versions, and cached information about the commit needs no further requests.

use std::path::PathBuf;

use super::cache::{Cache, is_inside};
use super::client::{Client, Lookup, Metadata, RETRIES};
use super::environment::Hub;
use super::{HubName, HubProblem, transfer};
use crate::error::{Error, Result};

pub(super) struct Snapshot<'a> {
    client: Client<'a>,
    cache: Cache,
    commit: String,
    connection: Connection,
    /// Metadata of the file that was used to resolve the commit.
    known: Option<(String, Metadata)>,
}

/// Whether the Hub responds.
enum Connection {
    Unknown,
    Answered,
    /// Only the cache is used, because of this error.
    Offline(Error),
}

impl<'a> Snapshot<'a> {
    /// Resolves the revision to a commit by looking up `file`, unless the revision is a commit itself. If the Hub does
    /// not respond, uses the commit in the cache.
    ///
    /// # Errors
    /// [`Error::Hub`] if the model or revision does not exist, or neither the Hub nor the cache can resolve it.
    pub fn open(hub: &'a Hub, name: &'a HubName, file: &str) -> Result<Self> {
        let (client, cache) = (Client::new(hub, name)?, Cache::new(hub, name));
        let revision = name.revision();
        let offline = || {
            let found = "no such directory, and no complete copy of such a model in the cache (HF_HUB_OFFLINE is set)";
            name.error(HubProblem::Offline, found, whole(hub))
        };
        let cached = name.commit().map(str::to_string).or_else(|| cache.commit(revision));
        if hub.is_offline {
            let commit = cached.ok_or_else(offline)?;
            return Ok(Self { client, cache, commit, connection: Connection::Offline(offline()), known: None });
        }
        if let Some(commit) = name.commit().map(str::to_string) {
            return Ok(Self { client, cache, commit, connection: Connection::Unknown, known: None });
        }
        // Retrying is pointless if the cache has a commit to fall back on.
        let retries = if cached.is_some() { 0 } else { RETRIES };
        let (commit, connection, known) = match (client.look_up(revision, file, retries), cached) {
            (Ok(Lookup::Found(version)), _) => {
                (version.commit.clone(), Connection::Answered, Some((file.to_string(), version)))
            }
            (Ok(Lookup::Missing(Some(commit))), _) => {
                cache.remember_missing(&commit, file);
                (commit, Connection::Answered, None)
            }
            (Ok(Lookup::Missing(None)), None) => return Err(missing_repository(hub, name, file)),
            (Ok(Lookup::Missing(None)), Some(commit)) => {
                (commit, Connection::Offline(missing_repository(hub, name, file)), None)
            }
            (Err(error), Some(commit)) if is_about_connection(&error) => (commit, Connection::Offline(error), None),
            (Err(error), _) => return Err(error),
        };
        cache.remember(revision, &commit);
        Ok(Self { client, cache, commit, connection, known })
    }

    /// The directory with the commit's files.
    pub fn directory(&self) -> PathBuf {
        self.cache.snapshot(&self.commit)
    }

    /// Returns the path of a file, downloading it if it is not cached. Returns `None` if the commit has no such file
    /// or, when offline, if the file is not cached.
    ///
    /// # Errors
    /// [`Error::Hub`] if the file cannot be obtained, [`Error::Io`] if the cache cannot be written.
    pub fn file(&mut self, file: &str) -> Result<Option<PathBuf>> {
        if !is_inside(file) {
            let found = format!("a file called {file:?}");
            return Err(self.client.name.error(HubProblem::Name, found, "a file in the model's directory"));
        }
        if let Some(path) = self.cache.file(&self.commit, file) {
            return Ok(Some(path));
        }
        if self.cache.is_missing(&self.commit, file) {
            return Ok(None);
        }
        let known = self.known.take_if(|(name, _)| name == file).map(|(_, version)| version);
        match known.map_or_else(|| self.look_up(file), |version| Ok(Some(version)))? {
            Some(version) => self.bring(file, version).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the path of a file that the model requires.
    ///
    /// # Errors
    /// As [`Snapshot::file`], and if the file does not exist.
    pub fn required(&mut self, file: &str) -> Result<PathBuf> {
        match self.file(file)? {
            Some(path) => Ok(path),
            None => Err(self.missing(file, "a BERT model in Hugging Face format")),
        }
    }

    /// The error for missing required files: why the Hub was not used or, if it was, that the repository lacks them.
    pub fn missing(&mut self, files: &str, expected: &str) -> Error {
        match std::mem::replace(&mut self.connection, Connection::Unknown) {
            Connection::Offline(error) => error,
            _ => self.client.name.error(HubProblem::NoFile, format!("no {files}"), expected),
        }
    }

    /// Looks up the commit's version of a file.
    fn look_up(&mut self, file: &str) -> Result<Option<Metadata>> {
        let may_do_without = match self.connection {
            Connection::Offline(_) => return Ok(None),
            Connection::Unknown => self.directory().is_dir(),
            Connection::Answered => false,
        };
        match self.client.look_up(&self.commit, file, if may_do_without { 0 } else { RETRIES }) {
            Ok(Lookup::Found(version)) if version.commit != self.commit => {
                let found = format!("{file} from commit {} instead of {}", version.commit, self.commit);
                Err(self.client.name.error(HubProblem::Protocol, found, "a file from the requested commit"))
            }
            Ok(answer) => {
                self.connection = Connection::Answered;
                match answer {
                    Lookup::Found(version) => return Ok(Some(version)),
                    Lookup::Missing(Some(_)) => self.cache.remember_missing(&self.commit, file),
                    Lookup::Missing(None) => {}
                }
                Ok(None)
            }
            Err(error) if may_do_without && is_about_connection(&error) => {
                self.connection = Connection::Offline(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Downloads a version of a file. A damaged download is retried once, from the start.
    fn bring(&mut self, file: &str, version: Metadata) -> Result<PathBuf> {
        let fetched = match transfer::fetch(&self.client, &self.cache, file, &version) {
            Err(Error::Hub { problem: HubProblem::Damaged, .. }) => match self.look_up(file)? {
                Some(version) => transfer::fetch(&self.client, &self.cache, file, &version).map(|()| version),
                None => return Err(self.missing(file, "the file that was there a moment ago")),
            },
            other => other.map(|()| version),
        };
        self.cache.link(&self.commit, file, &fetched?.etag)
    }
}

/// Describes what is needed to work offline.
fn whole(hub: &Hub) -> String {
    format!("a model that is already in {}, or a connection", hub.cache.display())
}

fn missing_repository(hub: &Hub, name: &HubName, file: &str) -> Error {
    let expected = format!("a directory of that name, or a model on {}", hub.endpoint);
    name.error(HubProblem::NoRepository, format!("no {file} (status 404)"), expected)
}

/// Whether the Hub could not be reached or refused to answer, in which case the cache is used.
fn is_about_connection(error: &Error) -> bool {
    matches!(error, Error::Hub { problem, .. } if !matches!(problem, HubProblem::NoRevision | HubProblem::Name))
}
