//! The command line, as it is typed.

use std::path::PathBuf;

use bert_cli::args::{Common, TextArgs};
use bert_train::{Algorithm, Decay, Precision};
use clap::{Args, Parser, Subcommand};

use crate::corpus::SentenceMode;
use crate::examples::NspMode;

/// Learn a vocabulary and pretrain BERT on your own text.
///
/// Without a command: trains a tiny model on a small built-in sample.
#[derive(Debug, Parser)]
#[command(name = "bert-pretrain", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// `train`, if no command is named.
    #[command(flatten)]
    pub train: TrainArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pretrain on a corpus (masked LM and next-sentence prediction)
    Train(Box<TrainArgs>),
    /// Learn a WordPiece vocabulary
    Vocab(VocabArgs),
    /// Measure a model on a corpus: MLM loss, perplexity, masked and NSP accuracy
    Evaluate(EvaluateArgs),
    /// Guess the words behind `[MASK]`
    FillMask(FillMaskArgs),
    /// The probability that one sentence follows another
    NextSentence(NextSentenceArgs),
}

/// How text becomes examples.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// How lines are split into sentences: line (they are sentences) or unicode (UAX #29)
    #[arg(long, default_value = "unicode")]
    pub sentences: SentenceMode,
    /// Longest sequence in tokens, special tokens included
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// How next-sentence labels are drawn: balanced or google
    #[arg(long, default_value = "balanced")]
    pub nsp_mode: NspMode,
    /// Masked LM alone, on full sentences
    #[arg(long)]
    pub no_nsp: bool,
    /// Probability of aiming at a shorter sequence
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    pub short_seq_prob: f64,
    /// Share of the tokens to hide
    #[arg(long, default_value_t = 0.15, value_name = "P")]
    pub mask_prob: f64,
    /// At most so many hidden tokens in a sequence [default: 20 of 128, 80 of 512]
    #[arg(long, value_name = "N")]
    pub max_predictions: Option<usize>,
    /// Hide whole words
    #[arg(long)]
    pub whole_word_mask: bool,
}

/// `bert-pretrain train`
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Text files, directories or globs (.txt, .jsonl, also .gz and .zst); none: the built-in sample
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub corpus: Vec<String>,
    /// The run directory [default: runs/pretrain for the sample]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Go on with the run in the output directory
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Remove the run in the output directory first
    #[arg(long)]
    pub overwrite: bool,
    /// A tokenizer to use: a directory, vocab.txt or tokenizer.json; none: learn one from the corpus
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Size of the vocabulary to learn [default: 30522]
    #[arg(long, value_name = "N")]
    pub vocab_size: Option<usize>,
    /// Learn a vocabulary that keeps upper case and accents
    #[arg(long)]
    pub cased: bool,
    /// tiny, mini, small, medium, base, large, or a config.json [default: tiny]
    #[arg(long, value_name = "SIZE|FILE", conflicts_with = "init")]
    pub config: Option<String>,
    /// Go on from the weights of a model directory
    #[arg(long, value_name = "DIR")]
    pub init: Option<PathBuf>,
    /// How text becomes examples
    #[command(flatten)]
    pub data: DataArgs,
    /// Mask once and repeat, as Google did, instead of afresh in every epoch
    #[arg(long)]
    pub static_masking: bool,
    /// Number of different maskings with --static-masking
    #[arg(long, default_value_t = 10, value_name = "N", requires = "static_masking")]
    pub dupe_factor: u64,
    /// adamw or lamb
    #[arg(long, default_value = "adamw")]
    pub optimizer: Algorithm,
    /// The highest learning rate [default: 1e-4]
    #[arg(long)]
    pub lr: Option<f64>,
    /// A share of the steps (below 1) or a number of steps
    #[arg(long, default_value_t = 0.01)]
    pub warmup: f64,
    /// linear, cosine or constant
    #[arg(long, default_value = "linear")]
    pub schedule: Decay,
    /// Decoupled weight decay, not on biases and LayerNorm
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Google's Adam
    #[arg(long)]
    pub no_bias_correction: bool,
    /// Limit of the global gradient norm; 0 for none
    #[arg(long, default_value_t = 1.0, value_name = "NORM")]
    pub clip: f64,
    /// Examples of a (micro-)batch [default: 32]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Micro-batches of a step
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub accumulate: usize,
    /// Number of optimizer steps, phase 2 included
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Passes over the corpus [default: 3]
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// The last N steps train on longer sequences
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub phase2_steps: u64,
    /// Longest sequence of phase 2
    #[arg(long, default_value_t = 512, value_name = "N", requires = "phase2_steps")]
    pub phase2_seq_len: usize,
    /// f32, bf16 or f16, where the device has it
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Keep only the inputs of the encoder layers and compute the rest again in the backward pass, to save memory
    #[arg(long)]
    pub gradient_checkpointing: bool,
    /// Held-out text; instead of a share of the corpus
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub eval_corpus: Vec<String>,
    /// Share of the documents that is held out
    #[arg(long, default_value_t = 0.02, value_name = "P")]
    pub eval_share: f64,
    /// Steps between two evaluations; 0: only at the end
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub eval_every: u64,
    /// At most so many held-out examples are used
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub eval_examples: usize,
    /// Steps between two checkpoints; 0: none but on SIGINT and SIGTERM
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub save_every: u64,
    /// Checkpoints to keep
    #[arg(long, default_value_t = 2, value_name = "K")]
    pub keep: usize,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// `bert-pretrain vocab`
#[derive(Debug, Args)]
pub struct VocabArgs {
    /// Text files, directories or globs
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    pub corpus: Vec<String>,
    /// Number of WordPieces
    #[arg(long, default_value_t = 30522, value_name = "N")]
    pub size: usize,
    /// Keep upper case and accents
    #[arg(long)]
    pub cased: bool,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress on stderr
    #[arg(long)]
    pub quiet: bool,
}

/// `bert-pretrain evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// A model directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text files, directories or globs
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    pub corpus: Vec<String>,
    /// How text becomes examples
    #[command(flatten)]
    pub data: DataArgs,
    /// Examples of a batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub batch_size: usize,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// `bert-pretrain fill-mask`
#[derive(Debug, Args)]
pub struct FillMaskArgs {
    /// A model directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Texts with `[MASK]`
    #[command(flatten)]
    pub texts: TextArgs,
    /// Column of the text in a table
    #[arg(long, default_value = "text", value_name = "COL")]
    pub text: String,
    /// Predictions for each mask
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub top_k: usize,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// `bert-pretrain next-sentence`
#[derive(Debug, Args)]
pub struct NextSentenceArgs {
    /// A model directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The first sentence
    #[arg(long, value_name = "TEXT")]
    pub first: String,
    /// The sentence that may follow it
    #[arg(long, value_name = "TEXT")]
    pub second: String,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}
