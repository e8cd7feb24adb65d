//! The settings of a resumed run, which come from its `run.json` and which the command line must not contradict.

use bert_cli::resume::{check_directory, check_program, claimed, overridden, parse};
use bert_model::{Error, Result};
use bert_train::IfExists;
use bert_train::checkpoint::check_settings;
use bert_train::run_directory::{read_run, recover, result_of};
use serde_json::json;

use super::{DEFAULT_OUTPUT, PretrainRunOptions, PretrainSettings};
use crate::args::TrainArgs;

/// Options whose settings have a different name. [`claimed`] finds the others by their own names.
pub(super) const SETTINGS: [(&str, &[&str]); 10] = [
    ("lr", &["learning_rate"]),
    ("schedule", &["decay"]),
    ("optimizer", &["optimizer.algorithm"]),
    ("weight-decay", &["optimizer.weight_decay"]),
    ("no-bias-correction", &["optimizer.bias_correction"]),
    ("static-masking", &["maskings"]),
    ("dupe-factor", &["maskings"]),
    ("no-nsp", &["nsp_mode"]),
    ("steps", &["steps"]),
    ("epochs", &["steps", "epochs"]),
];

impl PretrainSettings {
    /// The settings and options of the run that `--resume` continues. If there is no such run yet, they are those of a
    /// new one, which requires a corpus.
    ///
    /// # Errors
    /// If there is no run and no corpus, if `run.json` cannot be read, or if the command line contradicts it.
    pub fn resume(args: &TrainArgs) -> Result<(Self, PretrainRunOptions)> {
        let output = args.output.clone().unwrap_or_else(|| DEFAULT_OUTPUT.into());
        let path = output.join("run.json");
        recover(&output)?;
        if !path.exists() {
            return match args.corpus.is_empty() {
                true => Err(Error::file(&output, "no run to resume", "a directory with the run.json of a run")),
                false => Self::resolve(args),
            };
        }
        let run = read_run(&output)?;
        check_program(&run, "bert-pretrain", &output)?;
        let settings: Self = parse(&path, &run["settings"])?;
        if result_of(&output)?.is_none() {
            check_directory(&run, settings.inputs())?;
        }
        let corpus = if args.corpus.is_empty() { settings.corpus.clone() } else { args.corpus.clone() };
        let args = TrainArgs { corpus, output: Some(output.clone()), ..args.clone() };
        let (asked, options) = Self::resolve(&args)?;
        check_settings(&run["settings"], &claimed(&args.given, &json!(asked), &SETTINGS))?;
        let merged: PretrainRunOptions = parse(&path, &overridden(&run["run"], &args.given, &json!(options)))?;
        let (json, quiet) = (options.json, options.quiet);
        Ok((settings, PretrainRunOptions { output, if_exists: Some(IfExists::Resume), json, quiet, ..merged }))
    }
}
