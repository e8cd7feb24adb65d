//! The training loop, from top to bottom.

use std::sync::mpsc::Receiver;
use std::time::Instant;

use bert_model::ops::optimizer::{Reading, is_asynchronous};
use bert_model::ops::{dropout, hash, tape};
use bert_model::{Error, Result, Workers};
use burn::module::Module;
use burn::prelude::*;
use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoints;
use super::communicator::{Communicator, Solo};
use super::gradients::{GradientSum, OrderedSum};
use super::interrupt::Interrupt;
use super::precision::{LossScale, Precision};
use super::prefetch::StepBatches;
use super::progress::Progress;
use super::run_directory::RunDirectory;
use super::schedule::{Decay, Schedule};
use super::state::TrainingState;

/// What is being learned: how a batch becomes a loss, and how the model is judged.
pub trait Objective: Sync {
    /// The model that is trained.
    type Model: Module;
    /// A micro-batch on the host.
    type Batch: Send;

    /// Cuts a micro-batch into at most `parts` parts, and at least one, whose losses add up to its own; each goes to a core.
    fn split(&self, batch: Self::Batch, parts: usize) -> Vec<Self::Batch>;

    /// Cuts a part, which a worker has to itself, into pieces that it computes one after another, each with a backward
    /// pass of its own: the memory of one piece, and losses that add up to the part's. All parts of a micro-batch come
    /// here at the same time, so that those whose losses depend on one another can exchange what they need.
    fn pieces(&self, _model: &Self::Model, part: Self::Batch, _masks: Masks) -> Vec<Self::Batch> {
        vec![part]
    }

    /// Number of sequences that the model sees in a micro-batch or a part of one.
    fn sequences(&self, batch: &Self::Batch) -> usize;

    /// The loss of one micro-batch, already weighted so that the losses of a step's micro-batches add up to the loss of
    /// the step.
    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses;

    /// Judges the model on held-out data; `model` has no dropout and no autodiff.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn evaluate(&mut self, _model: &Self::Model, _step: u64) -> Result<Evaluation> {
        Ok(Evaluation::default())
    }
}

/// The dropout masks of a part of a micro-batch.
#[derive(Debug, Clone, Copy)]
pub struct Masks {
    seed: u64,
    first_sequence: usize,
}

impl Masks {
    /// Begins the masks of the part's sequences from number `sequence` on, on this thread: the forward pass that follows
    /// has those of the whole micro-batch, however often it is computed.
    pub fn begin(&self, sequence: usize) {
        dropout::seed(self.seed, self.first_sequence + sequence);
    }
}

/// What an evaluation came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// By name; empty without held-out data.
    pub metrics: Map<String, Value>,
    /// Whether training ends here.
    pub stop: bool,
}

/// A loss and the parts that it is the sum of, each of shape `[1]`.
#[derive(Debug)]
pub struct Losses {
    /// What is minimized.
    pub total: Tensor<1>,
    /// Named parts, for the log.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// Everything that does not change during training.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Learning rate and number of steps.
    pub schedule: Schedule,
    /// The step at which this part of the run ends; the last one of the schedule, unless there are phases.
    pub until: u64,
    /// Limit of the global gradient norm.
    pub clip: Option<f64>,
    /// Of dropout.
    pub seed: u64,
    /// Steps between two evaluations, 0 for one at the end only.
    pub eval_every: u64,
    /// Steps between two checkpoints, besides that of the end; 0 for none.
    pub save_every: u64,
    /// In which numbers to compute.
    pub precision: Precision,
    /// Trade time for memory: keep only the inputs of the encoder layers, compute the rest again in the backward pass.
    pub gradient_checkpointing: bool,
    /// What a checkpoint keeps of the run's settings, to refuse to go on with others.
    pub settings: Value,
    /// No progress on stderr.
    pub quiet: bool,
}

impl Plan {
    /// So many steps at one learning rate, with gradients clipped at 1 and nothing around them.
    pub fn constant(learning_rate: f64, steps: u64) -> Self {
        Self {
            schedule: Schedule { peak: learning_rate, warmup: 0, steps, decay: Decay::Constant },
            until: steps,
            clip: Some(1.0),
            seed: 42,
            eval_every: 0,
            save_every: 0,
            precision: Precision::F32,
            gradient_checkpointing: false,
            settings: Value::Null,
            quiet: true,
        }
    }
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done, or there was no more data.
    Finished,
    /// [`Objective::evaluate`] asked for it.
    Stopped,
    /// A signal came, a checkpoint was written; the exit code is 130 or 143.
    Interrupted(i32),
}

/// Trains until the plan's last step; every step is one line of `metrics.jsonl`. Steps that run out before end it too, then
/// without the evaluation and the checkpoint of the end. On a GPU the numbers of a step are read while the next one is
/// queued.
///
/// # Errors
/// If data cannot be read, a file cannot be written, or a number stops being finite.
#[allow(clippy::too_many_arguments)]
pub fn train<O: Objective>(
    mut state: TrainingState<O::Model>,
    objective: &mut O,
    steps: &Receiver<Result<StepBatches<O::Batch>>>,
    plan: &Plan,
    run: &mut RunDirectory,
    checkpoints: &Checkpoints,
    interrupt: &Interrupt,
) -> Result<(TrainingState<O::Model>, Ended)> {
    let device = state.model.devices().first().cloned().unwrap_or_default();
    let progress = Progress::new("training", Some(plan.schedule.steps), state.step, plan.quiet);
    let mut log = StepLog { run, progress, queued: None, finished: Instant::now() };
    state.model = state.model.train();
    let mut ended = Ended::Finished;
    let workers = Workers::for_device(&device)?;
    let is_asynchronous = is_asynchronous(&device);

    let _guard = interrupt.defer();
    while state.step < plan.until {
        let Ok(step_batches) = steps.recv() else { break };
        let StepBatches { batches, tokens, epoch, cursor } = step_batches?;
        let taken;
        (state, taken) = take_step(state, objective, batches, plan, &workers, &Solo)?;
        state.cursor = cursor;
        let step = state.step;
        let is_last = step == plan.schedule.steps;
        let evaluates = is_last || is_due(step, plan.eval_every);
        let interrupted = interrupt.requested();
        let saves = is_due(step, plan.save_every) || is_last && plan.save_every > 0 || interrupted.is_some();
        log.queue(taken, tokens, epoch)?;
        if !is_asynchronous || evaluates || saves {
            log.flush()?;
        }
        if evaluates {
            let Evaluation { metrics, stop } = objective.evaluate(&state.model.valid(), step)?;
            log.evaluation(step, &metrics)?;
            if stop {
                ended = Ended::Stopped;
                break;
            }
        }
        let interrupted = interrupted.or_else(|| interrupt.requested());
        if saves || interrupted.is_some() {
            log.flush()?;
            let path = checkpoints.save(&state, &plan.settings)?;
            log.finished = Instant::now();
            if let Some(code) = interrupted {
                let path = path.display();
                log.progress.say(&format!("interrupted after step {step}; saved {path}, go on with --resume"));
                ended = Ended::Interrupted(code);
                break;
            }
        }
    }
    log.flush()?;
    log.progress.finish();
    state.model = state.model.valid();
    Ok((state, ended))
}

/// Writes the log, a step at a time; the last step may still be on its way from the GPU.
struct StepLog<'a> {
    run: &'a mut RunDirectory,
    progress: Progress,
    queued: Option<(PendingStep, u64, f64)>,
    /// When the last step was logged.
    finished: Instant,
}

impl StepLog<'_> {
    /// Logs the step before, and takes this one, of so many tokens in this epoch.
    fn queue(&mut self, step: PendingStep, tokens: u64, epoch: f64) -> Result<()> {
        self.flush()?;
        self.queued = Some((step, tokens, epoch));
        Ok(())
    }

    /// Logs the queued step.
    fn flush(&mut self) -> Result<()> {
        let Some((step, tokens, epoch)) = self.queued.take() else { return Ok(()) };
        let Step { number, losses, norm, learning_rate } = step.wait()?;
        let speed = tokens as f64 / self.finished.elapsed().as_secs_f64();
        self.finished = Instant::now();
        let line = format!("{} lr {learning_rate:.2e} {speed:.0} tokens/s", describe(&losses));
        self.progress.update(number, &line);
        self.run.log(&record(number, epoch, losses, learning_rate, norm, speed))
    }

    fn evaluation(&mut self, step: u64, metrics: &Map<String, Value>) -> Result<()> {
        if !metrics.is_empty() {
            self.progress.say(&format!("step {step}: {}", describe(metrics)));
            self.run.log(&json!({"step": step, "eval": metrics}))?;
        }
        self.finished = Instant::now();
        Ok(())
    }
}

/// What one step came to.
#[derive(Debug, Clone)]
pub struct Step {
    /// The number of the step, from 1.
    pub number: u64,
    /// The losses of the step, by name.
    pub losses: Map<String, Value>,
    /// The global norm of its gradient, before clipping.
    pub norm: f64,
    /// The learning rate that it used.
    pub learning_rate: f64,
}

/// A step whose numbers may still be on their way from a GPU.
#[derive(Debug)]
pub struct PendingStep {
    number: u64,
    names: Vec<&'static str>,
    reading: Reading,
    /// The gradient norm, where it is known already; else it is read with the losses.
    norm: Option<f64>,
    learning_rate: f64,
    precision: Precision,
}

impl PendingStep {
    /// The step's numbers; waits for a GPU.
    ///
    /// # Errors
    /// If a loss or the gradient is not finite; the parameters have not moved then.
    pub fn wait(self) -> Result<Step> {
        let Self { number, names, reading, norm, learning_rate, precision } = self;
        let values = reading.wait();
        let (losses, rest) = values.split_at(names.len());
        let (norm, factor) = (norm.unwrap_or(f64::from(rest[0])), rest[1]);
        let named = names.into_iter().zip(losses);
        let losses = named
            .map(|(name, &value)| Ok((name.to_string(), finite(number, name, f64::from(value))?.into())))
            .collect::<Result<_>>()?;
        let norm = match LossScale::may_skip(precision, factor) {
            true => norm,
            false => finite(number, "the gradient norm", norm)?,
        };
        Ok(Step { number, losses, norm, learning_rate })
    }
}

/// One step: shard, forward and backward, reduce, clip, update. The model of `state` is on a training device. On a GPU the
/// step is queued, and [`PendingStep::wait`] waits for it.
///
/// # Errors
/// If the objective cuts a micro-batch into no part or more than it was asked for, or another process fails.
pub fn take_step<O: Objective>(
    mut state: TrainingState<O::Model>,
    objective: &O,
    batches: Vec<O::Batch>,
    plan: &Plan,
    workers: &Workers,
    communicator: &impl Communicator,
) -> Result<(TrainingState<O::Model>, PendingStep)> {
    let device = state.model.devices().first().cloned().unwrap_or_default();
    let new_scale = || LossScale::new(plan.precision, state.saved_scale, &device);
    let mut loss_scale = state.loss_scale.take().unwrap_or_else(new_scale);
    let (mut gradients, mut losses) = (GradientSum::default(), LossSum::default());

    let model = plan.precision.copy(&state.model);
    for (index, batch) in batches.into_iter().enumerate() {
        let seed = dropout_seed(plan.seed, state.step, index);
        let shards = shard(objective, batch, workers.count())?;
        for loss in forward_backward(&model, objective, shards, (plan, &loss_scale, seed), workers, &mut gradients) {
            losses.add(loss);
        }
    }
    drop(model);
    communicator.all_reduce(&mut gradients, &mut losses)?;
    let learning_rate = plan.schedule.learning_rate(state.step);
    let control = state.optimizer.control(&gradients, learning_rate, plan.clip, &mut loss_scale);
    state.model = state.optimizer.step(state.model, gradients, &control);

    state.step += 1;
    let factor = loss_scale.factor(&device);
    let (names, values) = losses.with([control.norm(&device), factor], state.step)?;
    state.loss_scale = Some(loss_scale);
    let (number, precision, reading) = (state.step, plan.precision, Reading::start(values));
    let norm = control.host_norm();
    Ok((state, PendingStep { number, names, reading, norm, learning_rate, precision }))
}

/// A part of a micro-batch, for one worker.
struct Shard<B> {
    batch: B,
    /// The number of its first sequence within the micro-batch.
    first_sequence: usize,
}

/// Cuts a micro-batch into a part for each worker, or fewer.
fn shard<O: Objective>(objective: &O, batch: O::Batch, workers: usize) -> Result<Vec<Shard<O::Batch>>> {
    let parts = objective.split(batch, workers);
    if !(1..=workers).contains(&parts.len()) {
        let found = parts.len();
        return Err(Error::Setting(format!("Objective::split: found {found} parts, expected 1 to {workers}")));
    }
    let mut first_sequence = 0;
    let shard = |batch: O::Batch| {
        let shard = Shard { first_sequence, batch };
        first_sequence += objective.sequences(&shard.batch);
        shard
    };
    Ok(parts.into_iter().map(shard).collect())
}

/// The losses of a micro-batch's shards, each computed by a worker of its own with a copy of the model, piece by piece; their
/// gradients are added to `gradients` in the order of the shards.
fn forward_backward<O: Objective>(
    model: &O::Model,
    objective: &O,
    shards: Vec<Shard<O::Batch>>,
    (plan, loss_scale, seed): (&Plan, &LossScale, u64),
    workers: &Workers,
    gradients: &mut GradientSum,
) -> Vec<Losses> {
    let sum = OrderedSum::new(gradients, shards.len());
    let device = model.devices().first().cloned().unwrap_or_default();
    let work = shards.into_iter().zip(sum.turns()).map(|(shard, turns)| (shard, turns, model.clone().fork(&device)));
    let losses = workers.run(work.collect(), |(Shard { batch, first_sequence }, mut turns, model)| {
        let masks = Masks { seed, first_sequence };
        let mut sequences = 0;
        let mut learn = |piece: O::Batch| {
            masks.begin(sequences);
            sequences += objective.sequences(&piece);
            let (losses, tape) = tape::record(plan.gradient_checkpointing, || objective.loss(&model, piece));
            let loss = loss_scale.scaled(losses.total.clone());
            tape.backward(loss, |part| turns.take(|gradients| gradients.add(&model, part)));
            losses
        };
        objective.pieces(&model, batch, masks).into_iter().map(&mut learn).collect::<Vec<_>>()
    });
    losses.into_iter().flatten().collect()
}

/// The dropout of a micro-batch depends on nothing but the run's seed and its place, so that a resumed run repeats it.
fn dropout_seed(seed: u64, step: u64, micro_batch: usize) -> u64 {
    [step, micro_batch as u64].into_iter().fold(seed, |seed, number| hash::mix(seed ^ number))
}

fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn finite(step: u64, what: &'static str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::NotFinite { step, what, value }) }
}

/// "loss 2.310 mlm_loss 1.900 …": the numbers of a record, short.
fn describe(record: &Map<String, Value>) -> String {
    let number = |(name, value): (&String, &Value)| value.as_f64().map(|value| format!("{name} {value:.4}"));
    record.iter().filter_map(number).collect::<Vec<_>>().join(" ")
}

fn record(step: u64, epoch: f64, losses: Map<String, Value>, lr: f64, norm: f64, speed: f64) -> Value {
    let mut record = Map::from_iter([("step".to_string(), step.into()), ("epoch".to_string(), epoch.into())]);
    record.extend(losses);
    record.extend([
        ("lr".to_string(), lr.into()),
        ("grad_norm".to_string(), norm.into()),
        ("tokens_per_second".to_string(), speed.round().into()),
    ]);
    Value::Object(record)
}

/// The losses of a step's micro-batches, still on the device.
#[derive(Default)]
pub struct LossSum {
    sums: Vec<(&'static str, Tensor<1>)>,
}

impl LossSum {
    fn add(&mut self, losses: Losses) {
        let named = std::iter::once(("loss", losses.total)).chain(losses.parts);
        for (name, value) in named {
            let value = value.inner();
            match self.sums.iter_mut().find(|(summed, _)| *summed == name) {
                Some((_, sum)) => *sum = sum.clone() + value,
                None => self.sums.push((name, value)),
            }
        }
    }

    /// The names, and all losses with the numbers of `more` behind them as one tensor.
    fn with(self, more: [Tensor<1>; 2], step: u64) -> Result<(Vec<&'static str>, Tensor<1>)> {
        let (names, mut values): (Vec<_>, Vec<_>) = self.sums.into_iter().unzip();
        if values.is_empty() {
            return Err(Error::Setting(format!("step {step}: found no micro-batch, expected at least one")));
        }
        values.extend(more);
        Ok((names, Tensor::cat(values, 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Optimizer, OptimizerConfig};
    use bert_model::{BertConfig, BertModel, Pretrained};

    /// Cuts everything into so many parts.
    struct Cuts(usize);

    impl Objective for Cuts {
        type Model = BertModel;
        type Batch = ();

        fn split(&self, (): (), _parts: usize) -> Vec<()> {
            vec![(); self.0]
        }

        fn sequences(&self, (): &()) -> usize {
            1
        }

        fn loss(&self, model: &BertModel, (): ()) -> Losses {
            Losses { total: model.embeddings.word.weight.val().sum(), parts: Vec::new() }
        }
    }

    /// A part too many would wait for its turn for ever.
    #[test]
    fn a_step_without_parts_or_with_too_many_is_refused() {
        let device = Device::flex();
        let workers = Workers::for_device(&device).unwrap();
        let take = |parts: usize, batches: Vec<()>| {
            let model = BertModel::init_seeded(&BertConfig::named("tiny").unwrap().with_vocab_size(9), 1, &device);
            let state = TrainingState::new(model.train(), Optimizer::new(OptimizerConfig::default()));
            take_step(state, &Cuts(parts), batches, &Plan::constant(1e-3, 1), &workers, &Solo)
        };
        for parts in [0, workers.count() + 1] {
            let error = take(parts, vec![()]).unwrap_err().to_string();
            assert!(error.contains(&format!("Objective::split: found {parts} parts, expected 1 to")), "{error}");
        }
        let error = take(1, vec![]).unwrap_err().to_string();
        assert!(error.contains("found no micro-batch"), "{error}");
        take(1, vec![()]).unwrap();
    }
}
