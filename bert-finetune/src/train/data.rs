//! Reads labeled examples and holds out some of them for evaluation.

use std::path::{Path, PathBuf};

use bert_model::{Error, Result};
use bert_train::checkpoint::sha256_of;
use bert_train::permutation::{Permutation, mix};
use serde_json::{Value, json};

use crate::settings::FinetuneSettings;
use crate::tasks::Task;

/// Tag that keeps this random stream independent of the run's others.
const SPLIT: u64 = 21;

/// The labeled files of a run.
#[derive(Debug, Clone)]
pub struct Files {
    /// The training file.
    pub training: PathBuf,
    /// The evaluation file, which selects the best epoch; `None` holds out a fraction of the
    /// training examples.
    pub evaluation: Option<PathBuf>,
    /// The test file, evaluated once after training.
    pub test: Option<PathBuf>,
}

/// The labeled examples of a run, by use.
pub(super) struct LabeledData<T: Task> {
    pub training: Vec<T::Example>,
    pub evaluation: Vec<T::Example>,
    pub test: Vec<T::Example>,
    pub files: Value,
}

/// Reads the files; without an evaluation file, holds out a fraction of the training examples.
pub(super) fn read_data<T: Task>(settings: &FinetuneSettings, files: &Files, task: &T) -> Result<LabeledData<T>> {
    let mut training = task.read(&files.training)?;
    let evaluation = match &files.evaluation {
        Some(path) => task.read_held_out(path)?,
        None => set_aside(&mut training, settings.eval_share, mix(&[settings.split_seed, SPLIT])),
    };
    if training.is_empty() {
        let expected = "more, so that one can be held out (or --eval FILE, or --eval-share 0)";
        return Err(Error::file(&files.training, format!("{} example(s)", evaluation.len()), expected));
    }
    let test = files.test.as_deref().map(|path| task.read_held_out(path)).transpose()?.unwrap_or_default();
    let paths = [Some(&files.training), files.evaluation.as_ref(), files.test.as_ref()];
    let files = paths.into_iter().flatten().map(|path| describe_file(path)).collect::<Result<Vec<_>>>()?;
    Ok(LabeledData { training, evaluation, test, files: files.into() })
}

fn describe_file(path: &Path) -> Result<Value> {
    let bytes = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    Ok(json!({"path": path.display().to_string(), "bytes": bytes, "sha256": sha256_of(path)?}))
}

/// Removes a random fraction of the examples, at least one if `share` is positive, and returns
/// them; both parts keep their order.
fn set_aside<E>(examples: &mut Vec<E>, share: f64, seed: u64) -> Vec<E> {
    let count = examples.len() as u64;
    let wanted = if share > 0.0 { ((count as f64 * share).round() as u64).clamp(1, count.max(2) - 1) } else { 0 };
    let order = Permutation::new(count, seed);
    let (mut kept, mut aside) = (Vec::new(), Vec::new());
    for (index, example) in examples.drain(..).enumerate() {
        if order.apply(index as u64) < wanted { &mut aside } else { &mut kept }.push(example);
    }
    *examples = kept;
    aside
}
