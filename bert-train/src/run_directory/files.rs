//! The files that a run writes, and how they take the place of another run's: no moment loses both.

use std::fs;
use std::path::{Path, PathBuf};

use bert_model::{Error, Result};

use super::{METRICS, MODEL, RUN};

/// The files that a run writes; no other file in the directory is ever removed. Modules of sentence-transformers come
/// to these ([`is_run_file`]).
const RUN_FILES: [&str; 21] = [
    "corpus.tokens",
    "corpus.partial",
    "split.tokens",
    "split.partial",
    "eval.tokens",
    "eval.partial",
    "sample.txt",
    "config.json",
    MODEL,
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    RUN,
    METRICS,
    "report.html",
    "evaluation.json",
    "finetune.json",
    "checkpoints",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];
/// Where the files of a run are that is being overwritten, until the new one is prepared.
const REPLACED: &str = ".replaced";
/// Where they are on the way there and back, so that an interruption loses none.
const MOVING: &str = ".moving";

/// Whether a run writes files of this name: those of the list, or a module of sentence-transformers, such as
/// `2_Normalize`.
pub fn is_run_file(name: &str) -> bool {
    let is_module = |(place, class): (&str, &str)| {
        place.parse::<u32>().is_ok() && ["Pooling", "Dense", "Normalize"].contains(&class)
    };
    RUN_FILES.contains(&name) || name.split_once('_').is_some_and(is_module)
}

/// The files of a run in a directory, also those that another program has written under their names.
pub fn run_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory, "read"))? {
        let entry = entry.map_err(Error::io(directory, "read"))?;
        if entry.file_name().to_str().is_some_and(is_run_file) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Removes the files of a run.
pub fn remove_run_files(directory: &Path) -> Result<()> {
    run_files(directory)?.iter().try_for_each(|path| {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.map_err(Error::io(path, "remove"))
    })
}

fn move_run_files(from: &Path, to: &Path) -> Result<()> {
    run_files(from)?.iter().try_for_each(|path| {
        let target = to.join(path.file_name().unwrap_or_default());
        fs::rename(path, target).map_err(Error::io(path, "move"))
    })
}

/// Whether the run in this directory is being replaced, or such a replacement was interrupted.
pub fn is_being_replaced(directory: &Path) -> bool {
    [REPLACED, MOVING].iter().any(|name| directory.join(name).exists())
}

/// Sets the files of a run aside, if there are any.
pub fn begin_replacement(directory: &Path) -> Result<()> {
    if run_files(directory)?.is_empty() {
        return Ok(());
    }
    let (moving, replaced) = (directory.join(MOVING), directory.join(REPLACED));
    fs::create_dir_all(&moving).map_err(Error::io(&moving, "create the directory"))?;
    let moved = move_run_files(directory, &moving)
        .and_then(|()| fs::rename(&moving, &replaced).map_err(Error::io(&moving, "move")));
    // If not all could be moved, none are.
    moved.inspect_err(|_| drop(finish_replacement(directory)))
}

/// Ends the replacement of a run by another one: removes the old one if the new one is prepared, else puts it back.
pub fn finish_replacement(directory: &Path) -> Result<()> {
    let (moving, replaced) = (directory.join(MOVING), directory.join(REPLACED));
    if replaced.exists() {
        if directory.join(RUN).exists() {
            return fs::remove_dir_all(&replaced).map_err(Error::io(&replaced, "remove"));
        }
        remove_run_files(directory)?;
        fs::rename(&replaced, &moving).map_err(Error::io(&replaced, "move"))?;
    }
    if moving.exists() {
        move_run_files(&moving, directory)?;
        fs::remove_dir(&moving).map_err(Error::io(&moving, "remove"))?;
    }
    Ok(())
}
