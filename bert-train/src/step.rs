//! One training step: split the batch among the ranks and their cores, forward and backward pass, clip, update.

use std::sync::{Mutex, PoisonError};

use bert_model::ops::optimizer::Reading;
use bert_model::ops::tape;
use bert_model::{Error, Result, Workers};
use burn::module::Module;
use serde_json::{Map, Value};

use super::communicator::Communicator;
use super::gradients::GradientSum;
use super::objective::{LossSum, Losses, Masks, Objective};
use super::permutation::mix;
use super::plan::Plan;
use super::precision::{LossScale, Precision};
use super::reduction::{Reduced, Share, gather_losses, reduce};
use super::state::TrainingState;
use super::tree_sum::TreeSum;

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
    /// If a loss or the gradient is not finite, or the device failed. A gradient that is not finite leaves the parameters
    /// unchanged.
    pub fn wait(self) -> Result<Step> {
        let Self { number, names, reading, norm, learning_rate, precision } = self;
        let values = reading.wait()?;
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
/// All ranks of `communicator` pass all micro-batches of the step, and each computes its own shards. The result does
/// not depend on their number, nor on that of the workers.
///
/// # Errors
/// If there are no micro-batches, if the objective splits one into no parts or more than requested, or if another
/// process has failed.
pub fn take_step<O: Objective>(
    mut state: TrainingState<O::Model>,
    objective: &O,
    batches: Vec<O::Batch>,
    plan: &Plan,
    workers: &Workers,
    communicator: &dyn Communicator,
) -> Result<(TrainingState<O::Model>, PendingStep)> {
    let device = state.model.devices().first().cloned().unwrap_or_default();
    let new_scale = || LossScale::new(plan.precision, state.saved_scale, &device);
    let mut loss_scale = state.loss_scale.take().unwrap_or_else(new_scale);

    let shards = split_step(objective, batches, plan, state.step, workers)?;
    let share = Share::of(shards.len(), communicator);
    let (start, count) = (share.computed().start, share.computed().len());
    let own = shards.into_iter().enumerate().skip(start).take(count).collect();
    let model = plan.precision.copy(&state.model, &device);
    let inner = device.clone().inner();
    let ownership = state.ownership.as_ref();
    let (losses, reduced) = reduce(communicator, &share, ownership, (&inner, plan.wire), |sink| {
        forward_backward(
            &model,
            objective,
            own,
            (plan, &loss_scale),
            workers,
            &TreeSum::new(share.tree, share.computed(), sink),
        )
    })?;
    drop(model);
    let losses = match communicator.size() {
        1 => losses.into_iter().flatten().collect(),
        _ => {
            let by_shard: Vec<LossSum> = losses.into_iter().map(LossSum::from_iter).collect();
            let own: Vec<f32> = by_shard.iter().flat_map(LossSum::values).collect();
            let all = gather_losses(communicator, &share, &own, reduced.layout)?;
            by_shard.first().map(|losses| losses.sum_of(&all, &inner)).unwrap_or_default()
        }
    };
    let learning_rate = plan.schedule.learning_rate(state.step);
    let Reduced { gradients, names, .. } = reduced;
    let squares = ownership.map(|ownership| ownership.squares(communicator, &gradients, &names)).transpose()?;
    let control = state.optimizer.control((&gradients, squares), learning_rate, plan.clip, &mut loss_scale);
    state.model = state.optimizer.step(state.model, gradients, &control);
    if let Some(ownership) = ownership {
        state.model = ownership.share_parameters(communicator, state.model, &names)?;
    }

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
    masks: Masks,
}

/// Splits all micro-batches of a step into shards, in order.
fn split_step<O: Objective>(
    objective: &O,
    batches: Vec<O::Batch>,
    plan: &Plan,
    step: u64,
    workers: &Workers,
) -> Result<Vec<Shard<O::Batch>>> {
    let parts = plan.parts.unwrap_or(workers.count());
    // Parts that wait for each other must all run.
    let limit = if objective.is_joint() { parts.min(workers.count()) } else { parts };
    let mut shards = Vec::new();
    for (index, batch) in batches.into_iter().enumerate() {
        let parts = objective.split(batch, limit);
        if !(1..=limit).contains(&parts.len()) {
            let found = parts.len();
            return Err(Error::Setting(format!("Objective::split: found {found} parts, expected 1 to {limit}")));
        }
        // A function of the run's seed and the micro-batch's position, so that a resumed run repeats it.
        let (seed, mut first_sequence) = (mix(&[plan.seed, step, index as u64]), 0);
        for batch in parts {
            shards.push(Shard { masks: Masks { seed, first_sequence }, batch });
            first_sequence += objective.sequences(&shards[shards.len() - 1].batch);
        }
    }
    match shards.is_empty() {
        true => Err(Error::Setting(format!("step {}: found no micro-batch, expected at least one", step + 1))),
        false => Ok(shards),
    }
}

/// Computes the losses of shards, each on a copy of the model, and adds their gradients to `sum`. Returns the losses of
/// each shard's pieces.
fn forward_backward<O: Objective>(
    model: &O::Model,
    objective: &O,
    shards: Vec<(usize, Shard<O::Batch>)>,
    (plan, loss_scale): (&Plan, &LossScale),
    workers: &Workers,
    sum: &TreeSum,
) -> Vec<Vec<Losses>> {
    let device = model.devices().first().cloned().unwrap_or_default();
    let model = Mutex::new(model.clone());
    let work = |(leaf, Shard { batch, masks }): (usize, Shard<O::Batch>)| {
        let model = model.lock().unwrap_or_else(PoisonError::into_inner).clone().fork(&device);
        let (mut gradients, mut sequences) = (sum.shard(leaf), 0);
        let mut learn = |piece: O::Batch| {
            masks.begin(sequences);
            sequences += objective.sequences(&piece);
            let (losses, tape) = tape::record(plan.gradient_checkpointing, || objective.loss(&model, piece).upcast());
            let loss = loss_scale.scaled(losses.total.clone());
            tape.backward(loss, |part| gradients.add(GradientSum::of(&model, part)));
            losses
        };
        let pieces = || objective.pieces(&model, batch, masks).into_iter().map(&mut learn).collect::<Vec<_>>();
        plan.precision.run(&device, pieces)
    };
    match sum.leaves() {
        // All cores work on the only shard.
        1 => shards.into_iter().map(work).collect(),
        _ => workers.run_each(shards, work),
    }
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

    /// Reported bug: for a parameter that the loss does not use (the pooler with `--no-nsp`), each step left nodes in
    /// burn's autodiff graph, which made all later steps slower.
    #[test]
    fn a_parameter_without_gradient_is_a_new_leaf_after_a_step() {
        let device = Device::flex();
        let workers = Workers::for_device(&device).unwrap();
        let model = BertModel::init_seeded(&BertConfig::named("tiny").unwrap().with_vocab_size(9), 1, &device).train();
        let old = model.embeddings.position.weight.val();
        let state = TrainingState::new(model, Optimizer::new(OptimizerConfig::default()));
        let (state, _) = take_step(state, &Cuts(1), vec![()], &Plan::constant(1e-3, 1), &workers, &Solo).unwrap();
        let new = state.model.embeddings.position.weight.val();
        assert!(new.is_require_grad());
        assert_eq!(new.to_data(), old.to_data());
        let gradients = old.clone().sum().backward();
        assert!(old.grad(&gradients).is_some() && new.grad(&gradients).is_none());
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
