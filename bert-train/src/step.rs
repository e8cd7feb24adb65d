//! One training step: split the batch among the cores, forward and backward pass, clip, update.

use bert_model::ops::optimizer::Reading;
use bert_model::ops::{hash, tape};
use bert_model::{Error, Result, Workers};
use burn::module::Module;
use serde_json::{Map, Value};

use super::communicator::Communicator;
use super::gradients::{GradientSum, OrderedSum};
use super::objective::{LossSum, Losses, Masks, Objective};
use super::plan::Plan;
use super::precision::{LossScale, Precision};
use super::state::TrainingState;

/// The numbers of a finished step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Number of the step, from 1.
    pub number: u64,
    /// Losses by name.
    pub losses: Map<String, Value>,
    /// Global norm of the gradient before clipping.
    pub norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

/// A step that may still be running on a GPU.
#[derive(Debug)]
pub struct PendingStep {
    number: u64,
    names: Vec<&'static str>,
    reading: Reading,
    /// The gradient norm if the host already knows it; otherwise it is read with the losses.
    norm: Option<f64>,
    learning_rate: f64,
    precision: Precision,
}

impl PendingStep {
    /// Waits for the step and returns its numbers.
    ///
    /// # Errors
    /// If a loss or the gradient is not finite. A gradient that is not finite leaves the parameters unchanged.
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

/// Takes one step: splits the batch, runs the forward and backward pass, reduces, clips and updates. The model of
/// `state` must have autodiff. On a GPU, the step is only queued; [`PendingStep::wait`] waits for it.
///
/// # Errors
/// If the objective splits a micro-batch into no parts or more than requested, or another process has failed.
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

/// The part of a micro-batch that one worker computes.
struct Shard<B> {
    batch: B,
    /// Index of its first sequence within the micro-batch.
    first_sequence: usize,
}

/// Splits a micro-batch into at most one part per worker.
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

/// Computes the losses of a micro-batch's shards, each with its own worker on a copy of the model, and adds their
/// gradients to `gradients` in the order of the shards.
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

/// The dropout seed of a micro-batch, a function of the run's seed and the micro-batch's position, so that a resumed
/// run repeats it.
fn dropout_seed(seed: u64, step: u64, micro_batch: usize) -> u64 {
    [step, micro_batch as u64].into_iter().fold(seed, |seed, number| hash::mix(seed ^ number))
}

fn finite(step: u64, what: &'static str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::NotFinite { step, what, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Optimizer, OptimizerConfig, Solo};
    use bert_model::{BertConfig, BertModel, Pretrained};
    use burn::tensor::Device;

    /// Splits everything into this many parts.
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

    /// An extra part would wait for its turn forever.
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
