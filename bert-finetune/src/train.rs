//! `bert-finetune train` and `evaluate`: every epoch ends with a look at the evaluation examples, and the model of the
//! best epoch stays. Several seeds are several runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bert_model::device::{self, NamedDevice};
use bert_model::pretrained::weights::Weights;
use bert_model::pretrained::{load_config, load_weights, save};
use bert_model::train::checkpoint::sha256_of;
use bert_model::train::run_directory::check_inputs;
use bert_model::train::workers::split_by_length;
use bert_model::train::{
    Adaptation, Ended, IfExists, Interrupt, Losses, Optimizer, OptimizerConfig, Plan, Precision, RunDirectory,
    StepBatches, StepSource, TrainingState, prefetch, train,
};
use bert_model::{BertConfig, Error, Pretrained, Result, Tokenizer};
use bert_pretrain::shuffle::{Permutation, mix};
use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::description::Description;
use crate::features::{Encoded, Item, hidden_states};
use crate::for_task;
use crate::predict::{Scored, score};
use crate::report::{self, EvaluationRecord};
use crate::seeds;
use crate::settings::{RunSettings, TrainSettings};
use crate::tasks::Task;

/// Tags that keep streams of random numbers apart.
const SPLIT: u64 = 21;
const ORDER: u64 = 22;
const HEAD: u64 = 23;
const ADAPTERS: u64 = 24;

/// Checkpoints that are kept: should the newest be damaged, there is one before it.
const KEEP: usize = 2;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub ended: Ended,
    /// What `--json` prints.
    pub summary: Value,
}

/// Labelled examples by their use.
struct Data<T: Task> {
    training: Vec<T::Example>,
    evaluation: Vec<T::Example>,
    test: Vec<T::Example>,
    files: Value,
}

/// Where labelled examples are read from.
#[derive(Debug, Clone)]
pub struct Files {
    /// To learn from.
    pub training: PathBuf,
    /// To choose the best epoch by; `None` to set a share of the training examples aside.
    pub evaluation: Option<PathBuf>,
    /// To be looked at once.
    pub test: Option<PathBuf>,
}

/// Says on stderr how many texts were cut, if any.
pub fn warn_of_cut(texts: u64) {
    if texts > 0 {
        eprintln!("warning: {texts} text(s) longer than the model reads (--max-seq-len), their ends left out");
    }
}

/// Runs `bert-finetune train` on labelled files.
///
/// # Errors
/// Whatever can be wrong with the model, the files, the device or the numbers.
pub fn run(settings: &TrainSettings, run: &RunSettings, files: &Files, interrupt: &Interrupt) -> Result<Outcome> {
    let inputs = [Some(&settings.model), Some(&files.training), files.evaluation.as_ref(), files.test.as_ref()];
    check_inputs(&run.output, run.if_exists, inputs.into_iter().flatten())?;
    match run.seeds {
        1 => run_once(settings, run, files, interrupt),
        _ => seeds::run_all(settings, run, files, interrupt),
    }
}

/// One run with one seed.
///
/// # Errors
/// As [`run`].
pub fn run_once(settings: &TrainSettings, run: &RunSettings, files: &Files, interrupt: &Interrupt) -> Result<Outcome> {
    let NamedDevice { name, device } = device::select(&run.device)?;
    if !run.quiet {
        eprintln!("device: {name}");
    }
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
    let labels = description.learn_labels(&files.training)?;
    let (labels, keeps_head) = fit_to_head(labels, description.task.architecture(), &config);
    let is_same_class = config.architectures.iter().flatten().any(|name| name == description.task.architecture());
    if is_same_class && !keeps_head && !settings.from_scratch && !run.quiet {
        eprintln!("{}: its head is for other labels and stays behind; a fresh one learns", settings.model.display());
    }
    let task = description.task(labels.clone(), &tokenizer)?;
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

fn read_data<T: Task>(settings: &TrainSettings, files: &Files, task: &T) -> Result<Data<T>> {
    let mut training = task.read(&files.training)?;
    let evaluation = match &files.evaluation {
        Some(path) => task.read(path)?,
        None => set_aside(&mut training, settings.eval_share, mix(&[settings.split_seed, SPLIT])),
    };
    if training.is_empty() {
        let expected = "more, so that one can be set aside (or --eval FILE, or --eval-share 0)";
        return Err(Error::file(&files.training, format!("{} example(s)", evaluation.len()), expected));
    }
    let test = files.test.as_deref().map(|path| task.read(path)).transpose()?.unwrap_or_default();
    let paths = [Some(&files.training), files.evaluation.as_ref(), files.test.as_ref()];
    let files = paths.into_iter().flatten().map(|path| describe_file(path)).collect::<Result<Vec<_>>>()?;
    Ok(Data { training, evaluation, test, files: files.into() })
}

fn describe_file(path: &Path) -> Result<Value> {
    let bytes = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    Ok(json!({"path": path.display().to_string(), "bytes": bytes, "sha256": sha256_of(path)?}))
}

/// Takes a random share out of the examples, in their order; at least one if the share is not 0.
fn set_aside<E>(examples: &mut Vec<E>, share: f64, seed: u64) -> Vec<E> {
    let count = examples.len() as u64;
    let wanted = if share > 0.0 { ((count as f64 * share).round() as u64).clamp(1, count.max(2) - 1) } else { 0 };
    let order = Permutation::new(count, seed);
    let (mut kept, mut aside) = (Vec::new(), Vec::new());
    for (index, example) in examples.drain(..).enumerate() {
        if order.apply(index as u64) < wanted { &mut aside } else { &mut kept }.push(example);
    }
    *examples = kept;
    aside
}

/// The configuration with the head of the task.
fn with_head(config: BertConfig, description: &Description, labels: &[String]) -> BertConfig {
    let mut config = if labels.is_empty() { config.without_labels() } else { config.with_labels(labels) };
    config.problem_type = description.task.problem_type();
    config
}

/// The labels, in the order of the checkpoint's head if that is one for the same task and labels; and whether it is.
fn fit_to_head(labels: Vec<String>, architecture: &str, checkpoint: &BertConfig) -> (Vec<String>, bool) {
    if !checkpoint.architectures.iter().flatten().any(|name| name == architecture) {
        return (labels, false);
    }
    let numbered = |prefix: &str, count: usize| (0..count).map(|id| format!("{prefix}{id}")).collect::<Vec<_>>();
    let nameless = numbered("LABEL_", checkpoint.num_labels());
    let named = checkpoint.labels().ok().flatten().unwrap_or_else(|| nameless.clone());
    let sorted = |labels: &[String]| BTreeSet::from_iter(labels.iter().cloned());
    // Heads for questions and choices have no labels; a value has a name that says nothing.
    let is_by_number = named == nameless && (labels.len() == 1 || labels == numbered("", labels.len()));
    if !labels.is_empty() && sorted(&named) == sorted(&labels) {
        return (named, true);
    }
    let is_fit = labels.is_empty() || is_by_number && named.len() == labels.len();
    (labels, is_fit)
}

/// The encoder of the checkpoint under a fresh head; under its own, if that is for the same task and labels (a reader of
/// questions that goes on with others).
fn initial_model<M: Pretrained>(
    settings: &TrainSettings,
    keeps_head: bool,
    config: &BertConfig,
    device: &Device,
    quiet: bool,
) -> Result<M> {
    let seed = mix(&[settings.seed, HEAD]);
    if settings.from_scratch {
        return Ok(M::fresh(config, seed, device));
    }
    let weights = Weights::open(&settings.model)?;
    let weights = if keeps_head { weights } else { weights.without(&["classifier", "qa_outputs"]) };
    let loaded = load_weights::<M>(&weights, config.clone(), seed, device)?;
    let unexpected: Vec<&str> =
        loaded.initialised.iter().map(String::as_str).filter(|n| n.contains("pooler")).collect();
    if !unexpected.is_empty() && !quiet {
        eprintln!("warning: {}: no pooler in the checkpoint, freshly initialised", settings.model.display());
    }
    Ok(loaded.model)
}

/// Everything that stays the same during a run.
struct Run<'a, T: Task> {
    settings: &'a TrainSettings,
    run: &'a RunSettings,
    /// With what was learned of the labels.
    description: Description,
    config: BertConfig,
    tokenizer: Tokenizer,
    task: T,
    device: Device,
    interrupt: &'a Interrupt,
}

impl<T: Task> Run<'_, T> {
    fn train(&self, model: T::Model, data: &Data<T>, directory: RunDirectory, device_name: &str) -> Result<Outcome> {
        let started = Instant::now();
        let Self { settings, run, task, device, .. } = self;
        let mut directory = directory;
        let mut training = Encoded::new(task, &data.training)?;
        let mut evaluation = Encoded::new(task, &data.evaluation)?;
        warn_of_cut(task.cut());
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
        let mut learning =
            FineTuning { run: self, data, evaluation, steps_per_epoch, directory: path.clone(), best: None, waited: 0 };
        learning.recall(&directory.metrics()?);
        let place = serde_json::from_value(state.cursor.clone()).unwrap_or_default();
        let source = EpochSource {
            items: training.items(),
            task,
            batch_size: settings.batch_size,
            seed: settings.seed,
            place,
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
            return Ok(Outcome { ended, summary: Value::Null });
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
                let kept = load_weights(&Weights::open(&path)?, self.config.clone(), 0, device)?;
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
        Ok(Outcome { ended, summary })
    }

    /// Writes the model, adapters merged, with what was chosen by `metrics`.
    fn save(&self, directory: &Path, model: &T::Model, metrics: &Map<String, Value>) -> Result<()> {
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
    data: &'a Data<T>,
    evaluation: Encoded<T>,
    steps_per_epoch: u64,
    directory: PathBuf,
    best: Option<Best>,
    /// Epochs since the best one.
    waited: u64,
}

impl<T: Task> FineTuning<'_, T> {
    /// What the epochs before a resumption came to.
    fn recall(&mut self, metrics: &[Value]) {
        for record in metrics {
            if let (Some(step), Some(metrics)) = (record["step"].as_u64(), record["eval"].as_object()) {
                self.judge(step / self.steps_per_epoch, metrics.clone());
            }
        }
    }

    /// Whether this epoch is the best so far.
    fn judge(&mut self, epoch: u64, metrics: Map<String, Value>) -> bool {
        let name = self.run.task.main_metric();
        let value =
            |metrics: &Map<String, Value>| metrics.get(name).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY);
        let is_best = self.best.as_ref().is_none_or(|best| value(&metrics) > value(&best.metrics));
        if is_best {
            self.best = Some(Best { epoch, metrics });
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        is_best
    }
}

impl<'a, T: Task> bert_model::train::Task for FineTuning<'a, T> {
    type Model = T::Model;
    type Batch = Batch<'a, T::Input>;

    fn split(&self, batch: Self::Batch, parts: usize) -> Vec<Self::Batch> {
        let Batch { items, terms } = batch;
        let parts = split_by_length(items, |item| self.run.task.tokens(item.input), parts);
        parts.into_iter().map(|items| Batch { items, terms }).collect()
    }

    fn sequences(&self, batch: &Self::Batch) -> usize {
        batch.items.iter().map(|item| self.run.task.sequences(item.input).len()).sum()
    }

    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses {
        let Run { task, device, .. } = self.run;
        let hidden = hidden_states(task, model, &batch.items, &device.clone().autodiff());
        let inputs: Vec<&T::Input> = batch.items.iter().map(|item| item.input).collect();
        Losses { total: task.loss(model, hidden, &inputs) / batch.terms, parts: Vec::new() }
    }

    fn evaluate(&mut self, model: &Self::Model, step: u64) -> Result<Map<String, Value>> {
        let examples = &self.data.evaluation;
        if examples.is_empty() {
            return Ok(Map::new());
        }
        let Run { device, settings, .. } = self.run;
        let mut task = self.run.task.clone();
        let (mut metrics, scored) = evaluate(&task, model, examples, &self.evaluation, device)?;
        if task.tune(&metrics) {
            metrics = metrics_of(&task, examples, &scored);
        }
        let epoch = step / self.steps_per_epoch;
        let mistakes = task.mistakes(examples, scored.inputs, &scored.scores);
        if self.judge(epoch, metrics.clone()) {
            self.run.save(&self.directory, model, &metrics)?;
            EvaluationRecord { epoch, metrics: metrics.clone(), mistakes }.save(&self.directory)?;
        }
        if settings.early_stop.is_some_and(|patience| self.waited >= patience) {
            metrics.insert("stop".into(), true.into());
        }
        Ok(metrics)
    }
}

/// The metrics of a model (without autodiff) on labelled examples, and what they were computed from.
///
/// # Errors
/// If the system refuses threads.
pub fn evaluate<'a, T: Task>(
    task: &T,
    model: &T::Model,
    examples: &[T::Example],
    encoded: &'a Encoded<T>,
    device: &Device,
) -> Result<(Map<String, Value>, Scored<'a, T>)> {
    let scored = score(task, model, encoded, device)?;
    Ok((metrics_of(task, examples, &scored), scored))
}

fn metrics_of<T: Task>(task: &T, examples: &[T::Example], scored: &Scored<T>) -> Map<String, Value> {
    let mut metrics = task.metrics(examples, scored.inputs, &scored.scores);
    metrics.insert("examples".into(), examples.len().into());
    metrics
}

/// Inputs that are trained on together, shortest first, and the number of loss terms in them.
pub struct Batch<'a, I> {
    items: Vec<Item<'a, I>>,
    terms: f64,
}

/// Which batch comes next.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Place {
    epoch: u64,
    batch: usize,
}

/// The training inputs, epoch after epoch, each in an order of its own.
struct EpochSource<'a, T: Task> {
    items: Vec<Item<'a, T::Input>>,
    task: &'a T,
    batch_size: usize,
    seed: u64,
    place: Place,
    /// The batches of the epoch at hand, made when it begins.
    batches: Vec<Vec<usize>>,
}

impl<T: Task> EpochSource<'_, T> {
    /// The epoch's batches, random ones: if like lengths came together, the words of short sentences would count for more.
    fn batches_of(&self, epoch: u64) -> Vec<Vec<usize>> {
        let count = self.items.len() as u64;
        let order = Permutation::new(count, mix(&[self.seed, ORDER, epoch]));
        let order: Vec<usize> = (0..count).map(|place| order.apply(place) as usize).collect();
        let mut batches: Vec<Vec<usize>> = order.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        for batch in &mut batches {
            batch.sort_by_key(|&index| self.task.tokens(self.items[index].input));
        }
        batches
    }
}

impl<'a, T: Task> StepSource for EpochSource<'a, T> {
    type Batch = Batch<'a, T::Input>;

    fn next_step(&mut self) -> Result<Option<StepBatches<Self::Batch>>> {
        if self.batches.is_empty() {
            self.batches = self.batches_of(self.place.epoch);
        }
        let items: Vec<Item<T::Input>> =
            self.batches[self.place.batch].iter().map(|&index| self.items[index]).collect();
        let tokens = items.iter().map(|item| self.task.tokens(item.input) as u64).sum();
        let terms: f64 = items.iter().map(|item| self.task.terms(item.input)).sum();
        // Sentences without a word have none; their loss is then 0.
        let terms = if terms > 0.0 { terms } else { 1.0 };
        self.place.batch += 1;
        let epoch = self.place.epoch as f64 + self.place.batch as f64 / self.batches.len() as f64;
        if self.place.batch == self.batches.len() {
            self.place = Place { epoch: self.place.epoch + 1, batch: 0 };
            self.batches.clear();
        }
        let cursor = serde_json::to_value(self.place).map_err(|error| Error::Setting(error.to_string()))?;
        Ok(Some(StepBatches { batches: vec![Batch { items, terms }], tokens, epoch, cursor }))
    }
}
