//! File access: writes are atomic (a file is written under a temporary name, flushed to disk, and renamed last), and
//! reads of text and JSON detect placeholders left by incomplete downloads.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::fail_point::fail_point;

/// The first bytes of every Git LFS pointer, a text of three lines that stands in for a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Reads a text file of a model directory.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, or fails [`check_content`].
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
    check_content(path, &bytes)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Error::line(path, line as u64 + 1, "bytes that are not UTF-8", "text in UTF-8")
    })
}

/// Reads a JSON file. `expected` says in an error what the file should be, such as "a list of modules".
///
/// # Errors
/// As [`read_text`]; [`Error::Line`] if the file is not JSON of this type.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>, expected: &str) -> Result<T> {
    let path = path.as_ref();
    serde_json::from_str(&read_text(path)?).map_err(|error| {
        let message = error.to_string();
        let found = message.split(" at line ").next().unwrap_or_default();
        Error::line(path, error.line().max(1) as u64, found, expected)
    })
}

/// Checks that `contents`, read from `path`, are not a placeholder that an incomplete download leaves behind.
///
/// # Errors
/// If the contents are a Git LFS pointer or a web page.
pub fn check_content(path: &Path, contents: &[u8]) -> Result<()> {
    let is_page = |start: &[u8]| {
        let beginning = contents.trim_ascii_start();
        beginning.get(..start.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
    };
    refuse_pointer(path, contents)?;
    if is_page(b"<!doctype html") || is_page(b"<html") {
        return Err(Error::file(path, "a web page", "the file itself; download it again"));
    }
    Ok(())
}

/// Checks that a file that starts with these bytes is not a Git LFS pointer.
///
/// # Errors
/// If it is one.
pub fn refuse_pointer(path: &Path, beginning: &[u8]) -> Result<()> {
    if !beginning.starts_with(LFS_POINTER) {
        return Ok(());
    }
    let expected = "the file itself; fetch it with `git lfs pull` in its repository, or download it again";
    Err(Error::file(path, "a Git LFS pointer", expected))
}

/// A file that replaces its target once it is finished. If it is dropped before that, the target is left untouched.
///
/// A target that is not a regular file (a terminal, a pipe, `/dev/null`) is written to directly, since it has no
/// content to preserve. Symbolic links are followed.
#[derive(Debug)]
pub struct StagedFile {
    writer: BufWriter<File>,
    path: PathBuf,
    /// The temporary path while the file is unfinished; `None` if the target is written to directly.
    staged: Option<PathBuf>,
}

impl StagedFile {
    /// Creates the temporary file for `path`.
    ///
    /// # Errors
    /// If the temporary file cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let staged = (!is_special).then(|| {
            let mut name = target.clone().into_os_string();
            name.push(".partial");
            PathBuf::from(name)
        });
        let opened = match &staged {
            Some(staged) => File::create(staged),
            None => File::options().write(true).open(path),
        };
        let file = opened.map_err(Error::io(path, "write"))?;
        Ok(Self { writer: BufWriter::new(file), path: target, staged })
    }

    /// Flushes the file and renames it to its target.
    ///
    /// # Errors
    /// If it could not be written completely; the target is then unchanged.
    pub fn finish(mut self) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut finish = || {
            fail_point(&format!("in {name}"));
            self.writer.flush()?;
            let Some(staged) = &self.staged else { return Ok(()) };
            self.writer.get_ref().sync_all()?;
            fs::rename(staged, &self.path)
        };
        finish().map_err(Error::io(&self.path, "write"))?;
        self.staged = None;
        Ok(())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for StagedFile {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.writer.seek(place)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(staged) = &self.staged {
            // The error being reported matters more than a failure to remove the temporary file.
            let _ = fs::remove_file(staged);
        }
    }
}

/// Writes a whole file atomically: readers see either the old or the new content, never a mixture.
///
/// # Errors
/// If the file cannot be written; the old content is then unchanged.
pub fn replace_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut file = StagedFile::create(&path)?;
    file.write_all(bytes).map_err(Error::io(&path, "write"))?;
    file.finish()
}

/// Writes a value as indented JSON, as [`replace_file`] does.
///
/// # Errors
/// If the value cannot be serialized or the file cannot be written; the old content is then unchanged.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Setting(error.to_string()))?;
    replace_file(path, (text + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_finished_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        replace_file(&path, b"old").unwrap();
        let mut file = StagedFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no leftover");
        replace_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_written_to_and_links_followed() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        replace_file("/dev/null", b"gone").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let error = replace_file("/dev/full", b"too much").unwrap_err().to_string();
        assert_eq!(error, "/dev/full: cannot write: No space left on device");

        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        replace_file(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }
}
