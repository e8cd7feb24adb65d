//! The bytes of a weight file: memory-mapped, or provided by the caller.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// A whole file, and the path to name in errors.
#[derive(Debug)]
pub(super) struct Storage {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Mapped(Mmap),
    Bytes(Cow<'static, [u8]>),
}

impl Storage {
    /// Maps a file into memory, or reads it if the file system does not support mapping.
    pub fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let is_file = file.metadata().map_err(Error::io(path, "read"))?.is_file();
        // SAFETY: the mapping is read-only and private to this process, and every read of it is bounds-checked. What
        // Rust cannot rule out is that another process changes the file meanwhile. Whatever bytes are then seen, any
        // pattern is a valid `u8`, and numbers are checked after they have been converted. That a file is truncated
        // while it is read (which ends the process with SIGBUS) does not happen to files that are replaced by renaming,
        // as this crate and Hugging Face's libraries do; safetensors' own readers make the same assumption.
        #[allow(unsafe_code, reason = "a mapping has no safe form; see above")]
        let mapped = is_file.then(|| unsafe { Mmap::map(&file) });
        let contents = match mapped {
            Some(Ok(map)) => Contents::Mapped(map),
            _ => Contents::Bytes(std::fs::read(path).map_err(Error::io(path, "read"))?.into()),
        };
        Ok(Self { path: path.into(), contents })
    }

    /// Uses bytes that are already in memory.
    pub fn from_bytes(path: &Path, bytes: Cow<'static, [u8]>) -> Self {
        Self { path: path.into(), contents: Contents::Bytes(bytes) }
    }

    /// Releases the memory of a part that has been read: until then, the pages of a mapping count toward the process.
    pub fn release(&self, start: usize, end: usize) {
        #[cfg(unix)]
        if let Contents::Mapped(map) = &self.contents {
            // SAFETY: dropping pages of a read-only mapping of a file loses nothing; the next read fetches them again.
            #[allow(unsafe_code, reason = "the advice could lose writes, which this mapping cannot have; see above")]
            // This is only advice: if the system ignores it, the pages stay until the file is closed.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
        #[cfg(not(unix))]
        let _ = (start, end);
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Mapped(map) => map,
            Contents::Bytes(bytes) => bytes,
        }
    }
}
