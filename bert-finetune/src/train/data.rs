//! Reads labeled examples and holds out some of them for evaluation.

use std::path::Path;

use bert_cli::input::source::Input;
use bert_model::{Error, Result};
use bert_train::checkpoint::sha256_of;
use bert_train::permutation::{Permutation, mix};
use serde_json::{Value, json};

use crate::data::Files;
use crate::settings::FinetuneSettings;
use crate::tasks::{Defect, Task, leave_out};

/// Tag that keeps this random stream independent of the run's others.
const SPLIT: u64 = 21;

/// The labeled examples of a run, by use.
pub(super) struct LabeledData<T: Task> {
    pub training: Vec<T::Example>,
    pub evaluation: Vec<T::Example>,
    pub test: Vec<T::Example>,
    pub files: Value,
}

/// Reads the labeled examples, and weights their classes if the settings say so.
pub(super) fn prepare<T: Task>(settings: &FinetuneSettings, files: &Files, task: &mut T) -> Result<LabeledData<T>> {
    task.check_adaptation(settings.adaptation)?;
    let data = read_data(settings, files, task)?;
    if settings.class_weights {
        task.balance(&data.training)?;
    }
    Ok(data)
}

/// Reads the files; without an evaluation file, holds out a fraction of the training examples.
fn read_data<T: Task>(settings: &FinetuneSettings, files: &Files, task: &T) -> Result<LabeledData<T>> {
    let read = |path: &Path, defects: &[Defect]| {
        let mut examples = task.read(&Input::new(path))?;
        leave_out(task, &mut examples, defects, path);
        Ok::<_, Error>(examples)
    };
    let read_held_out = |path: &Path| {
        let mut examples = task.read_held_out(&Input::new(path))?;
        leave_out(task, &mut examples, &[Defect::Unlabeled], path);
        Ok::<_, Error>(examples)
    };
    let mut training = read(&files.training, &[Defect::Unlabeled, Defect::Misplaced])?;
    let evaluation = match &files.evaluation {
        Some(path) => read_held_out(path)?,
        None => set_aside(&mut training, settings.eval_share, mix(&[settings.split_seed, SPLIT])),
    };
    if training.is_empty() {
        let (found, expected) = match (&files.evaluation, evaluation.len()) {
            (None, 1..) => ("1 example", "more, so that one can be held out (or --eval FILE, or --eval-share 0)"),
            _ => ("no examples", "labeled examples to train on"),
        };
        return Err(Error::file(&files.training, found, expected));
    }
    let test = files.test.as_deref().map(read_held_out).transpose()?.unwrap_or_default();
    let files = files.all().map(|path| describe_file(path)).collect::<Result<Vec<_>>>()?;
    Ok(LabeledData { training, evaluation, test, files: files.into() })
}

fn describe_file(path: &Path) -> Result<Value> {
    let bytes = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    Ok(json!({"path": path.display().to_string(), "bytes": bytes, "sha256": sha256_of(path)?}))
}

/// Removes a random fraction of the examples, at least one if `share` is positive, and returns them; both parts keep
/// their order.
fn set_aside<E>(examples: &mut Vec<E>, share: f64, seed: u64) -> Vec<E> {
    let is_aside = held_out(examples.len(), share, seed);
    let (mut kept, mut aside) = (Vec::new(), Vec::new());
    for (example, is_aside) in examples.drain(..).zip(is_aside) {
        if is_aside { &mut aside } else { &mut kept }.push(example);
    }
    *examples = kept;
    aside
}

/// Whether a run with these settings and no evaluation file holds out each of `count` training examples.
pub fn held_out_examples(settings: &FinetuneSettings, count: usize) -> Vec<bool> {
    held_out(count, settings.eval_share, mix(&[settings.split_seed, SPLIT]))
}

fn held_out(count: usize, share: f64, seed: u64) -> Vec<bool> {
    let count = count as u64;
    let wanted = if share > 0.0 { ((count as f64 * share).round() as u64).clamp(1, count.max(2) - 1) } else { 0 };
    let order = Permutation::new(count, seed);
    (0..count).map(|index| order.apply(index) < wanted).collect()
}
