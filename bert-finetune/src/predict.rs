//! Answers for any number of texts at speed: a window of inputs at a time, in batches of like lengths that hold little
//! padding, answered in the order in which they came.

use std::path::Path;

use anyhow::anyhow;
use bert_cli::program::{print_line, select_device};
use bert_model::device::NamedDevice;
use bert_model::pipeline::Pipeline;
use bert_model::{Error, Result};
use bert_train::Progress;
use burn::tensor::Device;

use crate::args::PredictArgs;
use crate::output::{short, warn, warn_truncated};
use crate::tasks::{Examples, Query, RequestOf, Task};

/// Texts that are held in memory at once.
pub const WINDOW: usize = 4096;

/// The pipeline of a fine-tuned directory, with a warning of what is odd about it; a model whose head was never trained
/// is refused.
///
/// # Errors
/// If it cannot be loaded, or is no fine-tuned model.
pub fn open_pipeline<T: Task>(task: &T, directory: &Path, device: &Device) -> anyhow::Result<Pipeline<T::Processor>> {
    let pipeline =
        Pipeline::with_processor(directory, task.processor().clone(), device).map_err(|error| match error {
            Error::MissingTensors { tensors, .. } => anyhow!(
                "{}: no tensor `{}`: not a fine-tuned model; train one with `bert-finetune train`",
                directory.display(),
                tensors.first().map_or("", String::as_str)
            ),
            other => other.into(),
        })?;
    warn(directory, pipeline.warning());
    Ok(pipeline)
}

/// Answers for the texts of a command line, on stdout.
///
/// # Errors
/// Whatever can be wrong with the model, the device or the texts.
pub fn predict_with<T: Task>(task: &T, args: &PredictArgs) -> anyhow::Result<()> {
    let NamedDevice { device, .. } = select_device(&args.common.device, args.common.quiet)?;
    let pipeline = open_pipeline(task, &args.model, &device)?;
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
        let requests: Vec<RequestOf<T>> = window.iter().map(|example| task.request(example)).collect();
        for answer in pipeline.run(&requests)? {
            let answer = task.json(&answer);
            match args.common.json {
                true => print_line(answer)?,
                false => print_line(short(&answer))?,
            }
        }
        done += window.len() as u64;
        progress.update(done, "texts");
    }
    progress.finish();
    warn_truncated(pipeline.truncated_count());
    Ok(())
}
