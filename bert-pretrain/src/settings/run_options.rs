//! The options of a run that cannot affect the resulting weights.

use std::path::{Path, PathBuf};

use bert_model::{Error, Result};
use bert_train::IfExists;
use bert_train::run_directory::read_run;
use serde::{Deserialize, Serialize};

use super::{Defaults, check};
use crate::args::TrainArgs;

/// Options that cannot affect the resulting weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PretrainRunOptions {
    /// Run directory.
    pub output: PathBuf,
    /// What to do if the run directory is not empty; `None` is an error in that case.
    #[serde(skip)]
    pub if_exists: Option<IfExists>,
    /// Name of the device.
    pub device: String,
    /// Steps between evaluations; 0 evaluates only at the end.
    pub eval_every: u64,
    /// Steps between checkpoints; 0 for no limit.
    pub save_every: u64,
    /// Minutes between checkpoints, if that is sooner; 0 for no limit.
    pub save_minutes: f64,
    /// Number of checkpoints to keep, also after the run has finished; `None` keeps two during the run and none after
    /// it.
    pub keep: Option<usize>,
    /// Whether ranks divide the optimizer's state among them.
    #[serde(default)]
    pub shard_optimizer: bool,
    /// Whether to print the result as JSON.
    #[serde(skip)]
    pub json: bool,
    /// Whether to suppress progress on stderr.
    #[serde(skip)]
    pub quiet: bool,
}

impl PretrainRunOptions {
    pub(super) fn resolve(args: &TrainArgs, defaults: &Defaults) -> Result<Self> {
        let minutes = args.save_minutes;
        check(minutes >= 0.0 && minutes.is_finite(), "--save-minutes", minutes, "0 or more")?;
        check(args.keep != Some(0), "--keep", 0, "at least 1")?;
        let Some(output) = args.output.clone().or_else(|| defaults.output.map(PathBuf::from)) else {
            return Err(Error::Usage("no output directory: pass one with -o DIR".into()));
        };
        // The sample's default directory may be overwritten without asking, any other one only with --overwrite.
        let is_default = args.output.is_none() && is_sample_run(&output);
        let if_exists = match (args.resume, args.overwrite || is_default) {
            (true, _) => IfExists::Resume,
            (false, true) => IfExists::Overwrite,
            (false, false) => IfExists::Refuse,
        };
        Ok(Self {
            output,
            if_exists: Some(if_exists),
            device: args.common.device.clone(),
            eval_every: args.eval_every,
            save_every: args.save_every,
            save_minutes: args.save_minutes,
            keep: args.keep,
            shard_optimizer: args.shard_optimizer,
            json: args.common.json,
            quiet: args.common.quiet,
        })
    }
}

/// Whether the directory contains a run on the built-in sample.
fn is_sample_run(directory: &Path) -> bool {
    let run = read_run(directory).unwrap_or_default();
    run["settings"]["corpus"].as_array().is_some_and(Vec::is_empty)
}
