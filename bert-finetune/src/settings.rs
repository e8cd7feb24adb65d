//! The command line, checked and with every default filled in.

use std::path::{Path, PathBuf};

use bert_model::pretrained::load_config;
use bert_model::{Error, Result};
use bert_train::run_directory::read_run;
use bert_train::{Adaptation, Decay, IfExists, Schedule};
use serde::Serialize;

use crate::args::{Freeze, TrainArgs};
use crate::description::{Description, SHORTEST_SEQUENCE};

/// Where the sample's run goes.
pub const DEFAULT_OUTPUT: &str = "runs/finetune";

/// Where `bert-pretrain` leaves the model that the sample begins with.
pub const SAMPLE_MODEL: &str = "runs/pretrain";

/// What decides the numbers of a run; a resumed run must have the same.
#[derive(Debug, Clone, Serialize)]
pub struct FinetuneSettings {
    /// The model to begin with.
    pub model: PathBuf,
    /// Take the form of the model, but not its weights.
    pub from_scratch: bool,
    /// `None` for the built-in sample.
    pub train: Option<PathBuf>,
    pub eval: Option<PathBuf>,
    pub eval_share: f64,
    pub test: Option<PathBuf>,
    #[serde(flatten)]
    pub description: Description,
    pub epochs: u64,
    pub batch_size: usize,
    pub learning_rate: f64,
    pub warmup: f64,
    pub decay: Decay,
    pub weight_decay: f64,
    pub clip: f64,
    pub early_stop: Option<u64>,
    /// Whether rare classes count as much as frequent ones.
    pub class_weights: bool,
    /// What learns.
    pub adaptation: Adaptation,
    pub seed: u64,
    /// Decides which examples `eval_share` sets aside: the same ones for each of several seeds.
    pub split_seed: u64,
}

/// What does not decide them.
#[derive(Debug, Clone)]
pub struct FinetuneRunOptions {
    pub output: PathBuf,
    /// Runs, each with the next seed.
    pub seeds: u64,
    pub if_exists: IfExists,
    pub device: String,
    pub json: bool,
    pub quiet: bool,
}

impl FinetuneSettings {
    /// Checks `bert-finetune train`'s options and fills in the defaults, which are others for the built-in sample.
    ///
    /// # Errors
    /// If an option cannot be, or a needed one is missing.
    pub fn resolve(args: &TrainArgs) -> Result<(Self, FinetuneRunOptions)> {
        let is_sample = args.train.is_none();
        let missing = |option: &str| Error::Usage(format!("{option} is needed beside --train FILE"));
        let default = |path: &str, option: &str| if is_sample { Ok(path.into()) } else { Err(missing(option)) };
        let output = args.output.clone().map_or_else(|| default(DEFAULT_OUTPUT, "-o DIR"), Ok)?;
        let model = args.model.clone().map_or_else(|| default(SAMPLE_MODEL, "--model DIR"), Ok)?;
        let task = match (args.task, args.preset) {
            (Some(task), Some(preset)) if task != preset.task => {
                return Err(Error::Usage(format!("--task {task}: the preset {} is for {}", preset.name, preset.task)));
            }
            (task, preset) => task.or(preset.map(|preset| preset.task)).unwrap_or_default(),
        };
        // A default longer than the model has positions would be of no use to anyone.
        let positions = load_config(&model).map_or(usize::MAX, |config| config.max_position_embeddings);
        let length = args.max_seq_len.unwrap_or(task.max_seq_len.min(positions));
        let usual = args.preset.map_or_else(|| Description::usual(task, length), |preset| preset.description(length));
        // What is said beside a preset counts more.
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
        check((0.0..1.0).contains(&share), "--eval-share", share.to_string(), "from 0 up to 1")?;
        check(self.early_stop != Some(0), "--early-stop", "0".into(), "at least 1")?;
        let Description { task, metric, .. } = &self.description;
        let metrics = task.metrics;
        let expected = format!("one of {} for {task}", metrics.join(", "));
        check(metrics.contains(&metric.as_str()), "--metric", format!("{metric:?}"), &expected)?;
        let length = self.description.max_seq_len;
        let shortest = format!("at least {SHORTEST_SEQUENCE}");
        check(length >= SHORTEST_SEQUENCE, "--max-seq-len", length.to_string(), &shortest)?;
        check(self.description.doc_stride > 0, "--doc-stride", "0".into(), "at least 1")?;
        check(self.adaptation != Adaptation::Lora { rank: 0 }, "--lora", "0".into(), "at least 1")
    }

    /// The learning rate over a run of `steps`.
    pub fn schedule(&self, steps: u64) -> Schedule {
        let warmup = Schedule::warmup_steps(self.warmup, steps);
        Schedule { peak: self.learning_rate, warmup, steps, decay: self.decay }
    }
}

/// Whether the directory holds a run on the built-in sample.
fn is_sample_run(directory: &Path) -> bool {
    let run = read_run(directory).unwrap_or_default();
    run["settings"].is_object() && run["settings"]["train"].is_null()
}
