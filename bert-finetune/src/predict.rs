//! `bert-finetune predict`: prints an answer for every text, in input order and as texts arrive.

use std::path::Path;

use anyhow::anyhow;
use bert_cli::answers::Answers;
use bert_cli::input::count_rows;
use bert_cli::input::keep::KeptRow;
use bert_cli::input::kind::Format;
use bert_cli::input::source::Input;
use bert_cli::program::select_device;
use bert_cli::stream::Batches;
use bert_model::device::NamedDevice;
use bert_model::pipeline::{Pipeline, Precision};
use bert_model::{Error, Result};
use burn::tensor::Device;

use crate::args::{PredictArgs, batch_size};
use crate::meter::Meter;
use crate::output::warn;
use crate::tasks::kind::TaskKind;
use crate::tasks::{Query, RequestOf, Task};
use crate::truncated::{Truncated, number};

/// Opens the pipeline of a fine-tuned model directory, and warns about anything unusual in it. A model whose head was
/// never trained is rejected.
///
/// # Errors
/// If the model cannot be loaded, or is not a fine-tuned model.
pub fn open_pipeline<T: Task>(
    task: &T,
    directory: &Path,
    device: &Device,
    precision: Precision,
) -> anyhow::Result<Pipeline<T::Processor>> {
    precision.check(device)?;
    let pipeline = Pipeline::with_processor(directory, task.processor().clone(), device, precision).map_err(
        |error| match error {
            Error::MissingTensors { tensors, .. } => anyhow!(
                "{}: no tensor `{}`: not a fine-tuned model; train one with `bert-finetune train`",
                directory.display(),
                tensors.first().map_or("", String::as_str)
            ),
            other => other.into(),
        },
    )?;
    warn(directory, pipeline.warning());
    Ok(pipeline)
}

/// Prints an answer for each text in `source`, or for the texts given as arguments if it is `None`.
///
/// # Errors
/// If the model, the device or a text is invalid, or the answers cannot be written.
pub fn predict<T: Task>(task: &T, kind: TaskKind, args: &PredictArgs, source: Option<Input>) -> anyhow::Result<()> {
    let quiet = args.common.quiet || source.is_none();
    let place = if source.is_some() { "row" } else { "text" };
    let total = source.as_ref().filter(|_| !quiet).and_then(|input| total(kind, input, !args.columns.no_header));
    // Reading starts here, in parallel with loading the model.
    let batches = examples(task, args, source)?;
    let NamedDevice { device, .. } = select_device(&args.common.device, args.common.quiet)?;
    let pipeline = open_pipeline(task, &args.model, &device, args.precision)?;
    let mut answers = Answers::new(args.common.json);
    let meter = Meter::new("predicting", total, quiet);
    let mut truncated = Truncated::default();
    for batch in batches {
        let batch = batch?;
        let requests: Vec<RequestOf<T>> = batch.iter().map(|(example, _)| task.request(example)).collect();
        for ((_, row), answer) in batch.iter().zip(pipeline.run(&requests)?) {
            answers.write(row, &task.json(&answer), || task.plain(&answer))?;
        }
        answers.flush()?;
        truncated.note(pipeline.processor(), &requests, |index| number(&batch[index].1, index))?;
        meter.add(batch.len() as u64);
    }
    meter.finish();
    truncated.warn(place);
    Ok(())
}

/// The number of texts in a file, if it can be determined.
fn total(kind: TaskKind, input: &Input, header: bool) -> Option<u64> {
    let is_conll = kind.options.contains(&"tag-column") && input.format == Some(Format::Tsv);
    if is_conll { None } else { count_rows(input, header) }
}

/// The examples of a file, of standard input, or from the command line, with their rows.
fn examples<T: Task>(task: &T, args: &PredictArgs, source: Option<Input>) -> Result<Batches<(T::Example, KeptRow)>> {
    let Some(input) = source else {
        let texts = args.texts.texts.iter().chain(&args.context).map(|text| {
            let query = Query {
                text: text.clone(),
                pair: args.pair.clone(),
                question: args.question.clone(),
                choices: args.choice.clone(),
            };
            Ok((task.example_of(&query)?, KeptRow::default()))
        });
        return Ok(Batches::new(texts.collect::<Vec<_>>().into_iter(), batch_size(args.batch_size), false));
    };
    let is_live = !input.is_regular_file();
    let (input, mut kept) = input.keeping(args.keep.clone());
    let examples = task.unlabeled(&input)?.map(move |example| Ok((example?, kept.next_row()?)));
    Ok(Batches::new(examples, batch_size(args.batch_size), is_live))
}
