//! Trains with several seeds, since results on small data sets vary (paper, appendix A.3), and reports mean and spread.
//! The files of the best run are copied to the run directory, which thus becomes a model directory, too.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bert_cli::resume::{DIRECTORY, current_directory};
use bert_model::{Error, Result};
use bert_train::checkpoint::check_settings;
use bert_train::run_directory::{read_run, recover};
use bert_train::sharing::{decode, encode};
use bert_train::{Communicator, Ended, IfExists, Interrupt};
use serde_json::{Map, Value, json};

use super::best::compare;
use super::once::{FinetuneOutcome, check, finished, hashes_of, open_directory, run_once};
use crate::data::Files;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};

/// Runs each seed in a subdirectory of its own, `seed-N`.
///
/// # Errors
/// Those of the individual runs.
pub fn run_all(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    ranks: (&Interrupt, &dyn Communicator),
) -> Result<FinetuneOutcome> {
    let communicator = ranks.1;
    let found = || match run.if_exists {
        IfExists::Resume => Ok((false, finished(&run.output)?)),
        _ => Ok((true, None)),
    };
    let (is_new, finished): (bool, Option<Value>) = communicator.from_first(found, encode, |bytes| decode(&bytes))?;
    if let Some(summary) = finished {
        return Ok(FinetuneOutcome { ended: Ended::Finished, summary });
    }
    if is_new {
        // Report invalid inputs before a run is removed.
        check(settings, run, files, communicator)?;
    }
    let (directory, _temporary) = open_directory(run, communicator)?;
    if communicator.is_first() {
        let program = "bert-finetune";
        let described = json!({"program": program, "settings": settings, "run": run, DIRECTORY: current_directory()});
        directory.describe(&described)?;
    }
    let hashes = if communicator.is_first() && !is_new { hashes_of(files)? } else { Value::Null };
    let mut runs: Vec<(u64, Value)> = Vec::new();
    for seed in seeds(settings, run) {
        let output = directory_of(directory.path(), seed);
        let own = FinetuneSettings { seed, ..settings.clone() };
        let if_exists = match run.if_exists {
            IfExists::Resume if !output.exists() => IfExists::Refuse,
            IfExists::Resume if communicator.is_first() && !is_of(&output, &own, &hashes) => IfExists::Overwrite,
            other => other,
        };
        let FinetuneOutcome { ended, summary } =
            run_once(&own, &FinetuneRunOptions { output, seeds: 1, if_exists, ..run.clone() }, files, ranks)?;
        if let Ended::Interrupted(_) = ended {
            return Ok(FinetuneOutcome { ended, summary });
        }
        runs.push((seed, summary));
    }
    if !communicator.is_first() {
        return Ok(FinetuneOutcome { ended: Ended::Finished, summary: Value::Null });
    }
    let metrics = |summary: &Value| summary["eval"].as_object().cloned().unwrap_or_default();
    let metric = settings.description.main_metric();
    let best = runs.iter().max_by(|a, b| compare(metric, &metrics(&a.1), &metrics(&b.1)).then(b.0.cmp(&a.0)));
    let Some((seed, summary)) = best else { return Err(Error::Setting("no run has finished".into())) };
    let best = directory_of(directory.path(), *seed);
    copy_files(&best, directory.path())?;
    let mut summary = summary.clone();
    summary["model"] = directory.path().display().to_string().into();
    summary["best_seed"] = (*seed).into();
    summary["seconds"] = runs.iter().filter_map(|(_, summary)| summary["seconds"].as_f64()).sum::<f64>().into();
    summary["seeds"] = runs
        .iter()
        .map(|(seed, summary)| json!({"seed": seed, "eval": summary["eval"], "test": summary["test"]}))
        .collect();
    for part in ["eval", "test"] {
        let (mean, spread) = mean_and_spread(runs.iter().filter_map(|(_, summary)| summary[part].as_object()));
        summary["mean"][part] = mean.into();
        summary["spread"][part] = spread.into();
    }
    let mut described = read_run(&best)?;
    (described["settings"], described["run"], described["result"]) = (json!(settings), json!(run), summary.clone());
    directory.describe(&described)?;
    Ok(FinetuneOutcome { ended: Ended::Finished, summary })
}

/// Whether the run in a directory has these settings and data. Others are left from a run that was being overwritten.
fn is_of(directory: &Path, settings: &FinetuneSettings, hashes: &Value) -> bool {
    let mut now = json!(settings);
    now["data_sha256"] = hashes.clone();
    // Each run has its own number of parts.
    now.as_object_mut().map(|now| now.remove("parts"));
    recover(directory).and_then(|()| check_settings(&read_run(directory)?["settings"], &now)).is_ok()
}

/// The seeds of all runs, which [`FinetuneSettings::resolve`] has checked.
fn seeds(settings: &FinetuneSettings, run: &FinetuneRunOptions) -> RangeInclusive<u64> {
    settings.seed..=settings.seed.saturating_add(run.seeds - 1)
}

fn directory_of(directory: &Path, seed: u64) -> PathBuf {
    directory.join(format!("seed-{seed}"))
}

/// The directories of the runs of several seeds; none of a single one, which has the run directory itself.
pub(super) fn directories<'a>(
    settings: &FinetuneSettings,
    run: &'a FinetuneRunOptions,
) -> impl Iterator<Item = PathBuf> + 'a {
    seeds(settings, run).filter(|_| run.seeds > 1).map(|seed| directory_of(&run.output, seed))
}

/// Copies the files of a finished run, each atomically, except for `run.json`. Subdirectories of modules are copied,
/// checkpoints are not.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::io(from, "read"))? {
        let path = entry.map_err(Error::io(from, "read"))?.path();
        let is_left = |name: &std::ffi::OsStr| [".lock", "checkpoints", "run.json"].iter().any(|left| name == *left);
        let Some(name) = path.file_name().filter(|name| !is_left(name)) else { continue };
        if path.is_dir() {
            let target = to.join(name);
            fs::create_dir_all(&target).map_err(Error::io(&target, "create the directory"))?;
            copy_files(&path, &target)?;
            continue;
        }
        let staging = to.join(format!(".{}", name.to_string_lossy()));
        fs::copy(&path, &staging).map_err(Error::io(&staging, "write"))?;
        fs::rename(&staging, to.join(name)).map_err(Error::io(to.join(name), "write"))?;
    }
    Ok(())
}

/// Mean and sample standard deviation of each metric.
fn mean_and_spread<'a>(runs: impl Iterator<Item = &'a Map<String, Value>>) -> (Map<String, Value>, Map<String, Value>) {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.flatten() {
        if let Some(value) = value.as_f64() {
            values.entry(name).or_default().push(value);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let spread = |values: &[f64]| {
        let center = mean(values);
        let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
        (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt()
    };
    let each = |figure: &dyn Fn(&[f64]) -> f64| {
        values.iter().map(|(name, values)| (name.to_string(), figure(values).into())).collect()
    };
    (each(&mean), each(&spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        let runs = [0.5, 0.7, 0.9].map(|value| Map::from_iter([("f1".to_string(), Value::from(value))]));
        let (mean, spread) = mean_and_spread(runs.iter());
        assert!((mean["f1"].as_f64().unwrap() - 0.7).abs() < 1e-12);
        assert!((spread["f1"].as_f64().unwrap() - 0.2).abs() < 1e-12);
    }
}
