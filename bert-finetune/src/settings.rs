//! The validated command line, with all defaults filled in.

use std::path::{Path, PathBuf};

use bert_model::pretrained::load_config;
use bert_model::{Error, Result};
use bert_train::run_directory::read_run;
use bert_train::{Adaptation, Decay, IfExists, Schedule};
use serde::Serialize;

use crate::args::{Freeze, TrainArgs};
use crate::description::{Description, SHORTEST_SEQUENCE};
use crate::tasks::kind::TaskName;

/// Default output directory of a run on the sample.
pub const DEFAULT_OUTPUT: &str = "runs/finetune";

/// Default directory of `bert-pretrain`, whose model the sample starts from.
pub const SAMPLE_MODEL: &str = "runs/pretrain";

/// Settings that affect the resulting weights; a resumed run must have the same.
#[derive(Debug, Clone, Serialize)]
pub struct FinetuneSettings {
    /// Model directory to start from.
    pub model: PathBuf,
    /// Use the model's configuration but not its weights.
    pub from_scratch: bool,
    /// Training file; `None` for the built-in sample.
    pub train: Option<PathBuf>,
    /// Evaluation file; `None` holds out part of the training examples.
    pub eval: Option<PathBuf>,
    /// Fraction of the training examples to hold out, without an evaluation file.
    pub eval_share: f64,
    /// Test file, evaluated once after training.
    pub test: Option<PathBuf>,
    /// The task, its columns and its sequence length.
    #[serde(flatten)]
    pub description: Description,
    /// Passes over the training examples.
    pub epochs: u64,
    /// Examples per step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Warmup: a fraction of the steps (below 1) or a number of steps.
    pub warmup: f64,
    /// Shape of the learning-rate schedule after warmup.
    pub decay: Decay,
    /// Decoupled weight decay, not applied to biases and LayerNorm.
    pub weight_decay: f64,
    /// Maximum global gradient norm; 0 disables clipping.
    pub clip: f64,
    /// Number of epochs without improvement after which training stops.
    pub early_stop: Option<u64>,
    /// Whether classes are weighted inversely to their frequency.
    pub class_weights: bool,
    /// Which parameters to train.
    pub adaptation: Adaptation,
    /// Random seed.
    pub seed: u64,
    /// Determines which examples `eval_share` holds out; equal for all of several `seeds`.
    pub split_seed: u64,
}

/// Options that cannot affect the resulting weights.
#[derive(Debug, Clone)]
pub struct FinetuneRunOptions {
    /// Run directory.
    pub output: PathBuf,
    /// Number of runs, with consecutive seeds.
    pub seeds: u64,
    /// What to do if the run directory is not empty.
    pub if_exists: IfExists,
    /// Name of the device.
    pub device: String,
    /// Whether to print the result as JSON.
    pub json: bool,
    /// Whether to suppress progress on stderr.
    pub quiet: bool,
}

impl FinetuneSettings {
    /// Validates the options of `bert-finetune train` and fills in defaults, which differ for the
    /// built-in sample.
    ///
    /// # Errors
    /// If a value is out of range, or a required option is missing.
    pub fn resolve(args: &TrainArgs) -> Result<(Self, FinetuneRunOptions)> {
        let is_sample = args.train.is_none();
        let missing = |option: &str| Error::Usage(format!("{option} is required with --train FILE"));
        let default = |path: &str, option: &str| if is_sample { Ok(path.into()) } else { Err(missing(option)) };
        let output = args.output.clone().map_or_else(|| default(DEFAULT_OUTPUT, "-o DIR"), Ok)?;
        let model = args.model.clone().map_or_else(|| default(SAMPLE_MODEL, "--model DIR"), Ok)?;
        let task = match (args.task, args.preset) {
            (Some(task), Some(preset)) if task != preset.task => {
                return Err(Error::Usage(format!("--task {task}: the preset {} is for {}", preset.name, preset.task)));
            }
            (task, preset) => task.or(preset.map(|preset| preset.task)).unwrap_or(TaskName::Classification),
        };
        // Do not let the default length exceed the model's positions.
        let positions = load_config(&model).map_or(usize::MAX, |config| config.max_position_embeddings);
        let length = args.max_seq_len.unwrap_or(task.default_length().min(positions));
        let usual = args.preset.map_or_else(|| Description::usual(task, length), |preset| preset.description(length));
        // Explicit options override the preset.
        let usual = args.columns.over(usual, args.label.as_deref());
        let description = Description {
            token_column: args.token_column.clone(),
            tag_column: args.tag_column.clone(),
            doc_stride: args.doc_stride,
            metric: args.metric.clone().unwrap_or(usual.metric),
            ..usual
        };
        let adaptation = match (args.freeze, args.lora) {
            (_, Some(rank)) => Adaptation::Lora { rank },
            (Some(Freeze::Encoder), None) => Adaptation::FrozenEncoder,
            (Some(Freeze::Layers(count)), None) => Adaptation::FrozenLayers(count),
            (None, None) => Adaptation::Full,
        };
        let usual_rate = match adaptation {
            _ if is_sample => 3e-4,
            Adaptation::Lora { .. } => 5e-4,
            Adaptation::FrozenEncoder => 1e-3,
            _ => 5e-5,
        };
        let settings = Self {
            model,
            from_scratch: args.from_scratch,
            train: args.train.clone(),
            eval: args.eval.clone(),
            eval_share: args.eval_share,
            test: args.test.clone(),
            description,
            epochs: args.epochs,
            batch_size: args.batch_size.unwrap_or(if is_sample { 16 } else { 32 }),
            learning_rate: args.lr.unwrap_or(usual_rate),
            warmup: args.warmup,
            decay: args.schedule,
            weight_decay: args.weight_decay,
            clip: args.clip,
            early_stop: args.early_stop,
            class_weights: args.class_weights.is_some(),
            adaptation,
            seed: args.common.seed,
            split_seed: args.common.seed,
        };
        settings.check()?;
        let is_default = is_sample && args.output.is_none() && is_sample_run(&output);
        let if_exists = match (args.resume, args.overwrite || is_default) {
            (true, _) => IfExists::Resume,
            (false, true) => IfExists::Overwrite,
            (false, false) => IfExists::Refuse,
        };
        let (device, json, quiet) = (args.common.device.clone(), args.common.json, args.common.quiet);
        Ok((settings, FinetuneRunOptions { output, seeds: args.seeds, if_exists, device, json, quiet }))
    }

    fn check(&self) -> Result<()> {
        let check = |good: bool, option: &str, found: String, expected: &str| match good {
            true => Ok(()),
            false => Err(Error::Usage(format!("{option}: found {found}, expected {expected}"))),
        };
        check(self.epochs > 0, "--epochs", self.epochs.to_string(), "at least 1")?;
        check(self.batch_size > 0, "--batch-size", self.batch_size.to_string(), "at least 1")?;
        let rate = self.learning_rate;
        check(rate >= 0.0 && rate.is_finite(), "--lr", rate.to_string(), "0 or more")?;
        check(self.warmup >= 0.0 && self.warmup.is_finite(), "--warmup", self.warmup.to_string(), "0 or more")?;
        check(self.clip >= 0.0 && self.clip.is_finite(), "--clip", self.clip.to_string(), "0 or more")?;
        let share = self.eval_share;
        check((0.0..1.0).contains(&share), "--eval-share", share.to_string(), "at least 0 and below 1")?;
        check(self.early_stop != Some(0), "--early-stop", "0".into(), "at least 1")?;
        let Description { task, metric, .. } = &self.description;
        let metrics = task.metrics();
        let expected = format!("one of {} for {task}", metrics.join(", "));
        check(metrics.contains(&metric.as_str()), "--metric", format!("{metric:?}"), &expected)?;
        let length = self.description.max_seq_len;
        let shortest = format!("at least {SHORTEST_SEQUENCE}");
        check(length >= SHORTEST_SEQUENCE, "--max-seq-len", length.to_string(), &shortest)?;
        check(self.description.doc_stride > 0, "--doc-stride", "0".into(), "at least 1")?;
        check(self.adaptation != Adaptation::Lora { rank: 0 }, "--lora", "0".into(), "at least 1")
    }

    /// The learning-rate schedule of a run of `steps` steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        let warmup = Schedule::warmup_steps(self.warmup, steps);
        Schedule { peak: self.learning_rate, warmup, steps, decay: self.decay }
    }
}

/// Whether the directory contains a run on the built-in sample.
fn is_sample_run(directory: &Path) -> bool {
    let run = read_run(directory).unwrap_or_default();
    run["settings"].is_object() && run["settings"]["train"].is_null()
}
