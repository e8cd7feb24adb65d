//! Answers for any number of texts at speed: a window of inputs at a time, in batches of like lengths that hold little
//! padding, answered in the order in which they came.

use std::path::Path;

use anyhow::bail;
use bert_cli::program::{print_line, select_device};
use bert_model::device::NamedDevice;
use bert_model::{Result, load};
use bert_train::Progress;
use burn::tensor::Device;
use serde_json::Value;

use crate::args::PredictArgs;
use crate::features::{Encoded, for_each_input, hidden_states};
use crate::output::{short, warn_truncated};
use crate::tasks::{Examples, Query, Task};

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

/// The model of a fine-tuned directory; one whose head was never trained is refused.
///
/// # Errors
/// If it cannot be loaded, or is no fine-tuned model.
pub fn open_model<T: Task>(directory: &Path, device: &Device) -> anyhow::Result<T::Model> {
    let loaded = load::<T::Model>(directory, 0, device)?;
    match loaded.initialized.first() {
        None => Ok(loaded.model),
        Some(missing) => bail!(
            "{}: no tensor `{missing}`: not a fine-tuned model; train one with `bert-finetune train`",
            directory.display()
        ),
    }
}

/// Answers for the texts of a command line, on stdout.
///
/// # Errors
/// Whatever can be wrong with the model, the device or the texts.
pub fn predict_with<T: Task>(task: &T, args: &PredictArgs) -> anyhow::Result<()> {
    let NamedDevice { device, .. } = select_device(&args.common.device, args.common.quiet)?;
    let model = open_model::<T>(&args.model, &device)?;
    let query = Query {
        text: String::new(),
        pair: args.pair.clone(),
        question: args.question.clone(),
        choices: args.choice.clone(),
    };
    let mut texts = args.texts.clone();
    texts.texts.extend(args.context.clone().filter(|_| args.texts.texts.is_empty()));
    let source = texts.source()?;
    let is_long = source.is_some();
    // What belongs to a text is in the file's columns.
    query.check(if is_long { &[] } else { T::OPTIONS })?;
    let mut examples: Examples<T::Example> = match source {
        Some(input) => task.questions(&input)?,
        None => {
            let question = |text: &String| task.question(&Query { text: text.clone(), ..query.clone() });
            Box::new(texts.texts.iter().map(question).collect::<Vec<_>>().into_iter())
        }
    };
    let mut progress = Progress::new("predicting", None, 0, args.common.quiet || !is_long);
    let mut done = 0;
    loop {
        let window: Vec<T::Example> = examples.by_ref().take(WINDOW).collect::<Result<_, _>>()?;
        if window.is_empty() {
            break;
        }
        let encoded = Encoded::new(task, &window)?;
        for answer in score(task, &model, &encoded, &device)?.answers(task, &window) {
            match args.common.json {
                true => print_line(answer)?,
                false => print_line(short(&answer))?,
            }
        }
        done += window.len() as u64;
        progress.update(done, "texts");
    }
    progress.finish();
    warn_truncated(task.truncated_count());
    Ok(())
}
