//! What a run starts from: the configuration and labels, and a pretrained encoder with a new head, or with its existing
//! head.

use std::collections::BTreeSet;

use bert_cli::program::select_numbered_device;
use bert_model::device::NamedDevice;
use bert_model::{BertConfig, BertForTokenClassification, Error, Pretrained, Result, Tokenizer};
use bert_train::Adaptation;
use bert_train::permutation::mix;
use bert_train::run_directory::check_has_model;
use burn::tensor::Device;

use crate::data::Files;
use crate::description::Description;
use crate::model_directory::{config_of, tokenizer_of, weights_of};
use crate::output::warn;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};
use crate::tasks::any::AnyTask;
use crate::tasks::{ModelOf, Task};

/// Tag that keeps this random stream independent of the run's others.
const HEAD: u64 = 23;
/// Width up to which a model is told to need a higher learning rate than the paper's.
const WIDEST_OF_SMALL: usize = 256;

/// What a run starts from.
pub(super) struct Start {
    pub settings: FinetuneSettings,
    /// The description, completed with what was learned about the labels.
    pub description: Description,
    pub labels: Vec<String>,
    /// Whether the head of the model is kept.
    pub keeps_head: bool,
    pub config: BertConfig,
    pub tokenizer: Tokenizer,
    pub device_name: &'static str,
    pub device: Device,
}

impl Start {
    /// Opens the task that the description names.
    pub fn open_task(&self) -> Result<AnyTask> {
        (self.description.task.open)(&self.description, self.labels.clone(), &self.tokenizer)
    }
}

/// Reads everything but the examples and the weights.
pub(super) fn start(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    local_rank: usize,
) -> Result<Start> {
    check_has_model(&settings.model)?;
    let NamedDevice { name, device, .. } = select_numbered_device(&run.device, local_rank, run.quiet)?;
    settings.precision.check(&device)?;
    let config = config_of(&settings.model)?;
    let tokenizer = tokenizer_of(&settings.model)?;
    settings.description.check_fits(&config, &tokenizer)?;
    tokenizer.warnings().iter().for_each(|warning| warn(&settings.model, Some(warning)));
    if let Adaptation::FrozenLayers(layers) = settings.adaptation
        && layers > config.num_hidden_layers
    {
        let found = format!("--freeze: found {layers}, expected at most the model's {}", config.num_hidden_layers);
        return Err(Error::Usage(found + " layers"));
    }
    if settings.description.max_seq_len > config.max_position_embeddings {
        return Err(Error::Mismatch {
            left: format!("--max-seq-len {}", settings.description.max_seq_len),
            right: format!("a model with {} positions", config.max_position_embeddings),
            advice: "lower --max-seq-len".into(),
        });
    }
    // A resumed run, and ranks that have the settings from the first one, do not know the model's directory.
    let mut description = settings.description.clone().of_model(&settings.model);
    let labels = (description.task.learn_labels)(&mut description, files)?;
    let (labels, keeps_head) = fit_to_head(labels, description.task.architecture, &config);
    let is_same_class = config.architectures.iter().flatten().any(|name| name == description.task.architecture);
    if is_same_class && !keeps_head && !settings.from_scratch && !run.quiet {
        eprintln!("{}: its task head has different labels; initializing a new one", settings.model.display());
    }
    if !run.quiet
        && let Some(hint) = rate_hint(settings, config.hidden_size)
    {
        eprintln!("{hint}");
    }
    let config = with_head(config, &description, &labels);
    let settings = settings.clone();
    Ok(Start { settings, description, labels, keeps_head, config, tokenizer, device_name: name, device })
}

/// Adds the labels and problem type of the task to a configuration.
fn with_head(config: BertConfig, description: &Description, labels: &[String]) -> BertConfig {
    let mut config = if labels.is_empty() { config.without_labels() } else { config.with_labels(labels) };
    config.problem_type = description.task.problem_type;
    config
}

/// Returns the labels, in the order of the checkpoint's head if it has the same architecture and labels, and whether
/// that head can be kept. A tagging head is also kept if it has additional labels, since the files may lack a rare tag.
fn fit_to_head(labels: Vec<String>, architecture: &str, checkpoint: &BertConfig) -> (Vec<String>, bool) {
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

/// A hint if the learning rate is one for models of the paper's sizes, and this one is much narrower: it would learn
/// little (docs/RECIPE.md, "What it is worth downstream").
fn rate_hint(settings: &FinetuneSettings, hidden_size: usize) -> Option<String> {
    let trains_encoder = matches!(settings.adaptation, Adaptation::Full | Adaptation::FrozenLayers(_));
    let usual = if hidden_size <= 128 { 1e-3 } else { 5e-4 };
    let is_low = trains_encoder && hidden_size <= WIDEST_OF_SMALL && settings.learning_rate < usual / 4.0;
    is_low.then(|| {
        format!(
            "hint: a learning rate of {:e} suits models that are 768 wide; this one is {hidden_size} wide and learns more with \
             --lr {usual:e}",
            settings.learning_rate
        )
    })
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
    warn(&settings.model, loaded.unused_layers_warning().as_deref());
    let unexpected: Vec<&str> =
        loaded.initialized.iter().map(String::as_str).filter(|n| n.contains("pooler")).collect();
    if !unexpected.is_empty() && !quiet {
        eprintln!("warning: {}: the checkpoint has no pooler; initializing a new one", settings.model.display());
    }
    Ok(loaded.model)
}
