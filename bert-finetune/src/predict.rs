//! Answers for any number of texts at speed: a window of inputs at a time, sorted by length into batches that hold
//! little padding, answered in the order in which they came.

use bert_model::Result;
use burn::tensor::Device;
use serde_json::Value;

use crate::features::{Encoded, for_each_input, hidden_states};
use crate::tasks::Task;

/// Texts that are held in memory at once.
pub const WINDOW: usize = 4096;

/// Tokens of a batch, padding included: enough to keep the cores busy, few enough to stay in the cache.
const BATCH_TOKENS: usize = 4096;

/// Cuts the numbers 0..lengths.len() into batches of similar lengths, shortest first.
pub fn batches_by_length(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| lengths[index]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * lengths[index] <= BATCH_TOKENS => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

/// Deals batches to workers in turn, so that each gets short and long ones.
pub fn deal<B>(batches: Vec<B>, workers: usize) -> Vec<Vec<B>> {
    let mut hands: Vec<Vec<B>> = (0..workers).map(|_| Vec::new()).collect();
    for (index, batch) in batches.into_iter().enumerate() {
        hands[index % workers].push(batch);
    }
    hands
}

/// The inputs of each example and the head's scores for them, in the order of the examples.
pub struct Scored<'a, T: Task> {
    /// The inputs of each example.
    pub inputs: &'a [Vec<T::Input>],
    /// The scores of each input.
    pub scores: Vec<Vec<T::Scores>>,
}

impl<T: Task> Scored<'_, T> {
    /// The answer to each example.
    pub fn answers<'a>(&'a self, task: &'a T, examples: &'a [T::Example]) -> impl Iterator<Item = Value> + 'a {
        let scored = examples.iter().zip(self.inputs).zip(&self.scores);
        scored.map(|((example, inputs), scores)| task.answer(example, inputs, scores))
    }
}

/// Runs the model (without autodiff) over all examples.
///
/// # Errors
/// If the system refuses threads.
pub fn score<'a, T: Task>(
    task: &T,
    model: &T::Model,
    encoded: &'a Encoded<T>,
    device: &Device,
) -> Result<Scored<'a, T>> {
    let scores = for_each_input(task, &encoded.items(), device, |items| {
        let hidden = hidden_states(task, model, items, device);
        let inputs: Vec<&T::Input> = items.iter().map(|item| item.input).collect();
        task.scores(model, hidden, &inputs)
    })?;
    let mut scores = scores.into_iter();
    let scores = encoded.inputs.iter().map(|inputs| scores.by_ref().take(inputs.len()).collect()).collect();
    Ok(Scored { inputs: &encoded.inputs, scores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_comes_once_and_batches_are_of_like_lengths() {
        let lengths: Vec<usize> = (0..1000).map(|i| 1 + (i * 37) % 512).collect();
        let batches = batches_by_length(&lengths);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        let padded: usize = batches.iter().map(|batch| batch.len() * lengths[batch[batch.len() - 1]]).sum();
        assert!(padded as f64 <= 1.1 * lengths.iter().sum::<usize>() as f64, "more than 10 % padding");
    }
}
