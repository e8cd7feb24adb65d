//! Atomic checkpoints: a checkpoint is either complete or absent.
//!
//! `checkpoints/step-00001000/` holds the weights, the optimizer's moments and the state of the run (step, data
//! position). It is written under a name that starts with a dot, flushed, and renamed last. `state.json` records the
//! SHA-256 of the other files, so that a damaged checkpoint is detected and an older one is used instead.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use bert_model::BertConfig;
use bert_model::fail_point::fail_point;
use bert_model::file::{read_json, write_json};
use bert_model::pretrained::fill;
use bert_model::pretrained::save::{HostTensor, save_weights, state_dict};
use bert_model::pretrained::weights::Weights;
use bert_model::{Error, Result};
use burn::module::Module;
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::optimizer::Optimizer;
use super::precision::SavedScale;
use super::state::TrainingState;

const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// Suffix of a checkpoint while it is being replaced by a new one of the same step.
const REPLACED: &str = ".replaced";

/// The `checkpoints` directory of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    directory: PathBuf,
    keep: usize,
}

/// The content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    step: u64,
    cursor: Value,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    loss_scale: SavedScale,
    /// Settings that affect the result; a run cannot be resumed with different ones.
    settings: Value,
    sha256: BTreeMap<String, String>,
}

/// A checkpoint whose files have been verified.
#[derive(Debug)]
pub struct Checkpoint {
    /// Directory of the checkpoint.
    pub path: PathBuf,
    /// Number of steps taken when the checkpoint was written.
    pub step: u64,
    /// Position in the training data.
    pub cursor: Value,
    /// Time in seconds that the run had taken when the checkpoint was written.
    pub seconds: f64,
    /// The loss scale of `f16` training.
    pub loss_scale: SavedScale,
    /// The settings of the run that wrote the checkpoint.
    pub settings: Value,
    /// One line for each newer checkpoint that was skipped, with the reason.
    pub warnings: Vec<String>,
}

impl Checkpoints {
    /// Opens the checkpoints of the run in `run_directory`, of which the newest `keep` (at least one) are retained.
    /// Removes leftovers of an interrupted write and restores a checkpoint that was being replaced.
    ///
    /// # Errors
    /// If the directory cannot be created or read.
    pub fn open(run_directory: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let directory = run_directory.as_ref().join("checkpoints");
        fs::create_dir_all(&directory).map_err(Error::io(&directory, "create the directory"))?;
        for entry in fs::read_dir(&directory).map_err(Error::io(&directory, "read"))? {
            let entry = entry.map_err(Error::io(&directory, "read"))?;
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix('.')) else { continue };
            match name.strip_suffix(REPLACED).map(|name| directory.join(name)) {
                Some(place) if !place.exists() => fs::rename(&path, &place).map_err(Error::io(&place, "restore"))?,
                _ if name.starts_with("step-") => fs::remove_dir_all(&path).map_err(Error::io(&path, "remove"))?,
                _ => {}
            }
        }
        Ok(Self { directory, keep: keep.max(1) })
    }

    /// Writes a checkpoint, then removes old ones beyond the number to keep, and all those of later steps. `means` are
    /// the optimizer's running means of all parameters ([`Optimizer::state`] if no other rank has any).
    ///
    /// # Errors
    /// If it cannot be written; older checkpoints are then unchanged.
    pub fn save<M: Module>(
        &self,
        state: &TrainingState<M>,
        means: &BTreeMap<String, HostTensor>,
        settings: &Value,
    ) -> Result<PathBuf> {
        let name = format!("step-{:08}", state.step);
        let staging = self.directory.join(format!(".{name}"));
        let path = self.directory.join(&name);
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(Error::io(&staging, "remove"))?;
        }
        fs::create_dir_all(&staging).map_err(Error::io(&staging, "create the directory"))?;
        fail_point("staging");
        save_weights(staging.join(WEIGHTS), &state_dict(&state.model))?;
        fail_point("weights");
        save_weights(staging.join(OPTIMIZER), means)?;
        fail_point("optimizer");
        let sha256 = [WEIGHTS, OPTIMIZER]
            .into_iter()
            .map(|file| Ok((file.to_string(), sha256_of(&staging.join(file))?)))
            .collect::<Result<_>>()?;
        let record = StateFile {
            step: state.step,
            cursor: state.cursor.clone(),
            seconds: state.seconds,
            loss_scale: state.scale_to_save(),
            settings: settings.clone(),
            sha256,
        };
        write_json(staging.join(STATE), &record)?;
        sync_directory(&staging)?;
        fail_point("state");

        let replaced = self.directory.join(format!(".{name}{REPLACED}"));
        if path.exists() {
            fs::rename(&path, &replaced).map_err(Error::io(&path, "replace"))?;
            fail_point("replaced");
        }
        fs::rename(&staging, &path).map_err(Error::io(&path, "rename the checkpoint to this path"))?;
        fail_point("renamed");
        sync_directory(&self.directory)?;
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(Error::io(&replaced, "remove"))?;
        }
        // Checkpoints of later steps are damaged; otherwise this run would have resumed from them.
        let (older, newer): (Vec<_>, Vec<_>) =
            self.paths()?.into_iter().filter(|at| *at != path).partition(|at| *at < path);
        let too_many = older.len().saturating_sub(self.keep - 1);
        for old in older.iter().take(too_many).chain(&newer) {
            fs::remove_dir_all(old).map_err(Error::io(old, "remove"))?;
            fail_point("removed");
        }
        Ok(path)
    }

    /// The newest intact checkpoint; `None` if there are no checkpoints.
    ///
    /// # Errors
    /// If there are checkpoints but all are damaged.
    pub fn newest(&self) -> Result<Option<Checkpoint>> {
        let mut warnings = Vec::new();
        for path in self.paths()?.into_iter().rev() {
            match read_state(&path) {
                Ok(StateFile { step, cursor, seconds, loss_scale, settings, .. }) => {
                    return Ok(Some(Checkpoint { path, step, cursor, seconds, loss_scale, settings, warnings }));
                }
                Err(error) => warnings.push(format!("skipped a damaged checkpoint: {error}")),
            }
        }
        match warnings.is_empty() {
            true => Ok(None),
            false => Err(Error::file(&self.directory, warnings.join("; "), "at least one intact checkpoint")),
        }
    }

    /// Removes all checkpoints, which a finished run no longer needs.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn discard(&self) -> Result<()> {
        self.paths()?.iter().try_for_each(|path| fs::remove_dir_all(path).map_err(Error::io(path, "remove")))
    }

    /// Paths of all checkpoints, oldest first.
    fn paths(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.directory).map_err(Error::io(&self.directory, "read"))?;
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&self.directory, "read"))?;
            if entry.file_name().to_string_lossy().starts_with("step-") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }
}

impl Checkpoint {
    /// Checks that the settings equal those of the checkpoint; see [`check_settings`].
    ///
    /// # Errors
    /// If a setting differs.
    pub fn check_settings(&self, now: &Value) -> Result<()> {
        check_settings(&self.settings, now)
    }

    /// Restores the weights into `model` and the moments into `optimizer`, so that the run continues exactly where it
    /// stopped. All parameters become trainable; freeze them again as needed ([`crate::Adaptation::freeze`]).
    ///
    /// # Errors
    /// If the files do not match the model.
    pub fn restore<M: Module>(
        &self,
        model: M,
        config: &BertConfig,
        mut optimizer: Optimizer,
        device: &Device,
    ) -> Result<TrainingState<M>> {
        let weights = Weights::safetensors(&self.path.join(WEIGHTS))?;
        let loaded = fill(&weights, model, config.clone())?;
        if let Some(missing) = loaded.initialized.first() {
            return Err(Error::tensor(self.path.join(WEIGHTS), missing, "no such tensor", "a complete model"));
        }
        optimizer.restore(self.step, read_tensors(&self.path.join(OPTIMIZER))?, device);
        Ok(TrainingState {
            model: loaded.model,
            optimizer,
            step: self.step,
            cursor: self.cursor.clone(),
            seconds: self.seconds,
            saved_scale: self.loss_scale,
            loss_scale: None,
            ownership: None,
        })
    }
}

/// Checks that a run is resumed with its own settings. Of `saved`, only the settings that are in `now` are compared.
///
/// # Errors
/// If settings differ; the error names all of them.
pub fn check_settings(saved: &Value, now: &Value) -> Result<()> {
    let mut differing = Vec::new();
    compare(String::new(), saved, now, &mut differing);
    if differing.is_empty() {
        return Ok(());
    }
    let list =
        |value: fn(&(String, &Value, &Value)) -> String| differing.iter().map(value).collect::<Vec<_>>().join(", ");
    Err(Error::Mismatch {
        left: list(|(name, _, now)| format!("{name} = {now}")),
        right: format!("the run to resume, {}", list(|(name, saved, _)| format!("{name} = {saved}"))),
        advice: "a run resumes with its own settings, which are recorded in its run.json".into(),
    })
}

/// Collects the settings in `now` that differ from `saved`, as `(name, saved, now)`; nested names are joined by dots.
fn compare<'a>(name: String, saved: &'a Value, now: &'a Value, differing: &mut Vec<(String, &'a Value, &'a Value)>) {
    match (saved, now) {
        (Value::Object(saved), Value::Object(now)) => {
            for (key, value) in now {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                compare(name, saved.get(key).unwrap_or(&Value::Null), value, differing);
            }
        }
        // An older version did not know the option, and ran without it.
        (Value::Null, Value::Bool(false)) => {}
        _ if saved != now => differing.push((name, saved, now)),
        _ => {}
    }
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    let weights = Weights::verbatim(path)?;
    let mut tensors = BTreeMap::new();
    for name in weights.names() {
        let shape = weights.shape(name).unwrap_or_default().to_vec();
        if shape.len() != 2 {
            return Err(Error::tensor(
                path,
                name,
                format!("shape {shape:?}"),
                "a matrix, as all optimizer moments are",
            ));
        }
        if let Some(values) = weights.read(name, &shape)? {
            tensors.insert(name.to_string(), HostTensor { shape, values });
        }
    }
    Ok(tensors)
}

/// Reads `state.json` and verifies the hashes of the files it lists.
fn read_state(path: &Path) -> Result<StateFile> {
    let file = path.join(STATE);
    let state: StateFile = read_json(&file, "the state of a run")?;
    for (name, expected) in &state.sha256 {
        let file = path.join(name);
        let found = sha256_of(&file)?;
        if found != *expected {
            return Err(Error::file(&file, format!("SHA-256 {found}"), format!("{expected} (see {STATE})")));
        }
    }
    Ok(state)
}

/// The SHA-256 of a file, in lowercase hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path, "read"))? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes renames in `directory` durable. Only Unix allows opening a directory for this.
fn sync_directory(directory: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io(directory, "flush"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
