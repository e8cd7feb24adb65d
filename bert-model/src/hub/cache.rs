//! The cache of Python's `huggingface_hub`, in the same layout:
//!
//! ```text
//! models--owner--name/blobs/ETAG                    content of one version of a file
//! models--owner--name/snapshots/COMMIT/config.json  -> ../../blobs/ETAG
//! models--owner--name/refs/main                     a commit
//! models--owner--name/.no_exist/COMMIT/vocab.txt    empty: the commit has no such file
//! models--owner--name/trees/COMMIT.json             all files of a commit, if Python has listed them
//! .locks/models--owner--name/ETAG.lock              held while a blob is downloaded
//! ```
//!
//! A blob gets its final name only when it is complete and verified, and links are created only to existing blobs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::HubName;
use super::environment::Hub;
use super::response::is_plain;
use crate::error::{Error, Result};

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55
# This file marks a cache directory: https://bford.info/cachedir/
";

/// The part of the cache that belongs to one model.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    repository: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub fn new(hub: &Hub, name: &HubName) -> Self {
        let folder = format!("models--{}", name.repository().replace('/', "--"));
        Self {
            root: hub.cache.clone(),
            repository: hub.cache.join(&folder),
            locks: hub.cache.join(".locks").join(folder),
        }
    }

    /// The commit that a revision pointed to when it was last resolved.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.repository.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_string()).filter(|commit| is_plain(commit))
    }

    /// Records which commit a revision points to. Fails silently, since the cache may be read-only.
    pub fn remember(&self, revision: &str, commit: &str) {
        if revision == commit || self.commit(revision).as_deref() == Some(commit) {
            return;
        }
        let path = self.repository.join("refs").join(revision);
        let temporary = unique(&path, "tmp");
        let write = || {
            create_parent(&path)?;
            fs::write(&temporary, commit)?;
            fs::rename(&temporary, &path)
        };
        if write().is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    /// The directory with the files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repository.join("snapshots").join(commit)
    }

    /// The path of a commit's file, if it is cached.
    pub fn file(&self, commit: &str, file: &str) -> Option<PathBuf> {
        Some(self.snapshot(commit).join(file)).filter(|path| path.is_file())
    }

    /// Whether the cache knows that the commit has no such file.
    pub fn is_missing(&self, commit: &str, file: &str) -> bool {
        self.no_exist(commit, file).is_file() || self.tree(commit).is_some_and(|tree| tree[file].is_null())
    }

    /// Records that a commit has no such file. Fails silently.
    pub fn remember_missing(&self, commit: &str, file: &str) {
        let path = self.no_exist(commit, file);
        let _ = create_parent(&path).and_then(|()| File::create(&path));
    }

    fn no_exist(&self, commit: &str, file: &str) -> PathBuf {
        self.repository.join(".no_exist").join(commit).join(file)
    }

    fn tree(&self, commit: &str) -> Option<Value> {
        let text = fs::read(self.repository.join("trees").join(format!("{commit}.json"))).ok()?;
        let mut tree: Value = serde_json::from_slice(&text).ok()?;
        (tree["format_version"] == 1 && tree["files"].is_object()).then(|| tree["files"].take())
    }

    /// The path of the blob with this entity tag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.repository.join("blobs").join(etag)
    }

    /// Creates the directories for a blob and waits until no other process is downloading it. Dropping the returned
    /// file releases the lock.
    ///
    /// # Errors
    /// If the cache cannot be written.
    pub fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path).map_err(Error::io(&path, "write"))?;
        let blob = self.blob(etag);
        create_parent(&blob).map_err(Error::io(&blob, "write"))?;
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            let _ = fs::write(&tag, TAG);
        }
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io(&path, "write"))?;
        match file.lock() {
            // Without locks, two processes may download the same blob, which is harmless.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(Error::io(&path, "lock")(error)),
            _ => Ok(file),
        }
    }

    /// Opens a file for a partial blob, for appending. If the entity tag is a hash that can verify the result, the
    /// bytes of an interrupted download are kept.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn partial(&self, etag: &str) -> Result<(File, PathBuf)> {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).read(true).open(path);
            file.map_err(Error::io(path, "write"))
        };
        let blob = self.blob(etag);
        let shared = blob.with_file_name(format!("{etag}.incomplete"));
        if is_sha256(etag) {
            let file = open(&shared)?;
            // Another download may have the file open if locking the blob is not supported.
            if !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
                return Ok((file, shared));
            }
        }
        let own = unique(&blob, "incomplete");
        Ok((open(&own)?, own))
    }

    /// Moves a complete and verified blob to its final name.
    ///
    /// # Errors
    /// If the blob cannot be flushed or renamed.
    pub fn finish(&self, mut file: File, partial: &Path, etag: &str) -> Result<()> {
        let blob = self.blob(etag);
        let mut finish = || {
            file.flush()?;
            file.sync_all()?;
            fs::rename(partial, &blob)
        };
        finish().map_err(Error::io(&blob, "write"))
    }

    /// Links a commit's file to its blob, and returns the path of the link.
    ///
    /// # Errors
    /// If the cache cannot be written.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(file);
        let temporary = unique(&path, "tmp");
        let up = "../".repeat(2 + file.matches('/').count());
        let link = || {
            create_parent(&path)?;
            if symlink(Path::new(&format!("{up}blobs/{etag}")), &temporary).is_err() {
                fs::copy(self.blob(etag), &temporary)?;
            }
            fs::rename(&temporary, &path)
        };
        link().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io(&path, "write")(error)
        })?;
        Ok(path)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.to_string_lossy().replace('/', "\\"), link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A path next to `path` that no other process or thread uses.
fn unique(path: &Path, ending: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{name}.{}-{count}.{ending}", std::process::id()))
}

/// Whether an entity tag is a SHA-256 hash of the content, as it is for large files.
pub(super) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file name given by a repository stays within the repository's directory.
pub(super) fn is_inside(file: &str) -> bool {
    let is_bad = |character: char| character.is_control() || "\\:".contains(character);
    !file.contains(is_bad) && file.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_inside() {
        assert!(is_inside("config.json") && is_inside("1_Pooling/config.json") && is_inside("..a"));
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "C:x", "a\n"] {
            assert!(!is_inside(bad), "{bad:?}");
        }
        assert!(is_sha256(&"0".repeat(64)) && !is_sha256(&"0".repeat(40)));
    }
}
