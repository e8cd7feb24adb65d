//! Trains with one seed: evaluates after every epoch and keeps the model of the best one.

use std::path::Path;
use std::time::Instant;

use bert_cli::resume::{DIRECTORY, current_directory};
use bert_model::{Error, Result};
use bert_train::checkpoint::{check_settings, sha256_of};
use bert_train::permutation::mix;
use bert_train::run_directory::{read_run, result_of};
use bert_train::sharing::{compare_devices, decode, encode, share_state};
use bert_train::{
    Adaptation, Checkpoints, Communicator, Ended, IfExists, Interrupt, Optimizer, OptimizerConfig, Plan, RunDirectory,
    SaveInterval, TrainingState, Wire, cores, prefetch, train,
};
use burn::module::Module;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::Run;
use super::data::{LabeledData, prepare};
use super::epochs::EpochSource;
use super::objective::{Best, FineTuning, evaluate};
use super::start::{Start, initial_model, start};
use crate::data::Files;
use crate::description::Description;
use crate::features::Encoded;
use crate::for_task;
use crate::report;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};
use crate::tasks::{ModelOf, Task};
use crate::truncated::warn_of_training;

/// Tag that keeps this random stream independent of the run's others.
const ADAPTERS: u64 = 24;

/// Number of checkpoints to keep during training: a second one in case the newest is damaged.
const KEEP: usize = 2;

/// The result of a training run.
#[derive(Debug)]
pub struct FinetuneOutcome {
    /// Why training ended.
    pub ended: Ended,
    /// The JSON object that `--json` prints.
    pub summary: Value,
}

/// Trains with one seed.
///
/// # Errors
/// Those of [`super::run`].
pub(super) fn run_once(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    (interrupt, communicator): (&Interrupt, &dyn Communicator),
) -> Result<FinetuneOutcome> {
    let finished = || if run.if_exists == IfExists::Resume { resume(&run.output, files) } else { Ok(None) };
    if let Some(summary) = communicator.from_first(finished, encode, |bytes| decode(&bytes))? {
        return Ok(FinetuneOutcome { ended: Ended::Finished, summary });
    }
    let mut start = communicator.agree(start(settings, run, files, communicator.local_rank()))?;
    compare_devices(communicator, start.device_name)?;
    let settings = &mut start.settings;
    if communicator.is_first() {
        settings.parts = match run.if_exists == IfExists::Resume && run.output.join("run.json").exists() {
            true => read_run(&run.output)?["settings"]["parts"].as_u64().map(|parts| parts as usize),
            false => Some(cores::parts(&start.device, 1, communicator, run.quiet)),
        };
    }
    let checked = || cores::check_ranks(settings.parts, 1, settings.batch_size, communicator).map(|()| settings.parts);
    settings.parts = communicator.from_first(checked, encode, |bytes| decode(&bytes))?;
    for_task!(communicator.agree(start.open_task())?, task => {
        let mut task = task;
        let (data, model) = read(&mut task, &start, files, run.quiet, communicator)?;
        let (directory, _temporary) = open_directory(run, communicator)?;
        let Start { settings, description, config, tokenizer, device_name, device, .. } = start;
        let settings = &settings;
        let run = Run { settings, run, description, config, tokenizer, task, device, interrupt, communicator };
        run.train(model, &data, directory, device_name)
    })
}

/// Reads the examples and the weights.
fn read<T: Task>(
    task: &mut T,
    start: &Start,
    files: &Files,
    quiet: bool,
    communicator: &dyn Communicator,
) -> Result<(LabeledData<T>, ModelOf<T>)> {
    let data = communicator.agree(prepare(&start.settings, files, task))?;
    let Start { settings, keeps_head, config, device, .. } = start;
    let model = communicator.agree(initial_model(task, settings, *keeps_head, config, device, quiet))?;
    Ok((data, model))
}

/// The hashes of the labeled files, as `run.json` records them.
pub(super) fn hashes_of(files: &Files) -> Result<Value> {
    let paths = [Some(&files.training), files.evaluation.as_ref(), files.test.as_ref()];
    let hashes = paths.into_iter().flatten().map(|path| sha256_of(path)).collect::<Result<Vec<_>>>()?;
    Ok(json!(hashes))
}

/// Checks everything that a run reads.
pub(super) fn check(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    communicator: &dyn Communicator,
) -> Result<()> {
    // Each run tells its own hints.
    let run = FinetuneRunOptions { quiet: true, ..run.clone() };
    let start = communicator.agree(start(settings, &run, files, communicator.local_rank()))?;
    for_task!(communicator.agree(start.open_task())?, task => {
        let mut task = task;
        read(&mut task, &start, files, true, communicator).map(|_| ())
    })
}

/// Opens the run directory on the first rank, and a temporary one on the others, which is removed at the end.
pub(super) fn open_directory(
    run: &FinetuneRunOptions,
    communicator: &dyn Communicator,
) -> Result<(RunDirectory, Option<TempDir>)> {
    let mut first = None;
    let open = || {
        first = Some(RunDirectory::open(&run.output, run.if_exists)?);
        Ok(())
    };
    communicator.from_first(open, encode, |_| Ok(()))?;
    match first {
        Some(directory) => Ok((directory, None)),
        None => {
            let temporary =
                tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create a temporary directory in"))?;
            Ok((RunDirectory::open(temporary.path().join("run"), IfExists::Refuse)?, Some(temporary)))
        }
    }
}

/// The result of the run to be resumed, if it has finished. Otherwise checks that the data is unchanged, before
/// anything is prepared.
fn resume(directory: &Path, files: &Files) -> Result<Option<Value>> {
    let summary = finished(directory)?;
    if summary.is_none() && directory.join("run.json").exists() {
        check_settings(&read_run(directory)?["settings"], &json!({"data_sha256": hashes_of(files)?}))?;
    }
    Ok(summary)
}

/// The result of the run to be resumed, if it has finished, which is reported.
pub(super) fn finished(directory: &Path) -> Result<Option<Value>> {
    let summary = result_of(directory)?;
    if summary.is_some() {
        eprintln!("{} is finished; nothing to resume", directory.display());
    }
    Ok(summary)
}

impl<T: Task> Run<'_, T> {
    fn train(
        &self,
        model: ModelOf<T>,
        data: &LabeledData<T>,
        mut directory: RunDirectory,
        device_name: &str,
    ) -> Result<FinetuneOutcome> {
        let started = Instant::now();
        let Self { settings, task, device, communicator, .. } = self;
        let encoded = |examples| Ok(Encoded::new(task, examples, &self.config)?.with_workers(settings.parts));
        let mut training = directory.prepared(communicator.agree(encoded(&data.training)))?;
        let mut evaluation = directory.prepared(communicator.agree(encoded(&data.evaluation)))?;
        let truncated = training.truncated.len() + evaluation.truncated.len();
        warn_of_training(truncated, settings.description.max_seq_len);
        if settings.adaptation == Adaptation::FrozenEncoder {
            // The frozen encoder's output is constant; compute it once.
            directory.prepared(training.run_encoder(task, &model, device))?;
            directory.prepared(evaluation.run_encoder(task, &model, device))?;
        }
        let steps_per_epoch = training.items().len().div_ceil(settings.batch_size) as u64;
        let steps = steps_per_epoch * settings.epochs;
        let numbers = directory.prepared(self.describe(data, steps, &directory, device_name))?;
        let checkpoints = directory.checkpoints(self.run.keep.unwrap_or(KEEP))?;
        let mut state = self.start(model, &numbers, &mut directory, &checkpoints)?;
        let seconds_before = state.seconds;
        state.seconds += started.elapsed().as_secs_f64();
        let path = directory.path().to_path_buf();
        let mut learning = FineTuning {
            run: self,
            data,
            evaluation,
            steps_per_epoch,
            directory: path,
            best: None,
            epochs_since_best: 0,
        };
        learning.replay_metrics(&directory.metrics()?);
        let source = EpochSource {
            items: training.items(),
            task,
            batch_size: settings.batch_size,
            seed: settings.seed,
            cursor: serde_json::from_value(state.cursor.clone()).unwrap_or_default(),
            batches: vec![],
        };
        let plan = self.plan(steps, steps_per_epoch, numbers);
        let (state, ended) = std::thread::scope(|scope| {
            let batches = prefetch(scope, source);
            train(state, &mut learning, &batches, &plan, &mut directory, &checkpoints, (self.interrupt, *communicator))
        })?;
        if let Ended::Interrupted(_) = ended {
            return Ok(FinetuneOutcome { ended, summary: Value::Null });
        }
        if !communicator.is_first() {
            return Ok(FinetuneOutcome { ended, summary: Value::Null });
        }
        let seconds = || seconds_before + started.elapsed().as_secs_f64();
        let summary = self.finish(&state.model, learning.best.take(), data, directory.path(), seconds)?;
        directory.finish(&summary)?;
        if self.run.keep.is_none() {
            checkpoints.discard()?;
        }
        Ok(FinetuneOutcome { ended, summary })
    }

    /// Writes `run.json` on the first rank, with whose data the others compare theirs; returns the settings and data
    /// that a resumed run must share.
    fn describe(
        &self,
        data: &LabeledData<T>,
        steps: u64,
        directory: &RunDirectory,
        device_name: &str,
    ) -> Result<Value> {
        let mut numbers = serde_json::to_value(self.settings).map_err(|error| Error::Setting(error.to_string()))?;
        numbers["data_sha256"] =
            data.files.as_array().into_iter().flatten().map(|file| file["sha256"].clone()).collect();
        let communicator = self.communicator;
        let first = communicator.from_first(|| Ok(numbers["data_sha256"].clone()), encode, |bytes| decode(&bytes))?;
        if numbers["data_sha256"] != first {
            let files = data.files.as_array().into_iter().flatten().map(|file| file["path"].to_string());
            let found = format!("other content than on rank 0 in one of {}", files.collect::<Vec<_>>().join(", "));
            return communicator.agree(Err(Error::Setting(found)));
        }
        let numbers = communicator.agree(Ok(numbers))?;
        let write = || self.write_description(data, (steps, device_name), directory, &numbers);
        communicator.from_first(write, encode, |_| Ok(()))?;
        Ok(numbers)
    }

    fn write_description(
        &self,
        data: &LabeledData<T>,
        (steps, device_name): (u64, &str),
        directory: &RunDirectory,
        numbers: &Value,
    ) -> Result<()> {
        let run = self.run;
        if run.if_exists == IfExists::Resume {
            directory.check_settings(numbers)?;
            directory.check_model(&json!(self.config))?;
        }
        directory.describe(&json!({
            "program": "bert-finetune",
            "version": env!("CARGO_PKG_VERSION"),
            "settings": numbers,
            "run": run,
            DIRECTORY: current_directory(),
            "device": device_name,
            "steps": steps,
            "model": self.config,
            "labels": self.config.labels()?,
            "data": data.files,
            "examples": {"train": data.training.len(), "eval": data.evaluation.len(), "test": data.test.len()},
        }))
    }

    /// The state before the first step, or that of the newest checkpoint when a run is resumed.
    fn start(
        &self,
        model: ModelOf<T>,
        numbers: &Value,
        directory: &mut RunDirectory,
        checkpoints: &Checkpoints,
    ) -> Result<TrainingState<ModelOf<T>>> {
        let Self { settings, run, device, .. } = self;
        let (algorithm, weight_decay) = (settings.optimizer, settings.weight_decay);
        let optimizer_config = OptimizerConfig { algorithm, weight_decay, ..OptimizerConfig::default() };
        let model = settings.adaptation.prepare(model, mix(&[settings.seed, ADAPTERS]), device);
        let mut state = TrainingState::new(model, Optimizer::new(optimizer_config));
        if run.if_exists == IfExists::Resume && self.communicator.is_first() {
            if let Some(found) = checkpoints.newest()? {
                found.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                found.check_settings(numbers)?;
                state = found.restore(state.model, &self.config, Optimizer::new(optimizer_config), device)?;
                state.model = settings.adaptation.freeze(state.model);
            }
            directory.rewind_metrics(state.step)?;
        }
        share_state(self.communicator, state, device, run.shard_optimizer)
    }

    fn plan(&self, steps: u64, steps_per_epoch: u64, numbers: Value) -> Plan {
        let Self { settings, run, .. } = self;
        Plan {
            schedule: settings.schedule(steps),
            clip: (settings.clip > 0.0).then_some(settings.clip),
            parts: settings.parts,
            seed: settings.seed,
            eval_every: steps_per_epoch,
            save: SaveInterval::new(run.save_every, run.save_minutes),
            precision: settings.precision,
            gradient_checkpointing: false,
            wire: Wire::of(settings.bf16_exchange),
            settings: numbers,
            quiet: run.quiet,
        }
    }

    /// Evaluates the kept model on the test set and writes the report; returns the JSON object that
    /// `--json` prints.
    fn finish(
        &self,
        last: &ModelOf<T>,
        best: Option<Best>,
        data: &LabeledData<T>,
        path: &Path,
        seconds: impl Fn() -> f64,
    ) -> Result<Value> {
        let Self { task, device, .. } = self;
        let best = match best {
            Some(best) => best,
            None => {
                // No evaluation set, so keep the last epoch.
                self.save(path, last, &Map::new())?;
                Best { epoch: self.settings.epochs, metrics: Map::new() }
            }
        };
        let test = match data.test.is_empty() {
            true => None,
            false => {
                let (mut task, kept) = task.saved(path, device)?;
                task.tune(&best.metrics);
                let encoded = Encoded::new(&task, &data.test, &self.config)?.with_workers(self.settings.parts);
                Some(evaluate(&task, &kept, &data.test, &encoded, device)?.0)
            }
        };
        report::record_test(path, best.epoch, test.as_ref())?;
        report::write(path)?;
        Ok(json!({
            "eval": best.metrics,
            "test": test,
            "best_epoch": best.epoch,
            "seconds": seconds(),
            "model": path.display().to_string(),
        }))
    }

    /// Writes the model with merged adapters, and the no-answer threshold from `metrics`.
    pub(super) fn save(&self, directory: &Path, model: &ModelOf<T>, metrics: &Map<String, Value>) -> Result<()> {
        self.task.save_model(directory, &model.clone().materialize(), &self.config, &self.tokenizer)?;
        let threshold = metrics.get("no_answer_threshold").and_then(Value::as_f64);
        let no_answer_threshold = self.description.no_answer_threshold.map(|usual| threshold.unwrap_or(usual));
        Description { no_answer_threshold, ..self.description.clone() }.save(directory)
    }
}
