//! The command line, checked and with every default filled in: what the rest of the program takes.

use std::path::{Path, PathBuf};

use bert_model::{BertConfig, Error, Result};
use bert_train::run_directory::read_run;
use bert_train::{IfExists, OptimizerConfig, Precision, Schedule};
use serde::Serialize;

use crate::args::{DataArgs, TrainArgs};
use crate::corpus::SentenceMode;
use crate::examples::NspMode;
use crate::sample;

/// Where the sample's run goes.
pub const DEFAULT_OUTPUT: &str = "runs/pretrain";

/// How text becomes examples.
#[derive(Debug, Clone, Serialize)]
pub struct DataSettings {
    pub sentences: SentenceMode,
    pub max_seq_len: usize,
    pub nsp_mode: NspMode,
    pub short_seq_prob: f64,
    pub mask_prob: f64,
    pub max_predictions: Option<usize>,
    pub whole_word_mask: bool,
}

/// What decides the numbers of a run; a resumed run must have the same.
#[derive(Debug, Clone, Serialize)]
pub struct PretrainSettings {
    /// Empty for the built-in sample.
    pub corpus: Vec<String>,
    pub eval_corpus: Vec<String>,
    pub eval_share: f64,
    pub eval_examples: usize,
    pub tokenizer: Option<PathBuf>,
    pub vocab_size: Option<usize>,
    pub cased: bool,
    pub config: String,
    pub init: Option<PathBuf>,
    #[serde(flatten)]
    pub data: DataSettings,
    pub maskings: Option<u64>,
    pub optimizer: OptimizerConfig,
    pub learning_rate: f64,
    pub warmup: f64,
    pub decay: bert_train::Decay,
    pub clip: f64,
    pub batch_size: usize,
    pub accumulate: usize,
    pub steps: Option<u64>,
    pub epochs: f64,
    pub phase2_steps: u64,
    pub phase2_seq_len: usize,
    pub precision: Precision,
    pub gradient_checkpointing: bool,
    pub seed: u64,
}

/// What does not decide them.
#[derive(Debug, Clone, Serialize)]
pub struct PretrainRunOptions {
    pub output: PathBuf,
    #[serde(skip)]
    pub if_exists: Option<IfExists>,
    pub device: String,
    pub eval_every: u64,
    pub save_every: u64,
    pub keep: usize,
    #[serde(skip)]
    pub json: bool,
    #[serde(skip)]
    pub quiet: bool,
}

/// Least `--max-seq-len`: three special tokens and a few others.
const SHORTEST: usize = 8;

/// What the sample's own configuration goes by.
const SAMPLE_CONFIG: &str = "sample";

/// Number of documents of the built-in sample.
pub const SAMPLE_DOCUMENTS: usize = 6000;

impl DataSettings {
    /// Checks the options that say how text becomes examples.
    ///
    /// # Errors
    /// If one cannot be.
    pub fn resolve(args: &DataArgs, default_length: usize) -> Result<Self> {
        let settings = Self {
            sentences: args.sentences,
            max_seq_len: args.max_seq_len.unwrap_or(default_length),
            nsp_mode: if args.no_nsp { NspMode::Off } else { args.nsp_mode },
            short_seq_prob: args.short_seq_prob,
            mask_prob: args.mask_prob,
            max_predictions: args.max_predictions,
            whole_word_mask: args.whole_word_mask,
        };
        check((0.0..=1.0).contains(&args.short_seq_prob), "--short-seq-prob", args.short_seq_prob, "from 0 to 1")?;
        check(args.mask_prob > 0.0 && args.mask_prob < 1.0, "--mask-prob", args.mask_prob, "between 0 and 1")?;
        check(
            settings.max_seq_len >= SHORTEST,
            "--max-seq-len",
            settings.max_seq_len,
            &format!("at least {SHORTEST}"),
        )?;
        check(settings.max_predictions != Some(0), "--max-predictions", 0, "at least 1")?;
        Ok(settings)
    }

    /// At most so many hidden tokens in a sequence: 20 of 128 and 80 of 512, as Google's, unless set.
    pub fn max_predictions(&self, max_length: usize) -> usize {
        self.max_predictions.unwrap_or_else(|| (max_length as f64 * self.mask_prob * 25.0 / 24.0).ceil() as usize)
    }
}

impl PretrainSettings {
    /// Checks `bert-pretrain train`'s options and fills in the defaults, which are smaller for the built-in sample.
    ///
    /// # Errors
    /// If an option cannot be, or two contradict each other.
    pub fn resolve(args: &TrainArgs) -> Result<(Self, PretrainRunOptions)> {
        let is_sample = args.corpus.is_empty();
        let has_tokenizer = args.tokenizer.is_some() || args.init.is_some();
        let output = match (&args.output, is_sample) {
            (Some(output), _) => output.clone(),
            (None, true) => DEFAULT_OUTPUT.into(),
            (None, false) => return Err(Error::Usage("where to? name a run directory with -o DIR".into())),
        };
        let optimizer = OptimizerConfig {
            algorithm: args.optimizer,
            weight_decay: args.weight_decay,
            bias_correction: !args.no_bias_correction,
            ..OptimizerConfig::default()
        };
        let settings = Self {
            corpus: args.corpus.clone(),
            eval_corpus: args.eval_corpus.clone(),
            eval_share: args.eval_share,
            eval_examples: args.eval_examples,
            tokenizer: args.tokenizer.clone(),
            vocab_size: args.vocab_size.or((is_sample && !has_tokenizer).then_some(1000)),
            cased: args.cased,
            config: args.config.clone().unwrap_or_else(|| if is_sample { SAMPLE_CONFIG } else { "tiny" }.into()),
            init: args.init.clone(),
            data: DataSettings::resolve(&args.data, if is_sample { 64 } else { 128 })?,
            maskings: args.static_masking.then_some(args.dupe_factor),
            optimizer,
            learning_rate: args.lr.unwrap_or(if is_sample { 2e-3 } else { 1e-4 }),
            warmup: if is_sample && args.warmup == 0.01 { 0.1 } else { args.warmup },
            decay: args.schedule,
            clip: args.clip,
            batch_size: args.batch_size.unwrap_or(if is_sample { 16 } else { 32 }),
            accumulate: args.accumulate,
            steps: args.steps.or((is_sample && args.epochs.is_none()).then_some(4000)),
            epochs: args.epochs.unwrap_or(3.0),
            phase2_steps: args.phase2_steps,
            phase2_seq_len: args.phase2_seq_len,
            precision: args.precision,
            gradient_checkpointing: args.gradient_checkpointing,
            seed: args.common.seed,
        };
        settings.check()?;
        settings.model_config()?;
        // The sample's own default directory is ours to write anew; any other one has to be named for that.
        let is_default = is_sample && args.output.is_none() && is_sample_run(&output);
        let if_exists = match (args.resume, args.overwrite || is_default) {
            (true, _) => IfExists::Resume,
            (false, true) => IfExists::Overwrite,
            (false, false) => IfExists::Refuse,
        };
        let run = PretrainRunOptions {
            output,
            if_exists: Some(if_exists),
            device: args.common.device.clone(),
            eval_every: args.eval_every,
            save_every: args.save_every,
            keep: args.keep,
            json: args.common.json,
            quiet: args.common.quiet,
        };
        Ok((settings, run))
    }

    fn check(&self) -> Result<()> {
        check(self.batch_size > 0, "--batch-size", self.batch_size, "at least 1")?;
        check(self.accumulate > 0, "--accumulate", self.accumulate, "at least 1")?;
        check(self.steps != Some(0), "--steps", 0, "at least 1")?;
        check(self.epochs > 0.0 && self.epochs.is_finite(), "--epochs", self.epochs, "above 0")?;
        check(self.learning_rate >= 0.0 && self.learning_rate.is_finite(), "--lr", self.learning_rate, "0 or more")?;
        check(self.warmup >= 0.0 && self.warmup.is_finite(), "--warmup", self.warmup, "a share or a number of steps")?;
        check(self.clip >= 0.0 && self.clip.is_finite(), "--clip", self.clip, "0 or more")?;
        check((0.0..1.0).contains(&self.eval_share), "--eval-share", self.eval_share, "from 0 up to 1")?;
        check(self.maskings != Some(0), "--dupe-factor", 0, "at least 1")?;
        let total = self.steps.unwrap_or(u64::MAX);
        check(
            self.phase2_seq_len >= SHORTEST,
            "--phase2-seq-len",
            self.phase2_seq_len,
            &format!("at least {SHORTEST}"),
        )?;
        check(self.phase2_steps <= total, "--phase2-steps", self.phase2_steps, "at most --steps")?;
        Ok(())
    }

    /// The learning rate over a run of `steps`.
    pub fn schedule(&self, steps: u64) -> Schedule {
        let warmup = Schedule::warmup_steps(self.warmup, steps);
        Schedule { peak: self.learning_rate, warmup, steps, decay: self.decay }
    }

    /// The longest sequence of the whole run.
    pub fn longest(&self) -> usize {
        if self.phase2_steps > 0 { self.data.max_seq_len.max(self.phase2_seq_len) } else { self.data.max_seq_len }
    }

    /// The form of a new model, a named size or a file, and whether its vocabulary is as large as the tokenizer's.
    ///
    /// # Errors
    /// If there is neither.
    pub fn model_config(&self) -> Result<(BertConfig, bool)> {
        if self.config == SAMPLE_CONFIG {
            return Ok((sample::config(), true));
        }
        if let Some(config) = BertConfig::named(&self.config) {
            return Ok((config, true));
        }
        match Path::new(&self.config).exists() {
            true => {
                let text = std::fs::read_to_string(&self.config).unwrap_or_default();
                let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
                Ok((BertConfig::from_file_strict(&self.config)?, !keys.contains_key("vocab_size")))
            }
            false => Err(Error::Setting(format!(
                "--config: found {:?}, expected one of {} or a config.json",
                self.config,
                BertConfig::size_names()
            ))),
        }
    }
}

fn check(good: bool, option: &str, found: impl std::fmt::Display, expected: &str) -> Result<()> {
    if good { Ok(()) } else { Err(Error::Usage(format!("{option}: found {found}, expected {expected}"))) }
}

/// Whether the directory holds a run on the built-in sample.
fn is_sample_run(directory: &Path) -> bool {
    let run = read_run(directory).unwrap_or_default();
    run["settings"]["corpus"].as_array().is_some_and(Vec::is_empty)
}
