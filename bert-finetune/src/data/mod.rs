//! Readers of labeled data, which return plain rows without tokenizing them.
//!
//! | file | reads |
//! |---|---|
//! | [`bert_cli::input::table`] | texts with classes, numbers or many labels, from `.csv`, `.tsv` and `.jsonl` |
//! | [`choices`] | multiple choice, from the same formats |
//! | [`pairs`] | pairs of texts, with negatives or scores, from the same formats |
//! | [`conll`] | tagged words |
//! | [`squad`] | questions about passages |
//!
//! Malformed input is an error that names the file and line. A row without a gold label is returned as unlabeled.

pub mod choices;
pub mod conll;
pub mod pairs;
pub mod squad;

use std::path::PathBuf;

/// The labeled files of a run.
#[derive(Debug, Clone)]
pub struct Files {
    /// The training file.
    pub training: PathBuf,
    /// The evaluation file, which selects the best epoch; `None` holds out a fraction of the training examples.
    pub evaluation: Option<PathBuf>,
    /// The test file, evaluated once after training.
    pub test: Option<PathBuf>,
}

impl Files {
    /// Iterates over the files of the run, the training file first.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [Some(&self.training), self.evaluation.as_ref(), self.test.as_ref()].into_iter().flatten()
    }
}

/// Whether a label marks an unlabeled row: it is empty, `-` (SNLI and MNLI), or −1 (the `datasets` library).
pub fn is_unlabeled(label: &str) -> bool {
    matches!(label, "" | "-") || label.parse::<f64>() == Ok(-1.0)
}
