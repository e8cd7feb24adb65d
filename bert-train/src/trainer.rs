//! The training loop, from top to bottom.

use std::sync::mpsc::Receiver;
use std::time::Instant;

use bert_model::ops::{dropout, hash, tape};
use bert_model::{Error, Result, Workers};
use burn::module::Module;
use burn::prelude::*;
use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoints;
use super::gradients::{GradientSum, OrderedSum};
use super::interrupt::Interrupt;
use super::optimizer::clip_scale;
use super::precision::Precision;
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

    /// The loss of one micro-batch, already weighted so that the losses of a step's micro-batches add up to the loss of
    /// the step.
    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses;

    /// Metrics of the model on held-out data; `model` has no dropout and no autodiff. Empty if there is no such data. With
    /// `"stop": true` among them, training ends here.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn evaluate(&mut self, _model: &Self::Model, _step: u64) -> Result<Map<String, Value>> {
        Ok(Map::new())
    }
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
/// without the evaluation and the checkpoint of the end.
///
/// # Errors
/// If data cannot be read, a file cannot be written, or a number stops being finite.
pub fn train<T: Objective>(
    mut state: TrainingState<T::Model>,
    objective: &mut T,
    steps: &Receiver<Result<StepBatches<T::Batch>>>,
    plan: &Plan,
    run: &mut RunDirectory,
    checkpoints: &Checkpoints,
    interrupt: &Interrupt,
) -> Result<(TrainingState<T::Model>, Ended)> {
    let device = state.model.devices().first().cloned().unwrap_or_default();
    let mut progress = Progress::new("training", Some(plan.schedule.steps), state.step, plan.quiet);
    state.model = state.model.train();
    let mut ended = Ended::Finished;
    let workers = Workers::for_device(&device)?;

    let _guard = interrupt.defer();
    while state.step < plan.until {
        let started = Instant::now();
        let Ok(step_batches) = steps.recv() else { break };
        let StepBatches { batches, tokens, epoch, cursor } = step_batches?;
        let learned;
        (state, learned) = take_step(state, objective, batches, plan, &workers)?;
        state.cursor = cursor;
        let Step { losses, norm, learning_rate } = learned;
        let step = state.step;

        let speed = tokens as f64 / started.elapsed().as_secs_f64();
        progress.update(step, &format!("{} lr {learning_rate:.2e} {speed:.0} tokens/s", describe(&losses)));
        run.log(&record(step, epoch, losses, learning_rate, norm, speed))?;

        let is_last = step == plan.schedule.steps;
        if is_last || is_due(step, plan.eval_every) {
            let metrics = objective.evaluate(&state.model.valid(), step)?;
            let stop = metrics.get("stop") == Some(&true.into());
            if !metrics.is_empty() {
                progress.say(&format!("step {step}: {}", describe(&metrics)));
                run.log(&json!({"step": step, "eval": metrics}))?;
            }
            if stop {
                ended = Ended::Stopped;
                break;
            }
        }
        let interrupted = interrupt.requested();
        let is_end = is_last && plan.save_every > 0;
        if is_due(step, plan.save_every) || is_end || interrupted.is_some() {
            let path = checkpoints.save(&state, &plan.settings)?;
            if let Some(code) = interrupted {
                progress.say(&format!("interrupted after step {step}; saved {}, go on with --resume", path.display()));
                ended = Ended::Interrupted(code);
                break;
            }
        }
    }
    state.model = state.model.valid();
    progress.finish();
    Ok((state, ended))
}

/// What one step came to.
#[derive(Debug, Clone)]
pub struct Step {
    /// The losses of the step, by name.
    pub losses: Map<String, Value>,
    /// The global norm of its gradient, before clipping.
    pub norm: f64,
    /// The learning rate that it used.
    pub learning_rate: f64,
}

/// One step: forward and backward over all micro-batches, clipping, the optimizer. The model of `state` is on a training
/// device.
///
/// # Errors
/// If a loss or the gradient stops being finite, or the objective cuts a micro-batch into no part or more than it was asked for.
pub fn take_step<T: Objective>(
    mut state: TrainingState<T::Model>,
    objective: &T,
    batches: Vec<T::Batch>,
    plan: &Plan,
    workers: &Workers,
) -> Result<(TrainingState<T::Model>, Step)> {
    let device = state.model.devices().first().cloned().unwrap_or_default();
    let scale = state.loss_scale.factor(plan.precision);
    let mut gradients = GradientSum::default();
    let mut losses = LossSum::default();
    for (index, batch) in batches.into_iter().enumerate() {
        // Every part has a copy of the model to itself, with the same numbers, and adds to the one sum of gradients.
        let parts = objective.split(batch, workers.count());
        if !(1..=workers.count()).contains(&parts.len()) {
            let (found, most) = (parts.len(), workers.count());
            return Err(Error::Setting(format!("Objective::split: found {found} parts, expected 1 to {most}")));
        }
        let shared = OrderedSum::new(&mut gradients, parts.len());
        let parts = parts.into_iter().zip(shared.turns()).enumerate();
        let parts = parts.map(|(part, with)| (part, with, plan.precision.copy(&state.model, &device))).collect();
        let part_losses = workers.run(parts, |(part, (batch, mut turn), model)| {
            dropout::seed(dropout_seed(plan.seed, state.step, index, part));
            let (loss, tape) = tape::record(plan.gradient_checkpointing, || objective.loss(&model, batch));
            tape.backward(loss.total.clone() * scale, |part| turn.take(|gradients| gradients.add(&model, part)));
            loss
        });
        part_losses.into_iter().for_each(|loss| losses.add(loss));
    }
    let learning_rate = plan.schedule.learning_rate(state.step);
    state.step += 1;
    let losses = losses.read(state.step)?;
    let norm = gradients.global_norm() / scale;
    if state.loss_scale.update(plan.precision, norm.is_finite()) {
        state.optimizer.skip();
        return Ok((state, Step { losses, norm, learning_rate }));
    }
    let norm = finite(state.step, "the gradient norm", norm)?;
    state.model = state.optimizer.step(state.model, gradients, learning_rate, clip_scale(norm, plan.clip) / scale);
    Ok((state, Step { losses, norm, learning_rate }))
}

/// The dropout of a part depends on nothing but the run's seed and its place, so that a resumed run repeats it.
fn dropout_seed(seed: u64, step: u64, micro_batch: usize, part: usize) -> u64 {
    [step, micro_batch as u64, part as u64].into_iter().fold(seed, |seed, number| hash::mix(seed ^ number))
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
struct LossSum {
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

    /// Brings all of them to the host in one go.
    fn read(self, step: u64) -> Result<Map<String, Value>> {
        let (names, values): (Vec<_>, Vec<_>) = self.sums.into_iter().unzip();
        if values.is_empty() {
            return Err(Error::Setting(format!("step {step}: found no micro-batch, expected at least one")));
        }
        let values = Tensor::cat(values, 0).into_data();
        let named = names.into_iter().zip(values.iter::<f32>());
        named.map(|(name, value)| Ok((name.to_string(), finite(step, name, f64::from(value))?.into()))).collect()
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
            take_step(state, &Cuts(parts), batches, &Plan::constant(1e-3, 1), &workers)
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
