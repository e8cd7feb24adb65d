//! Creates the model that a run starts from: a pretrained encoder with a new head, or with its existing head.

use std::collections::BTreeSet;

use bert_model::{BertConfig, BertForTokenClassification, Pretrained, Result};
use bert_train::permutation::mix;
use burn::tensor::Device;

use crate::description::Description;
use crate::model_directory::weights_of;
use crate::output::warn;
use crate::settings::FinetuneSettings;
use crate::tasks::{ModelOf, Task};

/// Tag that keeps this random stream independent of the run's others.
const HEAD: u64 = 23;

/// Adds the labels and problem type of the task to a configuration.
pub(super) fn with_head(config: BertConfig, description: &Description, labels: &[String]) -> BertConfig {
    let mut config = if labels.is_empty() { config.without_labels() } else { config.with_labels(labels) };
    config.problem_type = description.task.problem_type;
    config
}

/// Returns the labels, in the order of the checkpoint's head if it has the same architecture and labels, and whether
/// that head can be kept. A tagging head is also kept if it has additional labels, since the files may lack a rare tag.
pub(super) fn fit_to_head(labels: Vec<String>, architecture: &str, checkpoint: &BertConfig) -> (Vec<String>, bool) {
    if !checkpoint.architectures.iter().flatten().any(|name| name == architecture) {
        return (labels, false);
    }
    let numbered = |prefix: &str, count: usize| (0..count).map(|id| format!("{prefix}{id}")).collect::<Vec<_>>();
    let nameless = numbered("LABEL_", checkpoint.num_labels());
    let named = checkpoint.labels().ok().flatten().unwrap_or_else(|| nameless.clone());
    let sorted = |labels: &[String]| BTreeSet::from_iter(labels.iter().cloned());
    let are_tags = architecture == BertForTokenClassification::ARCHITECTURE;
    let has_all = match are_tags {
        true => sorted(&named).is_superset(&sorted(&labels)),
        false => sorted(&named) == sorted(&labels),
    };
    // Heads for question answering and multiple choice have no labels, and a regression label has no meaningful name.
    let is_by_number = named == nameless && (labels.len() == 1 || labels == numbered("", labels.len()));
    if !labels.is_empty() && has_all {
        return (named, true);
    }
    let is_fit = labels.is_empty() || is_by_number && named.len() == labels.len();
    (labels, is_fit)
}

/// Loads the encoder with a new head, or with the checkpoint's head if `keeps_head` (for instance to continue training
/// a question-answering model).
pub(super) fn initial_model<T: Task>(
    task: &T,
    settings: &FinetuneSettings,
    keeps_head: bool,
    config: &BertConfig,
    device: &Device,
    quiet: bool,
) -> Result<ModelOf<T>> {
    let seed = mix(&[settings.seed, HEAD]);
    if settings.from_scratch {
        return Ok(task.fresh_model(config, seed, device));
    }
    let weights = weights_of(&settings.model)?;
    let weights = if keeps_head { weights } else { weights.without(ModelOf::<T>::HEADS) };
    let loaded = task.load_model(&weights, config, seed, device)?;
    warn(&settings.model, loaded.left_aside().as_deref());
    let unexpected: Vec<&str> =
        loaded.initialized.iter().map(String::as_str).filter(|n| n.contains("pooler")).collect();
    if !unexpected.is_empty() && !quiet {
        eprintln!("warning: {}: the checkpoint has no pooler; initializing a new one", settings.model.display());
    }
    Ok(loaded.model)
}
