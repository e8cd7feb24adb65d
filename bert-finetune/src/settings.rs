//! The validated command line, with all defaults filled in.

use std::path::{Path, PathBuf};

use bert_model::pipeline::SentenceTransformer;
use bert_model::{Error, Result};
use bert_train::run_directory::read_run;
use bert_train::{Adaptation, Algorithm, Decay, IfExists, Precision, Schedule};
use serde::{Deserialize, Serialize};

use crate::args::{Freeze, TrainArgs};
use crate::description::{Description, SHORTEST_SEQUENCE};
use crate::effect::check_train;
use crate::model_directory::config_of;
use crate::tasks::embedding::EmbeddingSettings;

/// Default output directory of a run on the sample.
pub const DEFAULT_OUTPUT: &str = "runs/finetune";

/// Default directory of `bert-pretrain`; a run on the sample starts from its model.
pub const SAMPLE_MODEL: &str = "runs/pretrain";

/// Settings that affect the resulting weights; a resumed run must have the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Number of parts that a batch is split into, which are computed in parallel: the cores at the start of the run;
    /// `None` for those of this process.
    #[serde(default)]
    pub parts: Option<usize>,
    /// The optimizer.
    pub optimizer: Algorithm,
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
    /// Floating-point precision of the forward and backward pass.
    pub precision: Precision,
    /// Whether ranks send gradients in `bf16`.
    #[serde(default)]
    pub bf16_exchange: bool,
    /// Number of epochs without improvement after which training stops.
    pub early_stop: Option<u64>,
    /// Number of examples to hold in memory at once, if the loss depends on the whole batch.
    #[serde(default)]
    pub mini_batch: Option<usize>,
    /// Whether classes are weighted inversely to their frequency.
    pub class_weights: bool,
    /// Which parameters to train.
    pub adaptation: Adaptation,
    /// Random seed.
    pub seed: u64,
    /// Determines which examples `eval_share` holds out; equal for all runs if there are several `seeds`.
    pub split_seed: u64,
}

/// Options that cannot affect the resulting weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinetuneRunOptions {
    /// Run directory.
    pub output: PathBuf,
    /// Number of runs, with consecutive seeds.
    pub seeds: u64,
    /// What to do if the run directory is not empty.
    #[serde(skip)]
    pub if_exists: IfExists,
    /// File for the predictions on the test file, else on the evaluation examples.
    pub predictions: Option<PathBuf>,
    /// Steps between checkpoints; 0 for no limit.
    pub save_every: u64,
    /// Minutes between checkpoints, if that is sooner; 0 for no limit.
    pub save_minutes: f64,
    /// Number of checkpoints to keep, also after the run has finished; `None` keeps two, and none after it has
    /// finished.
    pub keep: Option<usize>,
    /// Name of the device.
    pub device: String,
    /// Whether ranks divide the optimizer's state among them.
    #[serde(default)]
    pub shard_optimizer: bool,
    /// Whether to print the result as JSON.
    #[serde(skip)]
    pub json: bool,
    /// Whether to suppress progress on stderr.
    #[serde(skip)]
    pub quiet: bool,
}

/// Defaults that differ between a run on the built-in sample and one on a file.
struct Defaults {
    output: Option<&'static str>,
    model: Option<&'static str>,
    batch_size: usize,
    /// `None` for the default of the adaptation.
    learning_rate: Option<f64>,
}

impl Defaults {
    const FILE: Self = Self { output: None, model: None, batch_size: 32, learning_rate: None };

    const SAMPLE: Self =
        Self { output: Some(DEFAULT_OUTPUT), model: Some(SAMPLE_MODEL), batch_size: 16, learning_rate: Some(3e-4) };
}

impl FinetuneSettings {
    /// The paths from which the run reads: the initial model and the files of examples.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.model].into_iter().chain(&self.train).chain(&self.eval).chain(&self.test)
    }

    /// Validates the options of `bert-finetune train` and fills in defaults.
    ///
    /// # Errors
    /// If a value is out of range, or a required option is missing.
    pub fn resolve(args: &TrainArgs) -> Result<(Self, FinetuneRunOptions)> {
        let defaults = if args.train.is_none() { Defaults::SAMPLE } else { Defaults::FILE };
        let run = FinetuneRunOptions::resolve(args, &defaults)?;
        let model = given_or(args.model.as_deref(), defaults.model, "--model DIR")?;
        let adaptation = match (args.freeze, args.lora) {
            (_, Some(rank)) => Adaptation::Lora { rank },
            (Some(Freeze::Encoder), None) => Adaptation::FrozenEncoder,
            (Some(Freeze::Layers(count)), None) => Adaptation::FrozenLayers(count),
            (None, None) => Adaptation::Full,
        };
        let usual_rate = match adaptation {
            Adaptation::Lora { .. } => 5e-4,
            Adaptation::FrozenEncoder => 1e-3,
            _ => 5e-5,
        };
        let settings = Self {
            description: describe(args, &model)?,
            model,
            from_scratch: args.from_scratch,
            train: args.train.clone(),
            eval: args.eval.clone(),
            eval_share: args.eval_share,
            test: args.test.clone(),
            epochs: args.epochs,
            batch_size: args.batch_size.unwrap_or(defaults.batch_size),
            parts: None,
            optimizer: args.optimizer,
            learning_rate: args.lr.or(defaults.learning_rate).unwrap_or(usual_rate),
            warmup: args.warmup,
            decay: args.schedule,
            weight_decay: args.weight_decay,
            clip: args.clip,
            precision: args.precision,
            bf16_exchange: args.bf16_exchange,
            early_stop: args.early_stop,
            mini_batch: args.mini_batch,
            class_weights: args.class_weights.is_some(),
            adaptation,
            seed: args.common.seed,
            split_seed: args.common.seed,
        };
        check_train(args, settings.description.task)?;
        settings.check()?;
        Ok((settings, run))
    }

    fn check(&self) -> Result<()> {
        let check = |good: bool, option: &str, found: String, expected: &str| match good {
            true => Ok(()),
            false => Err(Error::Usage(format!("{option}: found {found}, expected {expected}"))),
        };
        check((1..=1_000_000).contains(&self.epochs), "--epochs", self.epochs.to_string(), "from 1 to 1000000")?;
        check(self.batch_size > 0, "--batch-size", self.batch_size.to_string(), "at least 1")?;
        let decay = self.weight_decay;
        check(decay >= 0.0 && decay.is_finite(), "--weight-decay", decay.to_string(), "0 or more")?;
        let rate = self.learning_rate;
        check(rate >= 0.0 && rate.is_finite(), "--lr", rate.to_string(), "0 or more")?;
        check(self.warmup >= 0.0 && self.warmup.is_finite(), "--warmup", self.warmup.to_string(), "0 or more")?;
        check(self.clip >= 0.0 && self.clip.is_finite(), "--clip", self.clip.to_string(), "0 or more")?;
        let share = self.eval_share;
        check((0.0..1.0).contains(&share), "--eval-share", share.to_string(), "at least 0 and below 1")?;
        check(self.early_stop != Some(0), "--early-stop", "0".into(), "at least 1")?;
        let Description { task, metric, .. } = &self.description;
        let metrics = task.metrics;
        let expected = format!("one of {} for {task}", metrics.join(", "));
        check(metrics.contains(&metric.as_str()), "--metric", format!("{metric:?}"), &expected)?;
        let length = self.description.max_seq_len;
        let shortest = format!("at least {SHORTEST_SEQUENCE}");
        check(length >= SHORTEST_SEQUENCE, "--max-seq-len", length.to_string(), &shortest)?;
        let scale = self.description.embedding.scale;
        check(scale > 0.0 && scale.is_finite(), "--scale", scale.to_string(), "a number above 0")?;
        check(self.mini_batch != Some(0), "--mini-batch", "0".into(), "at least 1")?;
        check(self.description.doc_stride > 0, "--doc-stride", "0".into(), "at least 1")?;
        check(self.adaptation != Adaptation::Lora { rank: 0 }, "--lora", "0".into(), "at least 1")
    }

    /// The learning-rate schedule of a run of `steps` steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        let warmup = Schedule::warmup_steps(self.warmup, steps);
        Schedule { peak: self.learning_rate, warmup, steps, decay: self.decay }
    }
}

/// The most runs with different seeds: more is taken for a typo.
const MOST_SEEDS: u64 = 10_000;

impl FinetuneRunOptions {
    fn resolve(args: &TrainArgs, defaults: &Defaults) -> Result<Self> {
        let output = given_or(args.output.as_deref(), defaults.output, "-o DIR")?;
        // The sample's default directory may be overwritten without asking, any other only with --overwrite.
        let is_default = args.output.is_none() && is_sample_run(&output);
        let if_exists = match (args.resume, args.overwrite || is_default) {
            (true, _) => IfExists::Resume,
            (false, true) => IfExists::Overwrite,
            (false, false) => IfExists::Refuse,
        };
        let (device, json, quiet) = (args.common.device.clone(), args.common.json, args.common.quiet);
        let TrainArgs { save_every, save_minutes, keep, shard_optimizer, .. } = *args;
        if !(save_minutes >= 0.0 && save_minutes.is_finite()) {
            return Err(Error::Usage(format!("--save-minutes: found {save_minutes}, expected 0 or more")));
        }
        if keep == Some(0) {
            return Err(Error::Usage("--keep: found 0, expected at least 1".into()));
        }
        let (seeds, predictions) = (args.seeds, args.predictions.clone());
        let is_last_seed = |seeds: u64| args.common.seed.checked_add(seeds - 1).is_some();
        if !(1..=MOST_SEEDS).contains(&seeds) || !is_last_seed(seeds) {
            let expected = format!("from 1 to {MOST_SEEDS}, and seeds below 2^64");
            return Err(Error::Usage(format!("--seeds: found {seeds}, expected {expected}")));
        }
        Ok(Self {
            output,
            seeds,
            if_exists,
            predictions,
            save_every,
            save_minutes,
            keep,
            device,
            shard_optimizer,
            json,
            quiet,
        })
    }
}

fn given_or(given: Option<&Path>, default: Option<&'static str>, option: &str) -> Result<PathBuf> {
    let path = given.or(default.map(Path::new)).map(Path::to_path_buf);
    path.ok_or_else(|| Error::Usage(format!("{option} is required with --train FILE")))
}

/// The task and the columns of its files: the preset's or the defaults, overridden by explicit options.
fn describe(args: &TrainArgs, model: &Path) -> Result<Description> {
    let task = match (args.task, args.preset) {
        (Some(task), Some(preset)) if task != preset.task => {
            return Err(Error::Usage(format!("--task {task}: the preset {} is for {}", preset.name, preset.task)));
        }
        (task, preset) => task.or(preset.map(|preset| preset.task)).unwrap_or_default(),
    };
    // Do not let the default length exceed the model's positions.
    let positions = config_of(model).map_or(usize::MAX, |config| config.max_position_embeddings);
    let own_length =
        if task.joins_pairs() { None } else { SentenceTransformer::read(model)?.and_then(|how| how.max_length) };
    let length = args.max_seq_len.unwrap_or(own_length.unwrap_or(task.max_seq_len).min(positions));
    let usual = args.preset.map_or_else(|| Description::usual(task, length), |preset| preset.description(length));
    // Explicit options override the preset.
    let usual = args.columns.over(usual, args.label.as_deref());
    let is_labeled = usual.label.is_some();
    let metric = if task.labeled_metric.is_some() { task.usual_metric(is_labeled).into() } else { usual.metric };
    let embedding = EmbeddingSettings {
        negatives: args.negative.clone(),
        scale: args.scale.unwrap_or(usual.embedding.scale),
        pooling: args.pooling,
        normalize: args.normalize,
        ..usual.embedding
    };
    Ok(Description {
        token_column: args.token_column.clone(),
        tag_column: args.tag_column.clone(),
        doc_stride: args.doc_stride,
        metric: args.metric.clone().unwrap_or(metric),
        embedding,
        ..usual
    }
    .of_model(model))
}

/// Whether the directory contains a run on the built-in sample.
fn is_sample_run(directory: &Path) -> bool {
    let run = read_run(directory).unwrap_or_default();
    run["settings"].is_object() && run["settings"]["train"].is_null()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::tasks::kind::TaskKind;
    use crate::tasks::sequence::CLASSIFICATION;

    fn resolve(arguments: &str) -> Result<(FinetuneSettings, FinetuneRunOptions)> {
        let words = ["bert-finetune", "train"].into_iter().chain(arguments.split_whitespace());
        let Some(Command::Train(args)) = Cli::parse_from(words).command else { panic!("{arguments}") };
        FinetuneSettings::resolve(&args)
    }

    fn on_file(more: &str) -> FinetuneSettings {
        resolve(&format!("--model nowhere --train a.csv -o run {more}")).unwrap().0
    }

    #[test]
    fn a_file_has_the_defaults_of_the_paper() {
        let settings = on_file("");
        assert_eq!((settings.epochs, settings.batch_size, settings.learning_rate), (3, 32, 5e-5));
        assert_eq!((settings.warmup, settings.weight_decay, settings.clip), (0.1, 0.01, 1.0));
        assert_eq!((settings.description.max_seq_len, settings.description.task), (128, TaskKind(&CLASSIFICATION)));
        assert_eq!((&*settings.description.metric, settings.adaptation), ("accuracy", Adaptation::Full));
        let answers = on_file("--task question-answering").description;
        assert_eq!((answers.max_seq_len, answers.doc_stride, &*answers.text), (384, 128, "question"));
    }

    #[test]
    fn the_learning_rate_follows_what_learns_unless_it_is_given() {
        for (options, rate) in
            [("--lora 4", 5e-4), ("--freeze encoder", 1e-3), ("--freeze 1", 5e-5), ("--lora 4 --lr 1e-2", 1e-2)]
        {
            assert_eq!(on_file(options).learning_rate, rate, "{options}");
        }
    }

    #[test]
    fn no_argument_is_the_sample() {
        let (settings, run) = resolve("").unwrap();
        assert_eq!((settings.batch_size, settings.learning_rate, settings.train), (16, 3e-4, None));
        assert_eq!((settings.model, run.output), (SAMPLE_MODEL.into(), DEFAULT_OUTPUT.into()));
        let given = resolve("--batch-size 32 --lr 5e-5 --model m -o run").unwrap();
        assert_eq!((given.0.batch_size, given.0.learning_rate, given.1.output), (32, 5e-5, "run".into()));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_option() {
        for (arguments, expected) in [
            ("--train a.csv -o run", "--model DIR is required with --train FILE"),
            ("--train a.csv --model m", "-o DIR is required with --train FILE"),
            ("--epochs 0", "--epochs: found 0"),
            ("--batch-size 0", "--batch-size: found 0"),
            ("--warmup nan", "--warmup: found NaN"),
            ("--early-stop 0", "--early-stop: found 0"),
            ("--max-seq-len 7", "--max-seq-len: found 7, expected at least 8"),
            ("--task question-answering --doc-stride 0 --train a.json --model m -o run", "--doc-stride: found 0"),
            ("--lora 0", "--lora: found 0"),
            (
                "--metric mcc --task regression --train a.csv --model m -o run",
                "--metric: found \"mcc\", expected one of pearson, spearman",
            ),
        ] {
            let message = resolve(arguments).unwrap_err().to_string();
            assert!(message.contains(expected), "{arguments}: {message}");
        }
    }
}
