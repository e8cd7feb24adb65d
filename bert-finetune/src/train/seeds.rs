//! Trains with several seeds, since results on small data sets vary (paper, appendix A.3), and
//! reports mean and spread. The files of the best run are copied to the run directory, which thus
//! is a model directory, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bert_model::{Error, Result};
use bert_train::{Ended, IfExists, Interrupt, RunDirectory};
use serde_json::{Map, Value, json};

use super::data::Files;
use super::once::{FinetuneOutcome, run_once};
use crate::settings::{FinetuneRunOptions, FinetuneSettings};

/// Runs each seed in a subdirectory of its own, `seed-N`.
///
/// # Errors
/// Those of the individual runs.
pub fn run_all(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    interrupt: &Interrupt,
) -> Result<FinetuneOutcome> {
    let directory = RunDirectory::open(&run.output, run.if_exists)?;
    let mut runs: Vec<(u64, Value)> = Vec::new();
    for seed in settings.seed..settings.seed + run.seeds {
        let output = directory.path().join(format!("seed-{seed}"));
        let if_exists = match run.if_exists {
            IfExists::Resume if !output.exists() => IfExists::Refuse,
            other => other,
        };
        let FinetuneOutcome { ended, summary } = run_once(
            &FinetuneSettings { seed, ..settings.clone() },
            &FinetuneRunOptions { output, if_exists, ..run.clone() },
            files,
            interrupt,
        )?;
        if let Ended::Interrupted(_) = ended {
            return Ok(FinetuneOutcome { ended, summary });
        }
        runs.push((seed, summary));
    }
    let metric = &settings.description.metric;
    let value = |summary: &Value| summary["eval"][metric].as_f64().unwrap_or(f64::NEG_INFINITY);
    let best = runs.iter().max_by(|a, b| value(&a.1).total_cmp(&value(&b.1)).then(b.0.cmp(&a.0)));
    let Some((seed, summary)) = best else {
        return Err(Error::Usage("--seeds: found 0, expected at least 1".into()));
    };
    copy_files(&directory.path().join(format!("seed-{seed}")), directory.path())?;
    let mut summary = summary.clone();
    summary["model"] = directory.path().display().to_string().into();
    summary["best_seed"] = (*seed).into();
    summary["seeds"] = runs
        .iter()
        .map(|(seed, summary)| json!({"seed": seed, "eval": summary["eval"], "test": summary["test"]}))
        .collect();
    for part in ["eval", "test"] {
        let (mean, spread) = mean_and_spread(runs.iter().filter_map(|(_, summary)| summary[part].as_object()));
        summary["mean"][part] = mean.into();
        summary["spread"][part] = spread.into();
    }
    Ok(FinetuneOutcome { ended: Ended::Finished, summary })
}

/// Copies the files of a finished run, each atomically; of its subdirectories those of modules, not the checkpoints.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::io(from, "read"))? {
        let path = entry.map_err(Error::io(from, "read"))?.path();
        let Some(name) = path.file_name().filter(|name| *name != ".lock" && *name != "checkpoints") else { continue };
        if path.is_dir() {
            let target = to.join(name);
            fs::create_dir_all(&target).map_err(Error::io(&target, "make the directory"))?;
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
