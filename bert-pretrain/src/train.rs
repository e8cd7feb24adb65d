//! `bert-pretrain train` and `evaluate`, from settings to model directory and metrics.

use std::path::Path;
use std::time::Instant;

use bert_cli::program::select_device;
use bert_model::device::NamedDevice;
use bert_model::pretrained::{save_weights, state_dict};
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer, load_partial};
use bert_train::run_directory::check_inputs;
use bert_train::{
    Checkpoints, Ended, IfExists, Interrupt, Optimizer, Plan, RunDirectory, TrainingState, prefetch, train,
};
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::examples::{NspMode, PretrainingExample};
use crate::objective::{Evaluation, Pretraining};
use crate::prepare::{
    Phase, PreparedData, count_steps, evaluation_examples, example_maker, prepare, remove_cache, training_source,
};
use crate::report;
use crate::settings::{DataSettings, PretrainRunOptions, PretrainSettings, SHORTEST};
use crate::start::{check_pairs, initial_model};
use crate::store::{Split, Store, Subset};

/// The result of a training run.
#[derive(Debug)]
pub struct PretrainOutcome {
    /// Why it ended.
    pub ended: Ended,
    /// The JSON object that `--json` prints.
    pub summary: Value,
}

/// Runs `bert-pretrain train`.
///
/// # Errors
/// If the corpus, a file, the device or a computed number is invalid.
pub fn run(settings: &PretrainSettings, run: &PretrainRunOptions, interrupt: &Interrupt) -> Result<PretrainOutcome> {
    let started = Instant::now();
    let (mut prepared, model) = Run::prepare(settings, run)?;
    let checkpoints = prepared.directory.checkpoints(run.keep)?;
    let state = prepared.start(model, &checkpoints)?;
    let mut objective = prepared.objective();
    let (state, ended) = prepared.train(state, &mut objective, &checkpoints, interrupt)?;
    let summary = match ended {
        Ended::Interrupted(_) => Value::Null,
        _ => prepared.finish(&state, &mut objective, started)?,
    };
    Ok(PretrainOutcome { ended, summary })
}

/// A run: its settings and everything prepared from them before the first step.
struct Run<'a> {
    settings: &'a PretrainSettings,
    run: &'a PretrainRunOptions,
    if_exists: IfExists,
    directory: RunDirectory,
    device: Device,
    data: PreparedData,
    config: BertConfig,
    /// The number of steps, phase 2 included.
    steps: u64,
    /// The settings and data that a resumed run must share.
    numbers: Value,
}

impl<'a> Run<'a> {
    /// Opens the run directory, the corpus and the model, and writes `run.json`.
    fn prepare(settings: &'a PretrainSettings, run: &'a PretrainRunOptions) -> Result<(Self, BertForPreTraining)> {
        let NamedDevice { name, device, .. } = select_device(&run.device, run.quiet)?;
        settings.precision.check(&device)?;
        // Report invalid inputs before anything is written.
        for paths in [&settings.corpus, &settings.eval_corpus] {
            if !paths.is_empty() {
                Corpus::open(paths)?;
            }
        }
        let if_exists = run.if_exists.unwrap_or(IfExists::Refuse);
        let paths = [&settings.corpus, &settings.eval_corpus].into_iter().flatten().map(Path::new);
        let inputs = paths.chain(settings.tokenizer.as_deref()).chain(settings.init.as_deref());
        check_inputs(&run.output, if_exists, inputs)?;
        let directory = RunDirectory::open(&run.output, if_exists)?;
        let data = directory.prepared(prepare(settings, &directory, run.quiet))?;
        let steps = directory.prepared(count_steps(settings, &data))?;
        let (model, config) = directory.prepared(initial_model(settings, &data.tokenizer, &device))?;

        let mut numbers = to_value(settings)?;
        numbers["data_sha256"] = data.fingerprint.clone().into();
        if if_exists == IfExists::Resume {
            directory.check_settings(&numbers)?;
        }
        directory.describe(&json!({
            "program": "bert-pretrain",
            "version": env!("CARGO_PKG_VERSION"),
            "settings": numbers,
            "run": to_value(run)?,
            "device": name,
            "steps": steps,
            "model": config,
            "data": data.facts,
        }))?;
        Ok((Self { settings, run, if_exists, directory, device, data, config, steps, numbers }, model))
    }

    /// The state before the first step, or that of the newest checkpoint when a run is resumed.
    fn start(
        &mut self,
        model: BertForPreTraining,
        checkpoints: &Checkpoints,
    ) -> Result<TrainingState<BertForPreTraining>> {
        let mut state = TrainingState::new(model, Optimizer::new(self.settings.optimizer));
        if self.if_exists == IfExists::Resume {
            match checkpoints.newest()? {
                Some(found) => {
                    found.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                    found.check_settings(&self.numbers)?;
                    let optimizer = Optimizer::new(self.settings.optimizer);
                    state = found.restore(state.model, &self.config, optimizer, &self.device)?;
                }
                None => eprintln!("no checkpoint in {}; starting at step 0", self.run.output.display()),
            }
            self.directory.rewind_metrics(state.step)?;
        }
        Ok(state)
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

    /// Takes the remaining steps of both phases.
    fn train(
        &mut self,
        mut state: TrainingState<BertForPreTraining>,
        objective: &mut Pretraining,
        checkpoints: &Checkpoints,
        interrupt: &Interrupt,
    ) -> Result<(TrainingState<BertForPreTraining>, Ended)> {
        let first_phase = self.steps - self.settings.phase2_steps.min(self.steps);
        let mut ended = Ended::Finished;
        for (phase, start, end) in [(Phase::First, 0, first_phase), (Phase::Second, first_phase, self.steps)] {
            if state.step >= end || ended != Ended::Finished {
                continue;
            }
            if state.step == start {
                // Each phase starts at the beginning of its own data.
                state.cursor = Value::Null;
            }
            let source = training_source(self.settings, &self.data, phase, &state.cursor)?;
            let plan = self.plan(end);
            let directory = &mut self.directory;
            (state, ended) = std::thread::scope(|scope| {
                let batches = prefetch(scope, source);
                train(state, objective, &batches, &plan, directory, checkpoints, interrupt)
            })?;
        }
        Ok((state, ended))
    }

    /// The plan of the phase that ends at step `until`.
    fn plan(&self, until: u64) -> Plan {
        let Self { settings, run, .. } = self;
        Plan {
            schedule: settings.schedule(self.steps),
            until,
            clip: (settings.clip > 0.0).then_some(settings.clip),
            seed: settings.seed,
            eval_every: run.eval_every,
            save_every: run.save_every,
            precision: settings.precision,
            gradient_checkpointing: settings.gradient_checkpointing,
            settings: self.numbers.clone(),
            quiet: run.quiet,
        }
    }

    /// Writes the model and the report; returns the JSON object that `--json` prints.
    fn finish(
        &self,
        state: &TrainingState<BertForPreTraining>,
        objective: &mut Pretraining,
        started: Instant,
    ) -> Result<Value> {
        let (path, model, tokenizer) = (self.directory.path(), &state.model, &self.data.tokenizer);
        // A resumed run with no steps left has not been evaluated yet.
        if objective.latest.is_none() && !objective.held_out.is_empty() {
            objective.latest = Some(objective.evaluate_held_out(model)?);
        }
        save_model(path, model, &self.config, tokenizer, objective.with_nsp)?;
        remove_cache(path)?;
        report::write(path, &report::filled_masks(model, tokenizer, &self.data.held_out))?;
        summarize(&self.directory, state.step, objective.latest, started)
    }
}

/// Writes the model directory. Without next-sentence prediction, only the masked-LM part has been
/// trained and is written.
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
    let mut config = config.clone();
    config.architectures = Some(vec![bert_model::BertForMaskedLM::ARCHITECTURE.into()]);
    config.save(directory.join("config.json"))?;
    tokenizer.save(directory, config.max_position_embeddings)?;
    let mut weights = state_dict(model);
    weights.retain(|name, _| !name.starts_with("cls.seq_relationship") && !name.starts_with("bert.pooler"));
    save_weights(directory.join("model.safetensors"), &weights)
}

/// The JSON object that `--json` prints.
fn summarize(directory: &RunDirectory, steps: u64, evaluation: Option<Evaluation>, started: Instant) -> Result<Value> {
    let metrics = directory.metrics()?;
    let steps_logged: Vec<&Value> = metrics.iter().filter(|record| record.get("loss").is_some()).collect();
    let last = steps_logged.last().copied().unwrap_or(&Value::Null);
    let speeds: Vec<f64> = steps_logged.iter().filter_map(|record| record["tokens_per_second"].as_f64()).collect();
    Ok(json!({
        "steps": steps,
        "train": {"loss": last["loss"], "mlm_loss": last["mlm_loss"], "nsp_loss": last["nsp_loss"]},
        "eval": evaluation.map(to_value).transpose()?,
        "tokens_per_second": speeds.iter().sum::<f64>() / speeds.len().max(1) as f64,
        "seconds": started.elapsed().as_secs_f64(),
        "model": directory.path().display().to_string(),
    }))
}

fn to_value<T: serde::Serialize>(value: T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::Setting(error.to_string()))
}

/// Runs `bert-pretrain evaluate`: metrics of a model on all documents of a corpus.
///
/// # Errors
/// If the model, the corpus or the device is invalid.
pub fn evaluate(
    model_directory: &Path,
    corpus: &[String],
    data: &DataSettings,
    batch_size: usize,
    device: &Device,
    seed: u64,
) -> Result<Evaluation> {
    let tokenizer = Tokenizer::load(model_directory)?;
    let loaded = load_partial::<BertForPreTraining>(model_directory, seed, device)?;
    let lacks = |head: &str| loaded.initialized.iter().any(|name| name.starts_with(head));
    if let Some(tensor) = loaded.initialized.iter().find(|name| name.starts_with("cls.predictions")) {
        return Err(Error::MissingTensors { path: model_directory.into(), tensors: vec![tensor.clone()] });
    }
    let has_nsp = !lacks("cls.seq_relationship") && !lacks("pooler") && !lacks("bert.pooler");
    for warning in tokenizer.warnings().iter().cloned().chain(loaded.warning()) {
        eprintln!("warning: {}: {warning}", model_directory.display());
    }
    tokenizer.check_fits(&loaded.config)?;
    let nsp_mode = if has_nsp { data.nsp_mode } else { NspMode::Off };
    if nsp_mode != NspMode::Off {
        check_pairs(&loaded.config)?;
    }
    let max_seq_len = data.max_seq_len.min(loaded.config.max_position_embeddings);
    if max_seq_len < SHORTEST {
        let expected = format!("a model that reads at least {SHORTEST} tokens");
        let found = format!("{max_seq_len} positions (`max_position_embeddings`)");
        return Err(Error::file(model_directory.join("config.json"), found, expected));
    }
    let data = DataSettings { nsp_mode, max_seq_len, ..data.clone() };
    let held_out = examples_of(corpus, &data, &tokenizer, seed)?;
    let objective = Pretraining {
        device: device.clone(),
        pad_id: tokenizer.special().pad,
        with_nsp: nsp_mode != NspMode::Off,
        held_out,
        eval_batch_size: batch_size,
        latest: None,
    };
    objective.evaluate_held_out(&loaded.model)
}

/// The examples of all documents of a corpus, which is tokenized in a temporary directory.
fn examples_of(
    corpus: &[String],
    data: &DataSettings,
    tokenizer: &Tokenizer,
    seed: u64,
) -> Result<Vec<PretrainingExample>> {
    let corpus = Corpus::open(corpus)?;
    let cache = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create a temporary directory in"))?;
    let path = cache.path().join("corpus.tokens");
    let store = Store::build(&path, &corpus, tokenizer, data.sentences, "")?;
    let maker = example_maker(data, data.max_seq_len, tokenizer)?;
    let split = Split::new(store.stats().documents, 0.0, 0);
    let examples = evaluation_examples(&store, split, Subset::Training, maker, seed, usize::MAX)?;
    match examples.is_empty() {
        true => Err(Error::Setting("the corpus yields no examples: every document is too short for a pair".into())),
        false => Ok(examples),
    }
}
