//! The run directory: a Hugging Face model directory that also holds `run.json`, `metrics.jsonl`, `report.html` and
//! `checkpoints/`. A lock file prevents two runs in the same directory at once.

mod files;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bert_model::file::{read_json, replace_file, write_json};
use bert_model::{Error, Result};
use serde_json::Value;

use super::checkpoint::{Checkpoints, check_settings};
use files::{begin_replacement, finish_replacement, is_being_replaced, is_run_file, remove_run_files, run_files};

/// What to do with a directory that is not empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfExists {
    /// Fail.
    #[default]
    Refuse,
    /// Resume the run in the directory.
    Resume,
    /// Remove the files of the previous run, and nothing else.
    Overwrite,
}

const MODEL: &str = "model.safetensors";
const LOCK: &str = ".lock";
const RUN: &str = "run.json";
const METRICS: &str = "metrics.jsonl";

/// Whether the directory belongs to a run, finished or not.
pub fn is_run_directory(path: &Path) -> bool {
    [LOCK, RUN].iter().any(|name| path.join(name).exists())
}

/// Whether a directory with these entries holds only what a run writes before its `run.json`.
fn is_unprepared(entries: &[OsString]) -> bool {
    let has = |name: &str| entries.iter().any(|entry| entry == name);
    let is_own = |entry: &OsString| entry == LOCK || entry.to_str().is_some_and(is_run_file);
    has(LOCK) && entries.iter().all(is_own) && ![RUN, MODEL, "checkpoints", "config.json"].into_iter().any(has)
}

/// Rejects inputs that a run in `directory` would delete before reading them, and paths that `run.json` cannot record.
///
/// # Errors
/// If the directory is to be overwritten and an input is the directory itself or a run's file in it, or if the path of
/// an input or of the directory is not UTF-8.
pub fn check_inputs(
    directory: &Path,
    if_exists: IfExists,
    inputs: impl IntoIterator<Item = impl AsRef<Path>>,
) -> Result<()> {
    let check_name = |path: &Path| match path.to_str() {
        Some(_) => Ok(()),
        None => Err(Error::file(path, "a name that is not UTF-8", "a UTF-8 name, which run.json can record")),
    };
    check_name(directory)?;
    let place = fs::canonicalize(directory).ok();
    for input in inputs {
        let input = input.as_ref();
        check_name(input)?;
        let Ok(found) = fs::canonicalize(input) else { continue };
        let is_own = found.file_name().and_then(|name| name.to_str()).is_some_and(is_run_file);
        let would_go = place == Some(found.clone()) || (is_own && place.as_deref() == found.parent());
        if would_go && if_exists == IfExists::Overwrite {
            let expected =
                format!("an output directory other than {}, which would be overwritten", directory.display());
            return Err(Error::file(input, "an input inside the run directory", expected));
        }
    }
    Ok(())
}

/// An open, locked run directory.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    metrics: File,
    was_empty: bool,
    /// The lock, held until the run ends; the system releases it when the process dies.
    _lock: File,
}

impl RunDirectory {
    /// Creates or opens a run directory and locks it.
    ///
    /// # Errors
    /// If the directory is not empty and `if_exists` is [`IfExists::Refuse`], or it is another and the directory holds no
    /// run; if another run holds the lock, or the directory cannot be written.
    pub fn open(path: impl AsRef<Path>, if_exists: IfExists) -> Result<Self> {
        let path = path.as_ref();
        fs::create_dir_all(path).map_err(Error::io(path, "create the run directory"))?;
        let entries = fs::read_dir(path).map_err(Error::io(path, "read"))?;
        let entries: Vec<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        let is_bare = entries.iter().all(|entry| entry == LOCK);
        // A run that was interrupted before it was prepared has nothing that is worth keeping.
        let is_unprepared = !is_bare && is_unprepared(&entries);
        let is_empty = is_bare || is_unprepared;
        match (is_empty, is_run_directory(path), if_exists) {
            (false, true, IfExists::Refuse) => {
                let expected = "a new one (or pass --resume to continue, --overwrite to start over)";
                return Err(Error::file(path, "a directory that is not empty", expected));
            }
            (false, false, IfExists::Refuse) => {
                return Err(Error::file(path, "a directory that is not empty", "a new one"));
            }
            // Files of other programs are left alone, unless they have the names of a run's.
            (false, false, IfExists::Overwrite) if run_files(path)?.is_empty() => {}
            (false, false, IfExists::Overwrite | IfExists::Resume) => {
                let found = "a directory that is not empty and holds no run";
                return Err(Error::file(path, found, "the directory of a run, or a new one"));
            }
            _ => {}
        }
        let lock = lock(&path.join(LOCK))?;
        finish_replacement(path)?;
        match if_exists {
            IfExists::Refuse if is_unprepared => remove_run_files(path)?,
            IfExists::Overwrite => begin_replacement(path)?,
            _ => {}
        }
        let metrics = path.join(METRICS);
        let metrics =
            OpenOptions::new().create(true).append(true).open(&metrics).map_err(Error::io(&metrics, "open"))?;
        Ok(Self { path: path.into(), metrics, was_empty: is_empty, _lock: lock })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the outcome of a preparation step. If it failed, restores the run that was to be overwritten; if the
    /// directory was empty before this run, removes what was written, so that the command can simply be repeated.
    ///
    /// # Errors
    /// The error in `outcome`.
    pub fn prepared<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() && is_being_replaced(&self.path) {
            // If that fails, the next run restores it.
            let _ = finish_replacement(&self.path);
        } else if outcome.is_err() && self.was_empty && remove_run_files(&self.path).is_ok() {
            // If another program has put files here, the directory remains; nothing depends on it.
            let _ = fs::remove_file(self.path.join(LOCK)).and_then(|()| fs::remove_dir(&self.path));
        }
        outcome
    }

    /// The path of a file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The checkpoints of the run, of which the newest `keep` are retained.
    ///
    /// # Errors
    /// If the directory cannot be created or read.
    pub fn checkpoints(&self, keep: usize) -> Result<Checkpoints> {
        Checkpoints::open(&self.path, keep)
    }

    /// Appends one line to `metrics.jsonl`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn log(&mut self, record: &Value) -> Result<()> {
        let line = format!("{record}\n");
        self.metrics.write_all(line.as_bytes()).map_err(Error::io(self.path.join(METRICS), "write"))
    }

    /// Removes the lines of `metrics.jsonl` that a run resumed after `step` writes again: later ones; after step 0,
    /// all.
    ///
    /// # Errors
    /// If the file cannot be rewritten.
    pub fn rewind_metrics(&mut self, step: u64) -> Result<()> {
        let path = self.path.join(METRICS);
        let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let is_kept = |line: &&str| {
            let record: Option<Value> = serde_json::from_str(line).ok();
            record.and_then(|record| record["step"].as_u64()).is_some_and(|at| at <= step && step > 0)
        };
        // Keep the lines byte for byte: a number that is parsed and written again could change in the last digit.
        let kept: String = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter(is_kept).collect();
        replace_file(&path, kept.as_bytes())?;
        self.metrics = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path, "open"))?;
        Ok(())
    }

    /// All complete lines of `metrics.jsonl`; a truncated last line is ignored.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn metrics(&self) -> Result<Vec<Value>> {
        read_metrics(&self.path)
    }

    /// Checks that a run is resumed with the settings in its `run.json`. Succeeds if the run was stopped before it
    /// wrote that file.
    ///
    /// # Errors
    /// If settings differ (the error names all of them), or the file cannot be read.
    pub fn check_settings(&self, now: &Value) -> Result<()> {
        self.described("settings")?.map_or(Ok(()), |saved| check_settings(&saved, now))
    }

    /// Checks that the model of a resumed run has the configuration in its `run.json`: a file that describes it may
    /// have been changed.
    ///
    /// # Errors
    /// If it differs, or `run.json` cannot be read.
    pub fn check_model(&self, config: &Value) -> Result<()> {
        let saved = self.described("model")?.filter(|saved| !saved.is_null());
        saved.map_or(Ok(()), |saved| check_settings(&saved, config))
    }

    /// A part of `run.json`; `None` if the run was stopped before it wrote that file.
    fn described(&self, part: &str) -> Result<Option<Value>> {
        self.file(RUN).exists().then(|| Ok(read_run(&self.path)?[part].take())).transpose()
    }

    /// Writes `run.json`. From here on, the run that was in the directory before is overwritten.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn describe(&self, run: &Value) -> Result<()> {
        write_json(self.file(RUN), run)?;
        finish_replacement(&self.path)
    }

    /// Records the result of the finished run in `run.json`; see [`result_of`].
    ///
    /// # Errors
    /// If `run.json` cannot be read or written.
    pub fn finish(&self, result: &Value) -> Result<()> {
        let mut run = read_run(&self.path)?;
        run["result"] = result.clone();
        self.describe(&run)
    }
}

/// The result that a finished run recorded in `run.json`; `None` if the run is not finished, or its model was removed.
///
/// # Errors
/// If `run.json` cannot be read.
pub fn result_of(run_directory: &Path) -> Result<Option<Value>> {
    if !run_directory.join(RUN).exists() || !run_directory.join(MODEL).exists() {
        return Ok(None);
    }
    Ok(read_run(run_directory)?.get("result").cloned())
}

/// Rejects the directory of a run that has not written a model yet, where a model directory is expected. Any other
/// directory passes.
///
/// # Errors
/// If the directory has a `run.json` but no `config.json`, or `run.json` cannot be read.
pub fn check_has_model(directory: &Path) -> Result<()> {
    if directory.join("config.json").exists() {
        return Ok(());
    }
    if is_being_replaced(directory) {
        let expected = format!("a model: `--resume -o {}` restores the old run", directory.display());
        return Err(Error::file(directory, "a run that was being overwritten", expected));
    }
    if !directory.join(RUN).exists() {
        return Ok(());
    }
    let run = read_run(directory)?;
    let program = run["program"].as_str().unwrap_or("bert-pretrain");
    let expected = format!("a model: continue the run with `{program} train --resume -o {}`", directory.display());
    Err(Error::file(directory, "an unfinished run", expected))
}

/// Reads the `run.json` of a run.
///
/// # Errors
/// If the file cannot be read or is not JSON.
pub fn read_run(run_directory: &Path) -> Result<Value> {
    read_json(run_directory.join(RUN), "the description of a run")
}

/// Reads the lines of a run's `metrics.jsonl`; a truncated last line is ignored.
///
/// # Errors
/// If the file cannot be read.
pub fn read_metrics(run_directory: &Path) -> Result<Vec<Value>> {
    let path = run_directory.join(METRICS);
    let file = File::open(&path).map_err(Error::io(&path, "read"))?;
    let mut records = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::io(&path, "read"))?;
        records.extend(serde_json::from_str::<Value>(&line).ok());
    }
    Ok(records)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::io(path, "create the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::file(path, "another run in progress in this directory", "one run at a time"))
        }
        // A file system without locks, such as Lustre without `-o flock`.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(Error::io(path, "lock")(error)),
    }
}

/// Restores the run that another one was to replace, if that was interrupted before it was prepared.
///
/// # Errors
/// If a run is in progress in the directory, or a file cannot be moved.
pub fn recover(directory: &Path) -> Result<()> {
    if !is_being_replaced(directory) {
        return Ok(());
    }
    let _lock = lock(&directory.join(LOCK))?;
    finish_replacement(directory)
}

#[cfg(test)]
mod tests;
