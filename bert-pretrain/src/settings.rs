//! The validated command line, with all defaults filled in.

mod resume;
mod run_options;

use std::path::{Path, PathBuf};

use bert_model::{BertConfig, Error, Result};
use bert_train::{Algorithm, OptimizerConfig, Precision, Schedule};
use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::args::{Cli, DataArgs, TrainArgs};
use crate::budget::Budget;
use crate::corpus::SentenceMode;
use crate::effect::check_train;
use crate::examples::NspMode;
use crate::masking::MASK_PROB;
use crate::recipe::{self, Undecided};
use crate::sample;

pub use self::run_options::PretrainRunOptions;

/// Default output directory of a run on the sample.
pub const DEFAULT_OUTPUT: &str = "runs/pretrain";

/// Settings for turning text into training examples.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataSettings {
    /// How lines are split into sentences.
    pub sentences: SentenceMode,
    /// Maximum sequence length in tokens, special tokens included (in phase 1, if there are two).
    pub max_seq_len: usize,
    /// How next-sentence labels are drawn.
    pub nsp_mode: NspMode,
    /// Probability of targeting a shorter sequence.
    pub short_seq_prob: f64,
    /// Fraction of tokens to mask.
    pub mask_prob: f64,
    /// Maximum number of masked tokens per sequence; see [`DataSettings::max_predictions`] for
    /// `None`.
    pub max_predictions: Option<usize>,
    /// Whether to mask whole words.
    pub whole_word_mask: bool,
}

/// Settings that affect the resulting weights; a resumed run must have the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PretrainSettings {
    /// Corpus paths; empty for the built-in sample.
    pub corpus: Vec<String>,
    /// Evaluation corpus paths; empty to hold out part of the corpus.
    pub eval_corpus: Vec<String>,
    /// Fraction of the documents to hold out, without an evaluation corpus.
    pub eval_share: f64,
    /// Maximum number of evaluation examples.
    pub eval_examples: usize,
    /// Path of a tokenizer; `None` uses that of `init`, or learns one.
    pub tokenizer: Option<PathBuf>,
    /// Size of the vocabulary to learn; `None` takes it from the model's configuration.
    pub vocab_size: Option<usize>,
    /// Whether a learned vocabulary (or a bare vocab.txt) is cased.
    pub cased: bool,
    /// Size name or config.json path of a new model.
    pub config: String,
    /// Model directory to start from, instead of a new model.
    pub init: Option<PathBuf>,
    /// Settings for turning text into training examples.
    #[serde(flatten)]
    pub data: DataSettings,
    /// Number of static maskings; `None` masks anew in every epoch.
    pub maskings: Option<u64>,
    /// The optimizer and its hyperparameters.
    pub optimizer: OptimizerConfig,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Warmup: a fraction of the steps (below 1) or a number of steps.
    pub warmup: f64,
    /// Shape of the learning-rate schedule after warmup.
    pub decay: bert_train::Decay,
    /// Maximum global gradient norm; 0 disables clipping.
    pub clip: f64,
    /// Examples per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Number of parts that a micro-batch is split into, which are computed in parallel: the cores at the start of the
    /// run; `None` for those of this process.
    #[serde(default)]
    pub parts: Option<usize>,
    /// Number of steps; `None` derives it from `epochs`.
    pub steps: Option<u64>,
    /// Passes over the corpus, if `steps` is `None`.
    pub epochs: f64,
    /// Time that the run was given, from which `steps` and other settings were derived; `None` without a budget.
    pub budget: Option<Budget>,
    /// The settings that the budget has yet to choose.
    #[serde(skip)]
    pub undecided: Undecided,
    /// Number of final steps that train on longer sequences.
    pub phase2_steps: u64,
    /// Maximum sequence length in phase 2.
    pub phase2_seq_len: usize,
    /// Whether the steps of phase 1 begin at random multiples of its sequence length.
    #[serde(default)]
    pub shift_positions: bool,
    /// Whether phase 1 trains masked LM only.
    #[serde(default)]
    pub nsp_in_phase2: bool,
    /// Dropout probability in training; `None` for that of the model's configuration.
    pub dropout: Option<f64>,
    /// Floating-point precision of the forward and backward pass.
    pub precision: Precision,
    /// Whether the backward pass recomputes activations to save memory.
    pub gradient_checkpointing: bool,
    /// Whether ranks send gradients in `bf16`.
    #[serde(default)]
    pub bf16_exchange: bool,
    /// Random seed.
    pub seed: u64,
}

/// Defaults that differ between a run on the built-in sample and one on a corpus.
struct Defaults {
    output: Option<&'static str>,
    config: &'static str,
    /// `None` for the configuration's size.
    vocab_size: Option<usize>,
    max_seq_len: usize,
    optimizer: Algorithm,
    learning_rate: f64,
    warmup: f64,
    batch_size: usize,
    /// Number of steps; `None` derives it from the epochs.
    steps: Option<u64>,
}

impl Defaults {
    const CORPUS: Self = Self {
        output: None,
        config: "tiny",
        vocab_size: None,
        max_seq_len: 128,
        optimizer: Algorithm::AdamW,
        learning_rate: 1e-4,
        warmup: 0.01,
        batch_size: 32,
        steps: None,
    };

    const SAMPLE: Self = Self {
        output: Some(DEFAULT_OUTPUT),
        config: SAMPLE_CONFIG,
        vocab_size: Some(1000),
        max_seq_len: 64,
        optimizer: Algorithm::Muon,
        learning_rate: 3e-3,
        warmup: 0.1,
        batch_size: 16,
        steps: Some(1400),
    };
}

/// Minimum of `--max-seq-len`: three special tokens and a few others.
pub const SHORTEST: usize = 8;

/// The most examples of a micro-batch, and micro-batches of a step: more is taken for a typo.
const MOST_EXAMPLES: usize = 1 << 20;

/// Name of the sample's own model configuration.
const SAMPLE_CONFIG: &str = "sample";

/// Number of documents of the built-in sample.
pub const SAMPLE_DOCUMENTS: usize = 6000;

impl DataSettings {
    /// Validates the options for turning text into training examples.
    ///
    /// # Errors
    /// If a value is out of range.
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

    /// These settings for evaluation, which masks as many tokens as the paper whatever training masks, so that the
    /// losses of runs can be compared.
    pub fn of_evaluation(&self) -> Self {
        Self { mask_prob: MASK_PROB, max_predictions: None, ..self.clone() }
    }

    /// Maximum number of masked tokens per sequence: the configured one, or as in Google's code, which uses 20 for 128
    /// tokens and 80 for 512.
    pub fn max_predictions(&self, max_length: usize) -> usize {
        self.max_predictions.unwrap_or_else(|| (max_length as f64 * self.mask_prob * 25.0 / 24.0).ceil() as usize)
    }
}

impl PretrainSettings {
    /// Validates the options of `bert-pretrain train` and fills in defaults.
    ///
    /// # Errors
    /// If a value is out of range, or options conflict.
    pub fn resolve(args: &TrainArgs) -> Result<(Self, PretrainRunOptions)> {
        check_train(args)?;
        let (args, undecided) = (&recipe::apply(args), Undecided::of(args));
        let defaults = if args.corpus.is_empty() { Defaults::SAMPLE } else { Defaults::CORPUS };
        let run = PretrainRunOptions::resolve(args, &defaults)?;
        let has_tokenizer = args.tokenizer.is_some() || args.init.is_some();
        let mut settings = Self {
            corpus: args.corpus.clone(),
            eval_corpus: args.eval_corpus.clone(),
            eval_share: args.eval_share,
            eval_examples: args.eval_examples,
            tokenizer: args.tokenizer.clone(),
            vocab_size: args.vocab_size.or(defaults.vocab_size.filter(|_| !has_tokenizer)),
            cased: args.cased,
            config: args.config.clone().unwrap_or_else(|| defaults.config.into()),
            init: args.init.clone(),
            data: DataSettings::resolve(&args.data, defaults.max_seq_len)?,
            maskings: args.static_masking.then_some(args.dupe_factor),
            optimizer: OptimizerConfig {
                algorithm: args.optimizer.unwrap_or(defaults.optimizer),
                weight_decay: args.weight_decay.unwrap_or(OptimizerConfig::default().weight_decay),
                bias_correction: !args.no_bias_correction,
                ..OptimizerConfig::default()
            },
            learning_rate: args.lr.unwrap_or(defaults.learning_rate),
            warmup: args.warmup.unwrap_or(defaults.warmup),
            decay: args.schedule,
            clip: args.clip,
            batch_size: args.batch_size.unwrap_or(defaults.batch_size),
            accumulate: args.accumulate,
            parts: None,
            steps: args.steps.or(defaults.steps.filter(|_| args.epochs.is_none() && args.budget.is_none())),
            epochs: args.epochs.unwrap_or(3.0),
            budget: args.budget,
            undecided,
            phase2_steps: args.phase2_steps,
            phase2_seq_len: args.phase2_seq_len,
            shift_positions: args.shift_positions,
            nsp_in_phase2: args.nsp_in_phase2,
            dropout: args.dropout,
            precision: args.precision,
            gradient_checkpointing: args.gradient_checkpointing,
            bf16_exchange: args.bf16_exchange,
            seed: args.common.seed,
        };
        let config = settings.model_config()?.0;
        let positions = config.max_position_embeddings;
        if settings.undecided.next_sentences && config.check_pairs().is_err() {
            (settings.data.nsp_mode, settings.nsp_in_phase2) = (NspMode::Off, false);
        }
        if settings.undecided.phase2_steps && positions < settings.phase2_seq_len {
            settings.phase2_seq_len = positions;
            settings.data.max_seq_len = settings.data.max_seq_len.min(positions);
            settings.shift_positions = positions >= 2 * settings.data.max_seq_len;
        }
        settings.check()?;
        Ok((settings, run))
    }

    /// The settings and options of `bert-pretrain` without arguments, for a program that changes a few of them.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), although none occurs without arguments.
    pub fn sample() -> Result<(Self, PretrainRunOptions)> {
        Self::resolve(&Cli::parse_from(["bert-pretrain"]).train)
    }

    fn check(&self) -> Result<()> {
        let in_range = format!("from 1 to {MOST_EXAMPLES}");
        check((1..=MOST_EXAMPLES).contains(&self.batch_size), "--batch-size", self.batch_size, &in_range)?;
        check((1..=MOST_EXAMPLES).contains(&self.accumulate), "--accumulate", self.accumulate, &in_range)?;
        let decay = self.optimizer.weight_decay;
        check(decay >= 0.0 && decay.is_finite(), "--weight-decay", decay, "0 or more")?;
        check(self.eval_examples > 0, "--eval-examples", 0, "at least 1 (--eval-share 0 holds nothing out)")?;
        check(self.steps != Some(0), "--steps", 0, "at least 1")?;
        check(self.epochs > 0.0 && self.epochs.is_finite(), "--epochs", self.epochs, "above 0")?;
        check(self.learning_rate >= 0.0 && self.learning_rate.is_finite(), "--lr", self.learning_rate, "0 or more")?;
        check(
            self.warmup >= 0.0 && self.warmup.is_finite(),
            "--warmup",
            self.warmup,
            "a fraction or a number of steps",
        )?;
        check(self.clip >= 0.0 && self.clip.is_finite(), "--clip", self.clip, "0 or more")?;
        check((0.0..1.0).contains(&self.eval_share), "--eval-share", self.eval_share, "at least 0 and below 1")?;
        check(self.maskings != Some(0), "--dupe-factor", 0, "at least 1")?;
        let dropout = self.dropout.unwrap_or(0.0);
        check((0.0..1.0).contains(&dropout), "--dropout", dropout, "at least 0 and below 1")?;
        let total = self.steps.unwrap_or(u64::MAX);
        check(
            self.phase2_seq_len >= SHORTEST,
            "--phase2-seq-len",
            self.phase2_seq_len,
            &format!("at least {SHORTEST}"),
        )?;
        check(
            !self.shift_positions || self.phase2_seq_len >= 2 * self.data.max_seq_len,
            "--phase2-seq-len",
            self.phase2_seq_len,
            "at least twice --max-seq-len for --shift-positions",
        )?;
        check(self.phase2_steps <= total, "--phase2-steps", self.phase2_steps, "at most --steps")?;
        let needs_phase2 = self.shift_positions || self.nsp_in_phase2;
        let options = "at least 1 for --shift-positions and --nsp-in-phase2";
        check(self.has_phase2() || !needs_phase2, "--phase2-steps", 0, options)?;
        Ok(())
    }

    /// The learning-rate schedule of a run of `steps` steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        let warmup = Schedule::warmup_steps(self.warmup, steps);
        Schedule { peak: self.learning_rate, warmup, steps, decay: self.decay }
    }

    /// Whether the last steps train on sequences of another length.
    pub fn has_phase2(&self) -> bool {
        self.phase2_steps > 0 || self.undecided.phase2_steps
    }

    /// Maximum sequence length of the whole run.
    pub fn longest(&self) -> usize {
        match self.has_phase2() {
            true => self.data.max_seq_len.max(self.phase2_seq_len),
            false => self.data.max_seq_len,
        }
    }

    /// The paths from which the run reads: corpora, tokenizer, initial model and configuration.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        let corpora = self.corpus.iter().chain(&self.eval_corpus).map(Path::new);
        corpora.chain(self.tokenizer.as_deref()).chain(self.init.as_deref()).chain(self.config_file())
    }

    /// The file of a new model's configuration; `None` if it is the name of a size.
    pub fn config_file(&self) -> Option<&Path> {
        let is_name = self.config == SAMPLE_CONFIG || BertConfig::named(&self.config).is_some();
        (!is_name && self.init.is_none()).then(|| Path::new(&self.config))
    }

    /// The configuration of a new model, by size name or file, and whether its vocabulary size follows the tokenizer.
    ///
    /// # Errors
    /// If `config` is neither a size name nor a valid file.
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

#[cfg(test)]
mod tests;
