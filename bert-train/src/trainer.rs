//! The training loop: steps, logging, evaluations, checkpoints, and stopping on a signal.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use bert_model::Result;
use bert_model::fail_point::fail_point;
use bert_model::ops::optimizer::is_asynchronous;
use burn::module::Module;
use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoints;
use super::communicator::{Communicator, Patience};
use super::cores;
use super::interrupt::Interrupt;
use super::objective::{Evaluation, Objective};
use super::plan::{Plan, is_multiple};
use super::prefetch::StepBatches;
use super::progress::Progress;
use super::run_directory::RunDirectory;
use super::sharing::compare_weights;
use super::state::TrainingState;
use super::step::{PendingStep, Step, take_step};

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps were taken, or there was no more data.
    Finished,
    /// [`Objective::evaluate`] asked for it.
    Stopped,
    /// A signal arrived and a checkpoint was written; the exit code is 130, 138 or 143.
    Interrupted(i32),
}

/// Trains until the plan's last step and logs every step to `metrics.jsonl`. If the data ends earlier, training ends
/// too, without a final evaluation and checkpoint. On a GPU, the numbers of a step are read while the next one is
/// queued. All ranks of the communicator make the same call; only the first one writes checkpoints.
///
/// # Errors
/// If data cannot be read, a file cannot be written, or a loss or gradient is not finite.
pub fn train<O: Objective>(
    mut state: TrainingState<O::Model>,
    objective: &mut O,
    steps: &Receiver<Result<StepBatches<O::Batch>>>,
    plan: &Plan,
    run: &mut RunDirectory,
    checkpoints: &Checkpoints,
    (interrupt, communicator): (&Interrupt, &dyn Communicator),
) -> Result<(TrainingState<O::Model>, Ended)> {
    let device = state.model.devices().first().cloned().unwrap_or_default();
    let progress = Progress::new("training", Some(plan.schedule.steps), state.step, plan.quiet);
    let (announce, is_first) = (progress.announcer(), communicator.is_first());
    let guard = interrupt.defer(move |line| {
        if is_first {
            announce(line)
        }
    });
    let mut log = StepLog { run, progress, queued: None, finished: Instant::now() };
    let mut saving = Saving {
        checkpoints,
        plan,
        communicator,
        saved: Instant::now(),
        seconds: state.seconds,
        started: Instant::now(),
    };
    state.model = state.model.train();
    let mut ended = Ended::Finished;
    let workers = cores::workers(&device, plan.parts.filter(|_| objective.is_joint()), communicator)?;
    let is_asynchronous = is_asynchronous(&device);

    while state.step < plan.schedule.steps {
        let Ok(step_batches) = steps.recv() else { break };
        let StepBatches { batches, tokens, epoch, cursor } = step_batches?;
        fail_point("step");
        let taken;
        (state, taken) = take_step(state, objective, batches, plan, &workers, communicator)?;
        state.cursor = cursor;
        let step = state.step;
        let evaluates = step == plan.schedule.steps || is_multiple(step, plan.eval_every);
        let (interrupted, is_due) = agree(communicator, interrupt.requested(), saving.is_due(step))?;
        let saves = is_due || interrupted.is_some();
        log.queue(taken, tokens, epoch)?;
        if !is_asynchronous || evaluates || saves {
            log.flush()?;
        }
        if evaluates && evaluate(objective, &state, &mut log, communicator)? {
            ended = Ended::Stopped;
            break;
        }
        let interrupted = match interrupted {
            None if evaluates || communicator.size() == 1 => agree(communicator, interrupt.requested(), false)?.0,
            known => known,
        };
        if interrupted.is_some() && is_first {
            guard.announce();
        }
        if saves || interrupted.is_some() {
            log.flush()?;
            saving.save(&mut state)?;
            log.finished = Instant::now();
        }
        if let Some(code) = interrupted {
            if is_first {
                log.interrupted(step);
            }
            ended = Ended::Interrupted(code);
            break;
        }
    }
    log.flush()?;
    log.progress.finish();
    state.model = state.model.valid();
    Ok((state, ended))
}

/// Evaluates the model after a step. Returns whether training is to stop.
fn evaluate<O: Objective>(
    objective: &mut O,
    state: &TrainingState<O::Model>,
    log: &mut StepLog,
    communicator: &dyn Communicator,
) -> Result<bool> {
    fail_point("evaluation");
    let Evaluation { metrics, stop } = objective.evaluate(&state.model.valid(), state.step, communicator)?;
    log.evaluation(state.step, &metrics)?;
    // The first rank alone knows the evaluations before a resumed run.
    Ok(agree(communicator, None, stop)?.1)
}

/// What all ranks do: the exit code if a signal has reached any of them, and `decision` of the first one.
fn agree(communicator: &dyn Communicator, code: Option<i32>, decision: bool) -> Result<(Option<i32>, bool)> {
    let all = communicator.gather(&[code.unwrap_or(0) as u8, u8::from(decision)], Patience::Limited)?;
    let code = all.iter().map(|own| i32::from(own[0])).max().filter(|&code| code > 0);
    Ok((code, all.first().is_some_and(|first| first[1] == 1)))
}

/// Decides when to write checkpoints, and writes them.
struct Saving<'a> {
    checkpoints: &'a Checkpoints,
    plan: &'a Plan,
    communicator: &'a dyn Communicator,
    /// Time of the last checkpoint, or of the start.
    saved: Instant,
    /// Seconds that the run had taken before this loop.
    seconds: f64,
    started: Instant,
}

impl Saving<'_> {
    fn is_due(&self, step: u64) -> bool {
        self.plan.save.is_due(step, self.saved.elapsed(), step == self.plan.schedule.steps)
    }

    /// Writes a checkpoint of the first rank, after checking that all have the same weights.
    fn save<M: Module>(&mut self, state: &mut TrainingState<M>) -> Result<()> {
        state.seconds = self.seconds + self.started.elapsed().as_secs_f64();
        compare_weights(self.communicator, &state.model)?;
        let means = match &state.ownership {
            None if self.communicator.is_first() => state.optimizer.state(),
            None => BTreeMap::new(),
            Some(ownership) => ownership.collect_means(self.communicator, &state.optimizer)?,
        };
        if self.communicator.is_first() {
            self.checkpoints.save(state, &means, &self.plan.settings)?;
        }
        // The others wait here, however long it takes: in the next step, they would take the first rank for hanging.
        self.communicator.gather(&[], Patience::Unlimited)?;
        self.saved = Instant::now();
        Ok(())
    }
}

/// Logs steps one at a time; the latest may still be running on a GPU.
struct StepLog<'a> {
    run: &'a mut RunDirectory,
    progress: Progress,
    queued: Option<(PendingStep, u64, f64)>,
    /// When the last step was logged.
    finished: Instant,
}

impl StepLog<'_> {
    /// Logs the queued step, then queues this one, which has `tokens` tokens.
    fn queue(&mut self, step: PendingStep, tokens: u64, epoch: f64) -> Result<()> {
        self.flush()?;
        self.queued = Some((step, tokens, epoch));
        Ok(())
    }

    /// Logs the queued step, if there is one.
    fn flush(&mut self) -> Result<()> {
        let Some((step, tokens, epoch)) = self.queued.take() else { return Ok(()) };
        let step = step.wait()?;
        let speed = tokens as f64 / self.finished.elapsed().as_secs_f64();
        self.finished = Instant::now();
        let line = format!("{} lr {:.2e} {speed:.0} tokens/s", describe(&step.losses), step.learning_rate);
        self.progress.update(step.number, &line);
        self.run.log(&record(step, epoch, speed))
    }

    fn evaluation(&mut self, step: u64, metrics: &Map<String, Value>) -> Result<()> {
        if !metrics.is_empty() {
            self.progress.say(&format!("step {step}: {}", describe(metrics)));
            self.run.log(&json!({"step": step, "eval": metrics}))?;
        }
        self.finished = Instant::now();
        Ok(())
    }

    /// Reports the checkpoint that a signal has caused.
    fn interrupted(&self, step: u64) {
        self.progress.announcer()(&format!("saved after step {step}"));
    }
}

/// Formats the numbers of a record as "loss 2.3100 mlm_loss 1.9000 examples 100 …".
fn describe(record: &Map<String, Value>) -> String {
    let number = |(name, value): (&String, &Value)| match value.as_u64() {
        Some(count) => Some(format!("{name} {count}")),
        None => value.as_f64().map(|value| format!("{name} {value:.4}")),
    };
    record.iter().filter_map(number).collect::<Vec<_>>().join(" ")
}

/// Builds the line of `metrics.jsonl` for a step.
fn record(step: Step, epoch: f64, speed: f64) -> Value {
    let mut record = Map::from_iter([("step".to_string(), step.number.into()), ("epoch".to_string(), epoch.into())]);
    record.extend(step.losses);
    record.extend([
        ("lr".to_string(), step.learning_rate.into()),
        ("grad_norm".to_string(), step.norm.into()),
        ("tokens_per_second".to_string(), speed.round().into()),
    ]);
    Value::Object(record)
}
