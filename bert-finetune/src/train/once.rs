//! One run with one seed: every epoch ends with a look at the evaluation examples, and the model of the best epoch stays.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bert_cli::program::select_device;
use bert_model::device::NamedDevice;
use bert_model::pipeline::Processor;
use bert_model::pretrained::{load_config, save};
use bert_model::workers::split_by_length;
use bert_model::{BertConfig, Error, Result, Tokenizer, load};
use bert_train::permutation::mix;
use bert_train::{
    Adaptation, Ended, IfExists, Interrupt, Losses, Optimizer, OptimizerConfig, Plan, Precision, RunDirectory,
    TrainingState, prefetch, train,
};
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::data::{Files, LabeledData, read_data};
use super::epochs::{Batch, EpochSource};
use super::start::{fit_to_head, initial_model, with_head};
use crate::description::Description;
use crate::features::{Encoded, Item, hidden_states};
use crate::for_task;
use crate::output::warn_truncated;
use crate::report::{self, EvaluationRecord};
use crate::settings::{FinetuneRunOptions, FinetuneSettings};
use crate::tasks::{InputOf, ModelOf, OutputOf, OutputsOf, Task};

/// Keeps this stream of random numbers apart from the run's others.
const ADAPTERS: u64 = 24;

/// Checkpoints that are kept: should the newest be damaged, there is one before it.
const KEEP: usize = 2;

/// What a run came to.
#[derive(Debug)]
pub struct FinetuneOutcome {
    /// Why it ended.
    pub ended: Ended,
    /// What `--json` prints.
    pub summary: Value,
}

/// One run with one seed.
///
/// # Errors
/// As [`super::run`].
pub(super) fn run_once(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    interrupt: &Interrupt,
) -> Result<FinetuneOutcome> {
    let NamedDevice { name, device, .. } = select_device(&run.device, run.quiet)?;
    let config = load_config(&settings.model)?;
    let tokenizer = Tokenizer::load(&settings.model)?;
    settings.description.check_fits(&config, &tokenizer)?;
    if let Adaptation::FrozenLayers(layers) = settings.adaptation
        && layers > config.num_hidden_layers
    {
        let found = format!("--freeze: found {layers}, expected at most the model's {}", config.num_hidden_layers);
        return Err(Error::Usage(found + " layers"));
    }
    if settings.description.max_seq_len > config.max_position_embeddings {
        return Err(Error::Mismatch {
            left: format!("--max-seq-len {}", settings.description.max_seq_len),
            right: format!("a model of {} positions", config.max_position_embeddings),
            advice: "lower it".into(),
        });
    }
    let mut description = settings.description.clone();
    let labels = (description.task.learn_labels)(&mut description, &files.training)?;
    let (labels, keeps_head) = fit_to_head(labels, description.task.architecture, &config);
    let is_same_class = config.architectures.iter().flatten().any(|name| name == description.task.architecture);
    if is_same_class && !keeps_head && !settings.from_scratch && !run.quiet {
        eprintln!("{}: its head is for other labels and stays behind; a fresh one learns", settings.model.display());
    }
    let task = (description.task.open)(&description, labels.clone(), &tokenizer)?;
    let config = with_head(config, &description, &labels);
    for_task!(task, task => {
        let mut task = task;
        let data = read_data(settings, files, &task)?;
        if settings.class_weights {
            task.balance(&data.training)?;
        }
        let directory = RunDirectory::open(&run.output, run.if_exists)?;
        let model = directory.prepared(initial_model(settings, keeps_head, &config, &device, run.quiet))?;
        let run = Run { settings, run, description, config, tokenizer, task, device, interrupt };
        run.train(model, &data, directory, name)
    })
}

/// Everything that stays the same during a run.
struct Run<'a, T: Task> {
    settings: &'a FinetuneSettings,
    run: &'a FinetuneRunOptions,
    /// With what was learned of the labels.
    description: Description,
    config: BertConfig,
    tokenizer: Tokenizer,
    task: T,
    device: Device,
    interrupt: &'a Interrupt,
}

impl<T: Task> Run<'_, T> {
    fn train(
        &self,
        model: ModelOf<T>,
        data: &LabeledData<T>,
        directory: RunDirectory,
        device_name: &str,
    ) -> Result<FinetuneOutcome> {
        let started = Instant::now();
        let Self { settings, run, task, device, .. } = self;
        let mut directory = directory;
        let mut training = Encoded::new(task, &data.training)?;
        let mut evaluation = Encoded::new(task, &data.evaluation)?;
        warn_truncated(task.processor().tokenizer().truncated_count());
        if settings.adaptation == Adaptation::FrozenEncoder {
            // The encoder will never say anything else.
            training.run_encoder(task, &model, device)?;
            evaluation.run_encoder(task, &model, device)?;
        }
        let steps_per_epoch = training.items().len().div_ceil(settings.batch_size) as u64;
        let steps = steps_per_epoch * settings.epochs;
        let mut numbers = serde_json::to_value(settings).map_err(|error| Error::Setting(error.to_string()))?;
        numbers["data_sha256"] =
            data.files.as_array().into_iter().flatten().map(|file| file["sha256"].clone()).collect();
        if run.if_exists == IfExists::Resume {
            directory.check_settings(&numbers)?;
        }
        directory.describe(&json!({
            "program": "bert-finetune",
            "version": env!("CARGO_PKG_VERSION"),
            "settings": numbers,
            "run": {"output": run.output, "device": run.device, "seeds": run.seeds},
            "device": device_name,
            "steps": steps,
            "model": self.config,
            "labels": self.config.labels()?,
            "data": data.files,
            "examples": {"train": data.training.len(), "eval": data.evaluation.len(), "test": data.test.len()},
        }))?;

        let checkpoints = directory.checkpoints(KEEP)?;
        let optimizer_config = OptimizerConfig { weight_decay: settings.weight_decay, ..OptimizerConfig::default() };
        let model = settings.adaptation.prepare(model, mix(&[settings.seed, ADAPTERS]), device);
        let optimizer = Optimizer::new(optimizer_config);
        let mut state = TrainingState::new(model, optimizer);
        if run.if_exists == IfExists::Resume {
            if let Some(found) = checkpoints.newest()? {
                found.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                found.check_settings(&numbers)?;
                state = found.restore(state.model, &self.config, Optimizer::new(optimizer_config), device)?;
                state.model = settings.adaptation.freeze(state.model);
            }
            directory.rewind_metrics(state.step)?;
        }
        let path = directory.path().to_path_buf();
        let mut learning = FineTuning {
            run: self,
            data,
            evaluation,
            steps_per_epoch,
            directory: path.clone(),
            best: None,
            epochs_since_best: 0,
        };
        learning.replay_metrics(&directory.metrics()?);
        let cursor = serde_json::from_value(state.cursor.clone()).unwrap_or_default();
        let source = EpochSource {
            items: training.items(),
            task,
            batch_size: settings.batch_size,
            seed: settings.seed,
            cursor,
            batches: vec![],
        };
        let plan = Plan {
            schedule: settings.schedule(steps),
            until: steps,
            clip: (settings.clip > 0.0).then_some(settings.clip),
            seed: settings.seed,
            eval_every: steps_per_epoch,
            save_every: steps_per_epoch,
            precision: Precision::F32,
            gradient_checkpointing: false,
            settings: numbers,
            quiet: run.quiet,
        };
        let (state, ended) = std::thread::scope(|scope| {
            let batches = prefetch(scope, source);
            train(state, &mut learning, &batches, &plan, &mut directory, &checkpoints, self.interrupt)
        })?;
        if let Ended::Interrupted(_) = ended {
            return Ok(FinetuneOutcome { ended, summary: Value::Null });
        }
        let best = match learning.best.take() {
            Some(best) => best,
            None => {
                // Nothing to choose by: the last epoch it is.
                self.save(&path, &state.model, &Map::new())?;
                Best { epoch: settings.epochs, metrics: Map::new() }
            }
        };
        let test = match data.test.is_empty() {
            true => Value::Null,
            false => {
                let kept = load(&path, device)?;
                let mut task = task.clone();
                task.tune(&best.metrics);
                evaluate(&task, &kept.model, &data.test, &Encoded::new(&task, &data.test)?, device)?.0.into()
            }
        };
        report::write(&path)?;
        let summary = json!({
            "eval": best.metrics,
            "test": test,
            "best_epoch": best.epoch,
            "seconds": started.elapsed().as_secs_f64(),
            "model": path.display().to_string(),
        });
        Ok(FinetuneOutcome { ended, summary })
    }

    /// Writes the model, adapters merged, with what was chosen by `metrics`.
    fn save(&self, directory: &Path, model: &ModelOf<T>, metrics: &Map<String, Value>) -> Result<()> {
        save(directory, &model.clone().materialize(), &self.config, &self.tokenizer)?;
        let threshold = metrics.get("no_answer_threshold").and_then(Value::as_f64);
        let no_answer_threshold = self.description.no_answer_threshold.map(|usual| threshold.unwrap_or(usual));
        Description { no_answer_threshold, ..self.description.clone() }.save(directory)
    }
}

/// The epoch whose model is kept.
#[derive(Debug, Clone)]
struct Best {
    epoch: u64,
    metrics: Map<String, Value>,
}

/// Learning with an evaluation after every epoch.
struct FineTuning<'a, T: Task> {
    run: &'a Run<'a, T>,
    data: &'a LabeledData<T>,
    evaluation: Encoded<T>,
    steps_per_epoch: u64,
    directory: PathBuf,
    best: Option<Best>,
    /// Epochs since the best one.
    epochs_since_best: u64,
}

impl<T: Task> FineTuning<'_, T> {
    /// What the epochs before a resumption came to.
    fn replay_metrics(&mut self, metrics: &[Value]) {
        for record in metrics {
            if let (Some(step), Some(metrics)) = (record["step"].as_u64(), record["eval"].as_object()) {
                self.keep_if_best(step / self.steps_per_epoch, metrics.clone());
            }
        }
    }

    /// Whether this epoch is the best so far.
    fn keep_if_best(&mut self, epoch: u64, metrics: Map<String, Value>) -> bool {
        let name = self.run.task.main_metric();
        let value =
            |metrics: &Map<String, Value>| metrics.get(name).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY);
        let is_best = self.best.as_ref().is_none_or(|best| value(&metrics) > value(&best.metrics));
        if is_best {
            self.best = Some(Best { epoch, metrics });
            self.epochs_since_best = 0;
        } else {
            self.epochs_since_best += 1;
        }
        is_best
    }
}

impl<'a, T: Task> bert_train::Objective for FineTuning<'a, T> {
    type Model = ModelOf<T>;
    type Batch = Batch<'a, T>;

    fn split(&self, batch: Self::Batch, parts: usize) -> Vec<Self::Batch> {
        let Batch { items, terms } = batch;
        let parts = split_by_length(items, Item::tokens, parts);
        parts.into_iter().map(|items| Batch { items, terms }).collect()
    }

    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses {
        let Run { task, device, .. } = self.run;
        let hidden = hidden_states(task, model, &batch.items, &device.clone().autodiff());
        let (inputs, targets): (Vec<&InputOf<T>>, Vec<&T::Target>) =
            batch.items.iter().map(|item| (item.input, item.target)).unzip();
        Losses { total: task.loss(model, hidden, &inputs, &targets) / batch.terms, parts: Vec::new() }
    }

    fn evaluate(&mut self, model: &Self::Model, step: u64) -> Result<Map<String, Value>> {
        let examples = &self.data.evaluation;
        if examples.is_empty() {
            return Ok(Map::new());
        }
        let Run { device, settings, .. } = self.run;
        let mut task = self.run.task.clone();
        let (mut metrics, outputs) = evaluate(&task, model, examples, &self.evaluation, device)?;
        if task.tune(&metrics) {
            metrics = metrics_of(&task, examples, &self.evaluation, &outputs);
        }
        let epoch = step / self.steps_per_epoch;
        let mistakes = task.mistakes(examples, &self.evaluation.inputs, &outputs);
        if self.keep_if_best(epoch, metrics.clone()) {
            self.run.save(&self.directory, model, &metrics)?;
            EvaluationRecord { epoch, metrics: metrics.clone(), mistakes }.save(&self.directory)?;
        }
        if settings.early_stop.is_some_and(|patience| self.epochs_since_best >= patience) {
            metrics.insert("stop".into(), true.into());
        }
        Ok(metrics)
    }
}

/// The metrics of a model (without autodiff) on labeled examples, and the head's outputs that they were computed from.
///
/// # Errors
/// If the system refuses threads.
pub fn evaluate<T: Task>(
    task: &T,
    model: &ModelOf<T>,
    examples: &[T::Example],
    encoded: &Encoded<T>,
    device: &Device,
) -> Result<(Map<String, Value>, OutputsOf<T>)> {
    let outputs = encoded.score(task, model, device)?;
    Ok((metrics_of(task, examples, encoded, &outputs), outputs))
}

fn metrics_of<T: Task>(
    task: &T,
    examples: &[T::Example],
    encoded: &Encoded<T>,
    outputs: &[Vec<OutputOf<T>>],
) -> Map<String, Value> {
    let mut metrics = task.metrics(examples, &encoded.inputs, outputs);
    metrics.insert("examples".into(), examples.len().into());
    metrics
}
