//! Answers for any number of texts at speed: a window of inputs at a time, in batches of like lengths that hold little
//! padding, answered in the order in which they came.

use bert_model::Result;
use burn::tensor::Device;
use serde_json::Value;

use crate::features::{Encoded, for_each_input, hidden_states};
use crate::tasks::Task;

/// Texts that are held in memory at once.
pub const WINDOW: usize = 4096;

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
