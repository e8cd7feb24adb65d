//! `bert-finetune evaluate`: computes the metrics of a fine-tuned model on a labeled file, and writes its predictions.

use std::path::Path;

use bert_cli::answers::to_value;
use bert_cli::args::Common;
use bert_cli::input::keep::KeptRow;
use bert_cli::input::source::Input;
use bert_cli::program::{create_parent, select_device};
use bert_model::device::NamedDevice;
use bert_model::file::replace_file;
use bert_model::pipeline::{Precision, Processor};
use bert_model::{Error, Result};
use serde_json::{Map, Value};

use crate::features::Encoded;
use crate::for_task;
use crate::predict::open_pipeline;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};
use crate::tasks::any::open_task;
use crate::tasks::{Defect, OutputsOf, Task, warn_of};
use crate::train;
use crate::truncated::{Truncated, number};

/// A model, the labeled file to evaluate it on, and where its predictions go.
#[derive(Debug)]
pub struct EvaluationOptions<'a> {
    /// Fine-tuned model directory.
    pub model: &'a Path,
    /// The labeled file.
    pub data: Input,
    /// Columns to copy into the predictions.
    pub keep: &'a [String],
    /// Output file for the predictions, one JSON object per line.
    pub predictions: Option<&'a Path>,
    /// The number type of the encoder's products.
    pub precision: Precision,
    /// Device and progress display.
    pub common: &'a Common,
}

/// Computes the metrics of a model on a labeled file, and writes its predictions if requested.
///
/// # Errors
/// If the model, the device or the file is invalid, or the predictions cannot be written.
pub fn evaluate<T: Task>(task: &T, evaluation: EvaluationOptions) -> anyhow::Result<Map<String, Value>> {
    evaluate_part(task, evaluation, None)
}

/// Like [`evaluate`], but restricted to the examples that a run with the settings `held_out_by` holds out, if any.
fn evaluate_part<T: Task>(
    task: &T,
    evaluation: EvaluationOptions,
    held_out_by: Option<&FinetuneSettings>,
) -> anyhow::Result<Map<String, Value>> {
    let EvaluationOptions { model, data, keep, predictions, precision, common } = evaluation;
    predictions.map_or(Ok(()), create_parent)?;
    let NamedDevice { device, .. } = select_device(&common.device, common.quiet)?;
    let pipeline = open_pipeline(task, model, &device, precision)?;
    let (data, mut kept) = data.keeping(keep.to_vec());
    let mut examples = task.read_held_out(&data)?;
    let mut rows: Vec<KeptRow> = examples.iter().map(|_| kept.next_row()).collect::<Result<_>>()?;
    if let Some(settings) = held_out_by {
        // Examples with a defect are removed before the held-out ones are chosen.
        let is_usable = |example: &&T::Example| task.defect(example).is_none();
        let mut aside = train::held_out_examples(settings, examples.iter().filter(is_usable).count()).into_iter();
        let is_aside = |example: &T::Example| is_usable(&example) && aside.next() == Some(true);
        let is_aside: Vec<bool> = examples.iter().map(is_aside).collect();
        let mut of_rows = is_aside.iter();
        rows.retain(|_| of_rows.next() == Some(&true));
        let mut of_examples = is_aside.iter();
        examples.retain(|_| of_examples.next() == Some(&true));
    }
    let mut task = task.clone();
    task.prepare(&examples);
    let task = &task;
    let unlabeled = examples.iter().filter(|example| task.defect(example) == Some(Defect::Unlabeled)).count();
    warn_of(Defect::Unlabeled, unlabeled, &data.name());
    let encoded = Encoded::new(task, &examples, pipeline.config())?.with_progress("evaluating", common.quiet);
    let mut truncated = Truncated::default();
    encoded.truncated.iter().for_each(|&(index, length)| truncated.add(number(&rows[index], index), length));
    truncated.warn("row");
    let (metrics, outputs) = train::evaluate(task, pipeline.model(), &examples, &encoded, &device)?;
    if let Some(path) = predictions {
        let lines = prediction_lines(task, &examples, &rows, &encoded, &outputs)?;
        replace_file(path, &lines)?;
    }
    Ok(metrics)
}

/// Writes the predictions of a finished run for the test file; if there is none, for the evaluation file, or else for
/// the held-out training examples.
///
/// # Errors
/// Those of [`evaluate`].
pub fn write_predictions(settings: &FinetuneSettings, run: &FinetuneRunOptions) -> anyhow::Result<()> {
    let Some(predictions) = run.predictions.as_deref() else { return Ok(()) };
    let file = settings.test.as_ref().or(settings.eval.as_ref());
    let Some(data) = file.or(settings.train.as_ref()).map(Input::new) else { return Ok(()) };
    let common = Common { device: run.device.clone(), seed: settings.seed, json: run.json, quiet: true };
    let model = run.output.as_path();
    let evaluation = EvaluationOptions {
        model,
        data,
        keep: &[],
        predictions: Some(predictions),
        precision: Precision::F32,
        common: &common,
    };
    let held_out_by = if file.is_none() { Some(settings) } else { None };
    for_task!(open_task(model)?, task => evaluate_part(&task, evaluation, held_out_by))?;
    Ok(())
}

/// Returns a JSON object for each example: its row, the kept columns, its texts, the expected answer, and the
/// prediction as printed by `predict --json`.
fn prediction_lines<T: Task>(
    task: &T,
    examples: &[T::Example],
    rows: &[KeptRow],
    encoded: &Encoded<T>,
    outputs: &OutputsOf<T>,
) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    let answers = examples.iter().zip(&encoded.inputs).zip(outputs).zip(rows);
    for (((example, inputs), outputs), row) in answers {
        let answer = task.processor().postprocess(&task.request(example), inputs, outputs);
        let mut fields = task.labeled(example);
        fields.extend(to_value(&task.json(&answer))?.as_object().cloned().unwrap_or_default());
        let in_memory = row.write_line(&fields, &mut lines);
        in_memory.map_err(|error| Error::Setting(format!("a prediction that is no JSON: {error}")))?;
    }
    Ok(lines)
}
