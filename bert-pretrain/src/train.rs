//! Runs `bert-pretrain train`, from settings to model directory and metrics.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bert_cli::program::select_numbered_device;
use bert_cli::resume::{DIRECTORY, current_directory};
use bert_model::device::NamedDevice;
use bert_model::fail_point::fail_point;
use bert_model::pretrained::{save_config, save_weights, state_dict};
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer};
use bert_train::run_directory::{check_inputs, result_of};
use bert_train::sharing::{compare_devices, decode, encode, share_state};
use bert_train::{
    Checkpoints, Communicator, Ended, IfExists, Interrupt, Optimizer, Plan, RunDirectory, SaveInterval, TrainingState,
    Wire, cores, prefetch, train,
};
use burn::tensor::Device;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::advice;
use crate::budget_plan;
use crate::corpus::Corpus;
use crate::examples::NspMode;
use crate::objective::{Metrics, Pretraining};
use crate::phases::{PhasedSource, count_steps, first_examples};
use crate::prepare::{PreparedData, given_tokenizer, prepare, remove_cache};
use crate::recipe;
use crate::report;
use crate::settings::{PretrainRunOptions, PretrainSettings};
use crate::shared::{Announcement, share_data};
use crate::split::Subset;
use crate::start::{check_model, foreign_tokenizer, initial_model, set_dropout};
use crate::stream::NO_EXAMPLES;

/// Number of checkpoints to keep during training: a second one in case the newest is damaged.
const KEEP: usize = 2;

/// Number of training examples whose next-sentence labels are inspected.
const FIRST_EXAMPLES: usize = 1000;

/// The result of a training run.
#[derive(Debug)]
pub struct PretrainOutcome {
    /// Why the run ended.
    pub ended: Ended,
    /// The JSON object that `--json` prints.
    pub summary: Value,
}

/// Runs `bert-pretrain train`, together with the other ranks of `communicator`. The first rank owns the run directory;
/// on the others, the summary is null.
///
/// # Errors
/// If the corpus, a file, the device or a computed number is invalid.
pub fn run(
    settings: &PretrainSettings,
    run: &PretrainRunOptions,
    (interrupt, communicator): (&Interrupt, &dyn Communicator),
) -> Result<PretrainOutcome> {
    let started = Instant::now();
    let finished = || match run.if_exists {
        Some(IfExists::Resume) => result_of(&run.output),
        _ => Ok(None),
    };
    if let Some(summary) = communicator.from_first(finished, encode, |bytes| decode(&bytes))? {
        if communicator.is_first() {
            eprintln!("{} is finished after {} steps; nothing to resume", run.output.display(), summary["steps"]);
        }
        return Ok(PretrainOutcome { ended: Ended::Finished, summary });
    }
    let (mut prepared, model) = Run::prepare(settings, run, communicator, started)?;
    let checkpoints = prepared.directory.checkpoints(run.keep.unwrap_or(KEEP))?;
    let mut state = prepared.start(model, &checkpoints)?;
    let seconds_before = state.seconds;
    state.seconds += started.elapsed().as_secs_f64();
    let mut objective = prepared.objective();
    prepared.evaluate_initial(&state, &objective)?;
    let (state, ended) = prepared.train(state, &mut objective, &checkpoints, interrupt)?;
    if let Ended::Interrupted(_) = ended {
        return Ok(PretrainOutcome { ended, summary: Value::Null });
    }
    let seconds = || seconds_before + started.elapsed().as_secs_f64();
    let summary = prepared.finish(&state, &mut objective, seconds)?;
    if run.keep.is_none() {
        checkpoints.discard()?;
    }
    Ok(PretrainOutcome { ended, summary })
}

/// The settings of a run and everything prepared from them before the first step.
struct Run<'a> {
    settings: PretrainSettings,
    run: &'a PretrainRunOptions,
    communicator: &'a dyn Communicator,
    if_exists: IfExists,
    directory: RunDirectory,
    device: Device,
    data: PreparedData,
    config: BertConfig,
    /// The number of steps, phase 2 included.
    steps: u64,
    /// The settings and data that a resumed run must share.
    numbers: Value,
    /// Where a rank other than the first has its run directory; removed at the end.
    _temporary: Option<TempDir>,
}

impl<'a> Run<'a> {
    /// Prepares the run on the first rank, and gives all others its data.
    fn prepare(
        settings: &PretrainSettings,
        run: &'a PretrainRunOptions,
        communicator: &'a dyn Communicator,
        started: Instant,
    ) -> Result<(Self, BertForPreTraining)> {
        let selected = select_numbered_device(&run.device, communicator.local_rank(), run.quiet);
        let NamedDevice { name, device, .. } = communicator.agree(selected)?;
        compare_devices(communicator, name)?;
        communicator.agree(settings.precision.check(&device))?;
        let if_exists = run.if_exists.unwrap_or(IfExists::Refuse);
        let mut first = None;
        let announcement = communicator.from_first(
            || {
                let (directory, data, model, announcement) =
                    prepare_first(settings.clone(), run, (communicator, started), (name, &device))?;
                first = Some((directory, data, model));
                Ok(announcement)
            },
            encode,
            |bytes| decode(&bytes),
        )?;
        let (directory, data, model, temporary) = match first {
            Some((directory, data, model)) => (directory, Some(data), Some(model), None),
            None => {
                let temporary =
                    tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create a temporary directory in"))?;
                (RunDirectory::open(temporary.path().join("run"), IfExists::Refuse)?, None, None, Some(temporary))
            }
        };
        let data = share_data(communicator, data, &announcement, directory.path())?;
        let Announcement { settings, config, steps, numbers, .. } = announcement;
        let model = model.unwrap_or_else(|| {
            // The weights come from the first rank.
            let mut model = BertForPreTraining::init_seeded(&config, 0, &device);
            settings.dropout.iter().for_each(|dropout| set_dropout(&mut model, *dropout));
            model
        });
        let prepared = Self {
            settings,
            run,
            communicator,
            if_exists,
            directory,
            device,
            data,
            config,
            steps,
            numbers,
            _temporary: temporary,
        };
        Ok((prepared, model))
    }

    /// The state before the first step or, if the run is resumed, that of the newest checkpoint.
    fn start(
        &mut self,
        model: BertForPreTraining,
        checkpoints: &Checkpoints,
    ) -> Result<TrainingState<BertForPreTraining>> {
        let mut state = TrainingState::new(model, Optimizer::new(self.settings.optimizer));
        if self.if_exists == IfExists::Resume && self.communicator.is_first() {
            match checkpoints.newest()? {
                Some(found) => {
                    found.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                    found.check_settings(&self.numbers)?;
                    let optimizer = Optimizer::new(self.settings.optimizer);
                    state = found.restore(state.model, &self.config, optimizer, &self.device)?;
                }
                None if self.run.quiet => {}
                None => eprintln!("no checkpoint in {}; starting at step 0", self.run.output.display()),
            }
            self.directory.rewind_metrics(state.step)?;
        }
        share_state(self.communicator, state, &self.device, self.run.shard_optimizer)
    }

    fn objective(&self) -> Pretraining {
        Pretraining {
            device: self.device.clone(),
            pad_id: self.data.tokenizer.special().pad,
            with_nsp: self.settings.data.nsp_mode != NspMode::Off,
            held_out: self.data.held_out.clone(),
            eval_batch_size: self.settings.batch_size,
            latest: None,
        }
    }

    /// Evaluates the model that the run continues before its first step, so that what training changes can be seen.
    fn evaluate_initial(&mut self, state: &TrainingState<BertForPreTraining>, objective: &Pretraining) -> Result<()> {
        if self.settings.init.is_none() || state.step > 0 || objective.held_out.is_empty() {
            return Ok(());
        }
        let metrics = objective.evaluate_held_out(&state.model, self.communicator)?;
        self.directory.log(&json!({"step": 0, "eval": to_value(metrics)?}))
    }

    /// Takes the remaining steps of both phases.
    fn train(
        &mut self,
        state: TrainingState<BertForPreTraining>,
        objective: &mut Pretraining,
        checkpoints: &Checkpoints,
        interrupt: &Interrupt,
    ) -> Result<(TrainingState<BertForPreTraining>, Ended)> {
        let plan = self.plan();
        let source = PhasedSource::new(&self.settings, &self.data, self.steps, (state.step, &state.cursor))?;
        let directory = &mut self.directory;
        std::thread::scope(|scope| {
            let batches = prefetch(scope, source);
            train(state, objective, &batches, &plan, directory, checkpoints, (interrupt, self.communicator))
        })
    }

    fn plan(&self) -> Plan {
        let Self { settings, run, .. } = self;
        Plan {
            schedule: settings.schedule(self.steps),
            clip: (settings.clip > 0.0).then_some(settings.clip),
            parts: settings.parts,
            seed: settings.seed,
            eval_every: run.eval_every,
            save: SaveInterval::new(run.save_every, run.save_minutes),
            precision: settings.precision,
            gradient_checkpointing: settings.gradient_checkpointing,
            wire: Wire::of(settings.bf16_exchange),
            settings: self.numbers.clone(),
            quiet: run.quiet,
        }
    }

    /// Writes the model, the report and the result on the first rank; returns the JSON object that `--json` prints.
    fn finish(
        &self,
        state: &TrainingState<BertForPreTraining>,
        objective: &mut Pretraining,
        seconds: impl Fn() -> f64,
    ) -> Result<Value> {
        let (path, model, tokenizer) = (self.directory.path(), &state.model, &self.data.tokenizer);
        // A resumed run without remaining steps has not been evaluated yet.
        if objective.latest.is_none() && !objective.held_out.is_empty() {
            objective.latest = Some(objective.evaluate_held_out(model, self.communicator)?);
        }
        if !self.communicator.is_first() {
            return Ok(Value::Null);
        }
        save_model(path, model, &self.config, tokenizer, objective.with_nsp)?;
        report::write(path, &report::filled_masks(model, tokenizer, &self.data.held_out))?;
        let mut summary = summarize(&self.directory, state.step, objective.latest, seconds())?;
        if let Some(loss) = self.data.unigram_loss {
            summary["unigram_loss"] = loss.into();
        }
        self.directory.finish(&summary)?;
        remove_cache(path)?;
        Ok(summary)
    }
}

/// Opens the run directory, the corpus and the model, and writes `run.json`.
fn prepare_first(
    mut settings: PretrainSettings,
    run: &PretrainRunOptions,
    (communicator, started): (&dyn Communicator, Instant),
    (device_name, device): (&str, &Device),
) -> Result<(RunDirectory, PreparedData, BertForPreTraining, Announcement)> {
    if communicator.size() > 1 && settings.budget.is_some() && settings.steps.is_none() {
        let message = "--budget measures the speed of one process; with several, pass --steps instead";
        return Err(Error::Usage(message.into()));
    }
    // Report invalid inputs before anything is written.
    let mut files = Vec::new();
    for (paths, is_training) in [(&settings.corpus, true), (&settings.eval_corpus, false)] {
        if !paths.is_empty() {
            let corpus = Corpus::open(paths)?;
            let has_any_size = settings.undecided.vocab_size && settings.model_config()?.1;
            if is_training && has_any_size {
                settings.vocab_size = Some(recipe::vocab_size(corpus.files().iter().map(|file| file.bytes).sum()));
            }
            files.extend(corpus.files().iter().map(|file| file.path.clone()).filter(|path| path.to_str().is_some()));
        }
    }
    let tokenizer = given_tokenizer(&settings)?;
    check_model(&settings, tokenizer.as_ref())?;
    if let Some(warning) = tokenizer.as_ref().and_then(|tokenizer| foreign_tokenizer(&settings, tokenizer)) {
        eprintln!("warning: {warning}");
    }
    let if_exists = run.if_exists.unwrap_or(IfExists::Refuse);
    check_inputs(&run.output, if_exists, settings.inputs().map(PathBuf::from).chain(files))?;
    if if_exists != IfExists::Resume || !run.output.join("run.json").exists() {
        settings.parts = Some(cores::parts(device, settings.accumulate, communicator, run.quiet));
    }
    cores::check_ranks(settings.parts, settings.accumulate, settings.batch_size, communicator)?;
    let directory = RunDirectory::open(&run.output, if_exists)?;
    fail_point("preparation");
    let data = directory.prepared(prepare(&settings, tokenizer, &directory, run.quiet))?;
    settings = directory.prepared(budget_plan::plan(settings, &data, device, started, run))?;
    let steps = directory.prepared(count_steps(&settings, &data))?;
    if settings.has_phase2() && settings.phase2_steps >= steps {
        eprintln!("warning: --phase2-steps: phase 2 is the whole run of {steps} steps");
    }
    let first = directory.prepared(first_examples(&settings, &data, FIRST_EXAMPLES))?;
    if first.is_empty() {
        directory.prepared(Err(Error::Setting(NO_EXAMPLES.into())))?;
    }
    if settings.data.nsp_mode != NspMode::Off {
        let warning = advice::one_label(&first, data.split.len(Subset::Training));
        warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    let (model, config) = directory.prepared(initial_model(&settings, &data.tokenizer, device))?;

    let mut numbers = to_value(&settings)?;
    numbers["data_sha256"] = data.fingerprint.clone().into();
    if if_exists == IfExists::Resume {
        directory.check_settings(&numbers)?;
        directory.check_model(&to_value(&config)?)?;
    }
    directory.describe(&json!({
        "program": "bert-pretrain",
        "version": env!("CARGO_PKG_VERSION"),
        "settings": numbers,
        "run": to_value(run)?,
        DIRECTORY: current_directory(),
        "device": device_name,
        "steps": steps,
        "model": config,
        "data": data.facts,
    }))?;
    let announcement = Announcement::new(settings, &data, &config, steps, &numbers)?;
    Ok((directory, data, model, announcement))
}

/// Writes the model directory. Without next-sentence prediction, only the masked-LM part has been trained and is
/// written.
fn save_model(
    directory: &Path,
    model: &BertForPreTraining,
    config: &BertConfig,
    tokenizer: &Tokenizer,
    with_nsp: bool,
) -> Result<()> {
    if with_nsp {
        return bert_model::save(directory, model, config, tokenizer);
    }
    save_config(directory, config, bert_model::BertForMaskedLM::ARCHITECTURE)?;
    tokenizer.save(directory, config.max_position_embeddings)?;
    let mut weights = state_dict(model);
    weights.retain(|name, _| !name.starts_with("cls.seq_relationship") && !name.starts_with("bert.pooler"));
    save_weights(directory.join("model.safetensors"), &weights)
}

/// The losses of the last step.
fn last_losses(metrics: &[Value]) -> Value {
    let last = metrics.iter().rev().find(|record| record.get("loss").is_some()).unwrap_or(&Value::Null);
    json!({"loss": last["loss"], "mlm_loss": last["mlm_loss"], "nsp_loss": last["nsp_loss"]})
}

/// The mean speed over steps of about as many tokens each: that of their mean time.
fn mean_speed(speeds: &[f64]) -> f64 {
    speeds.len() as f64 / speeds.iter().map(|speed| speed.recip()).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// Builds the JSON object that `--json` prints.
fn summarize(directory: &RunDirectory, steps: u64, evaluation: Option<Metrics>, seconds: f64) -> Result<Value> {
    let metrics = directory.metrics()?;
    let steps_logged: Vec<&Value> = metrics.iter().filter(|record| record.get("loss").is_some()).collect();
    let speeds: Vec<f64> = steps_logged.iter().filter_map(|record| record["tokens_per_second"].as_f64()).collect();
    let mut summary = json!({
        "steps": steps,
        "train": last_losses(&metrics),
        "eval": evaluation.map(to_value).transpose()?,
        "tokens_per_second": mean_speed(&speeds),
        "seconds": seconds,
        "model": directory.path().display().to_string(),
    });
    if let Some(initial) = metrics.iter().find(|record| record["step"] == 0) {
        summary["eval_before"] = initial["eval"].clone();
    }
    Ok(summary)
}

fn to_value<T: serde::Serialize>(value: T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::Setting(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps of 4,000 tokens, in 0.1 and 0.4 seconds.
    #[test]
    fn the_mean_speed_is_that_of_the_whole_time() {
        assert_eq!(mean_speed(&[40_000.0, 10_000.0]), 16_000.0);
        assert_eq!(mean_speed(&[]), 0.0);
    }
}
