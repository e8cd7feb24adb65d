//! Downloads one version of a file into the cache: resumes interrupted downloads, and accepts only files with the right
//! size and hash.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, StatusCode};

use super::HubProblem;
use super::cache::{Cache, is_sha256};
use super::client::{Client, Metadata, RETRIES};
use super::environment::Download;
use super::response::{Failure, header, number};
use crate::error::{Error, Result};

const CHUNK: usize = 256 << 10;

/// Downloads a blob, unless it is cached or another process downloads it in the meantime.
///
/// # Errors
/// [`Error::Io`] if the cache cannot be written (what has arrived is kept for resuming); [`Error::Hub`] if the server
/// does not send the file, or sends a different one ([`HubProblem::Damaged`]).
pub(super) fn fetch(client: &Client<'_>, cache: &Cache, file: &str, version: &Metadata) -> Result<()> {
    let _lock = cache.lock(&version.etag)?;
    let blob = cache.blob(&version.etag);
    if fs::metadata(&blob).is_ok_and(|found| found.is_file() && version.size.is_none_or(|size| size == found.len())) {
        return Ok(());
    }
    let (partial, path) = cache.partial(&version.etag)?;
    let mut transfer = Transfer { client, file, version, partial, path: &path };
    match transfer.receive().and_then(|()| transfer.verify()) {
        Ok(()) => cache.finish(transfer.partial, &path, &version.etag)?,
        Err(error) => {
            // Only bytes that a hash can verify later are worth keeping.
            let is_damaged = matches!(error, Error::Hub { problem: HubProblem::Damaged, .. });
            if is_damaged || !is_sha256(&version.etag) {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
    }
    if let Some(told) = &client.hub.progress {
        let bytes = fs::metadata(&blob).map_err(Error::io(&blob, "read"))?.len();
        told(Download { file, bytes, total: Some(bytes), is_done: true });
    }
    Ok(())
}

struct Transfer<'a> {
    client: &'a Client<'a>,
    file: &'a str,
    version: &'a Metadata,
    /// Open for appending.
    partial: File,
    path: &'a Path,
}

/// Why a download stopped early.
enum Stop {
    Failed(Failure),
    /// An error that retrying cannot fix.
    Error(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Transfer<'_> {
    /// Receives the file until it is complete. An attempt that gets further than all previous ones resets the retry
    /// count.
    fn receive(&mut self) -> Result<()> {
        let (mut tries, mut furthest) = (0, self.length()?);
        loop {
            let before = self.length()?;
            if self.version.size == Some(before) {
                return Ok(());
            }
            if self.version.size.is_some_and(|size| before > size) {
                self.restart()?;
                continue;
            }
            let failure = match self.receive_from(before) {
                Ok(()) => return Ok(()),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Failed(failure)) => failure,
            };
            if self.length()? > furthest {
                (tries, furthest) = (0, self.length()?);
            }
            if !failure.is_transient || tries == RETRIES {
                return Err(self.client.error(failure));
            }
            self.client.pause(&failure, tries)?;
            tries += 1;
        }
    }

    /// Sends one request for the bytes from `from` on, and appends them.
    fn receive_from(&mut self, from: u64) -> Result<(), Stop> {
        let answer = self.client.get(self.file, self.version, from)?;
        let headers = answer.headers();
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // The file ends before `from`, so the partial file is not a prefix of it.
            self.restart().map_err(Stop::Error)?;
            return Err(Failure::transient(HubProblem::Damaged, format!("a file that ends before byte {from}")).into());
        }
        if let Some(encoding) = header(headers, "content-encoding").filter(|&encoding| encoding != "identity") {
            return Err(Failure::new(HubProblem::Protocol, format!("content with the encoding {encoding}")).into());
        }
        let mut bytes = from;
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            self.check_range(headers, from)?;
        } else {
            self.check_size(number(headers, "content-length"))?;
            self.restart().map_err(Stop::Error)?;
            bytes = 0;
        }
        let (mut body, mut buffer) = (answer.into_body().into_reader(), vec![0; CHUNK]);
        loop {
            self.tell(bytes);
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(self.broken(bytes, &error.to_string()).into()),
            };
            bytes += read as u64;
            if let Some(size) = self.version.size.filter(|&size| bytes > size) {
                return Err(Failure::new(HubProblem::Damaged, format!("more than {size} bytes")).into());
            }
            let write = self.partial.write_all(&buffer[..read]);
            write.map_err(Error::io(self.path, "write")).map_err(Stop::Error)?;
        }
        match self.version.size {
            Some(size) if bytes < size => Err(self.broken(bytes, "the connection was closed").into()),
            _ => Ok(()),
        }
    }

    /// Checks that a partial response starts at `from`, and that the whole file has the expected size.
    fn check_range(&self, headers: &HeaderMap, from: u64) -> Result<(), Failure> {
        let range = header(headers, "content-range").unwrap_or_default();
        let (place, total) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).unwrap_or_default();
        if place.split('-').next().and_then(|start| start.parse().ok()) != Some(from) {
            return Err(Failure::new(HubProblem::Damaged, format!("bytes `{range}` instead of those from {from} on")));
        }
        self.check_size(total.parse().ok())
    }

    fn check_size(&self, found: Option<u64>) -> Result<(), Failure> {
        match (found, self.version.size) {
            (Some(found), Some(size)) if found != size => {
                Err(Failure::new(HubProblem::Damaged, format!("{}: {found} bytes instead of {size}", self.file)))
            }
            _ => Ok(()),
        }
    }

    /// Compares size and hash of the received file with its metadata.
    fn verify(&self) -> Result<()> {
        self.check_size(Some(self.length()?)).map_err(|failure| self.client.error(failure))?;
        if !is_sha256(&self.version.etag) {
            return Ok(());
        }
        let mut file = File::open(self.path).map_err(Error::io(self.path, "read"))?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
        loop {
            match file.read(&mut buffer).map_err(Error::io(self.path, "read"))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != self.version.etag {
            let found = format!("{}: bytes with SHA-256 {found} instead of {}", self.file, self.version.etag);
            return Err(self.client.error(Failure::new(HubProblem::Damaged, found)));
        }
        Ok(())
    }

    fn broken(&self, bytes: u64, reason: &str) -> Failure {
        let total = self.version.size.map_or_else(|| "?".into(), |size| size.to_string());
        let found = format!("{}: {bytes} of {total} bytes ({reason})", self.file);
        Failure::transient(HubProblem::Unreachable, found)
    }

    fn length(&self) -> Result<u64> {
        Ok(self.partial.metadata().map_err(Error::io(self.path, "read"))?.len())
    }

    fn restart(&self) -> Result<()> {
        self.partial.set_len(0).map_err(Error::io(self.path, "write"))
    }

    fn tell(&self, bytes: u64) {
        if let Some(told) = &self.client.hub.progress {
            told(Download { file: self.file, bytes, total: self.version.size, is_done: false });
        }
    }
}
