//! The command line as clap parses it.

use std::path::PathBuf;

use bert_cli::args::{Common, TextArgs, TextColumns};
use bert_cli::given::Given;
use bert_train::{Algorithm, Decay, Precision};
use clap::{Args, Parser, Subcommand};

use crate::budget::Budget;
use crate::corpus::SentenceMode;
use crate::examples::NspMode;
use crate::masking::MASK_PROB;

/// Learn a vocabulary and pretrain BERT on your own text.
///
/// Without a command, trains a tiny model on a small built-in sample.
#[derive(Debug, Parser)]
#[command(name = "bert-pretrain", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `train`, if no command is given.
    #[command(flatten)]
    pub train: TrainArgs,
}

impl Cli {
    /// Whether the command trains, which several processes can do together.
    pub fn trains(&self) -> bool {
        matches!(&self.command, None | Some(Command::Train(_)))
    }
}

/// The commands of `bert-pretrain`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pretrain on a corpus (masked LM and next-sentence prediction)
    Train(Box<TrainArgs>),
    /// Learn a WordPiece vocabulary
    Vocab(VocabArgs),
    /// Evaluate a model on a corpus: MLM loss, perplexity, MLM and NSP accuracy
    Evaluate(EvaluateArgs),
    /// Predict the tokens at `[MASK]`
    FillMask(FillMaskArgs),
    /// Predict the probability that one sentence follows another
    NextSentence(NextSentenceArgs),
}

/// Options for turning text into training examples.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// How to split text into sentences: line (each line is one), unicode (UAX #29, each line by
    /// itself), wrapped (as unicode, after joining lines up to an empty one) or auto (wrapped for
    /// files whose lines end within sentences, else unicode)
    #[arg(long, default_value = "auto", value_name = "MODE")]
    pub sentences: SentenceMode,
    /// Maximum sequence length in tokens, including special tokens [default: 128; 64 for the sample; 32, then 128 with
    /// --budget; to evaluate a run's model, the longest of its training]
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// How to draw next-sentence labels: balanced or google
    #[arg(long, default_value = "balanced")]
    pub nsp_mode: NspMode,
    /// Train masked LM only, on full sentences
    #[arg(long)]
    pub no_nsp: bool,
    /// Probability of targeting a shorter sequence
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    pub short_seq_prob: f64,
    /// Fraction of tokens to mask. The held-out text of a training run is masked by 0.15 in any case
    #[arg(long, default_value_t = MASK_PROB, value_name = "P")]
    pub mask_prob: f64,
    /// Maximum number of masked tokens per sequence [default: length × mask-prob × 25/24, which is 20 for 128
    /// and 80 for 512]
    #[arg(long, value_name = "N")]
    pub max_predictions: Option<usize>,
    /// Mask whole words
    #[arg(long)]
    pub whole_word_mask: bool,
}

/// Options of `bert-pretrain train`.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// The options that were given
    #[command(flatten)]
    pub given: Given,
    /// Text files, directories or globs (.txt, .jsonl, also .gz and .zst; .parquet) [default:
    /// built-in sample]
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub corpus: Vec<String>,
    /// Run directory [default: runs/pretrain for the sample]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Resume the run in the output directory, with its own settings
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run in the output directory, once the new one is prepared
    #[arg(long)]
    pub overwrite: bool,
    /// Tokenizer: a directory, vocab.txt, tokenizer.json, or a name on the Hugging Face Hub [default: learn one from
    /// the corpus]
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Size of the vocabulary to learn [default: 30522; 1000 for the sample; set by --budget]
    #[arg(long, value_name = "N")]
    pub vocab_size: Option<usize>,
    /// Learn a cased vocabulary, which keeps case and accents
    #[arg(long)]
    pub cased: bool,
    /// Model size: tiny, mini, small, medium, base, large, or a config.json [default: tiny; its own for the
    /// sample; set by --budget]
    #[arg(long, value_name = "SIZE|FILE", conflicts_with = "init")]
    pub config: Option<String>,
    /// Start from the weights of a model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub init: Option<PathBuf>,
    /// Options for turning text into training examples
    #[command(flatten)]
    pub data: DataArgs,
    /// Mask once and repeat, as Google did, instead of anew in every epoch
    #[arg(long)]
    pub static_masking: bool,
    /// Number of different maskings with --static-masking
    #[arg(long, default_value_t = 10, value_name = "N", requires = "static_masking")]
    pub dupe_factor: u64,
    /// Optimizer: adamw, lamb or muon [default: adamw; muon for the sample and with --budget]
    #[arg(long)]
    pub optimizer: Option<Algorithm>,
    /// Peak learning rate [default: 1e-4; 3e-3 for the sample; set by --budget]
    #[arg(long)]
    pub lr: Option<f64>,
    /// Warmup: a fraction of the steps (below 1) or a number of steps [default: 0.01; 0.1 for the sample and
    /// with --budget]
    #[arg(long)]
    pub warmup: Option<f64>,
    /// Learning-rate schedule: linear, cosine or constant
    #[arg(long, default_value = "linear")]
    pub schedule: Decay,
    /// Decoupled weight decay, not applied to biases and LayerNorm [default: 0.01; 0.3 with --budget]
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Disable bias correction, as in Google's Adam
    #[arg(long)]
    pub no_bias_correction: bool,
    /// Maximum global gradient norm; 0 disables clipping
    #[arg(long, default_value_t = 1.0, value_name = "NORM")]
    pub clip: f64,
    /// Examples per micro-batch [default: 32; 16 for the sample]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Micro-batches per step
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub accumulate: usize,
    /// Number of optimizer steps, including phase 2
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Passes over the corpus [default: 3]
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Time to train, for example 90m, 1h or 3d: measures the speed, then chooses the number of steps and every option
    /// that is not given, including the size of the model
    #[arg(long, value_name = "TIME", conflicts_with_all = ["steps", "epochs"])]
    pub budget: Option<Budget>,
    /// Train the last N steps on longer sequences
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub phase2_steps: u64,
    /// Maximum sequence length in phase 2 [128 with --budget, unless the length of phase 1 is given]
    #[arg(long, default_value_t = 512, value_name = "N", requires = "phase2_steps")]
    pub phase2_seq_len: usize,
    /// Let each step of phase 1 begin at position 0 or a multiple of --max-seq-len, so that the positions of phase 2
    /// are trained, too
    #[arg(long, requires = "phase2_steps")]
    pub shift_positions: bool,
    /// Predict next sentences in phase 2 only; phase 1 trains masked LM on full sentences
    #[arg(long, requires = "phase2_steps", conflicts_with = "no_nsp")]
    pub nsp_in_phase2: bool,
    /// Dropout probability in training; config.json keeps its own for fine-tuning [default: that of the configuration]
    #[arg(long, value_name = "P")]
    pub dropout: Option<f64>,
    /// Floating-point precision: f32, bf16 or f16, if the device supports it
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Keep only the encoder layers' inputs and recompute the rest in the backward pass, to save
    /// memory
    #[arg(long)]
    pub gradient_checkpointing: bool,
    /// Under mpirun or srun: send gradients to the other processes in bf16, half the bytes; the last digits then depend
    /// on the number of processes
    #[arg(long)]
    pub bf16_exchange: bool,
    /// Evaluation corpus, instead of a fraction of the training corpus
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub eval_corpus: Vec<String>,
    /// Fraction of the documents to hold out for evaluation; of each document, if they are few and
    /// long
    #[arg(long, default_value_t = 0.02, value_name = "P")]
    pub eval_share: f64,
    /// Steps between evaluations; 0: only at the end
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub eval_every: u64,
    /// Maximum number of evaluation examples
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub eval_examples: usize,
    /// Steps between checkpoints; 0: no limit
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub save_every: u64,
    /// Minutes between checkpoints, if that is sooner; 0: no limit
    #[arg(long, default_value_t = 10.0, value_name = "M")]
    pub save_minutes: f64,
    /// Under mpirun or srun: each process keeps the optimizer's state of its share of the parameters alone (ZeRO, stage
    /// 1), with the same result; saves memory
    #[arg(long)]
    pub shard_optimizer: bool,
    /// Number of checkpoints to keep, also of a finished run [default: 2, none of a finished run]
    #[arg(long, value_name = "K")]
    pub keep: Option<usize>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bert-pretrain vocab`.
#[derive(Debug, Args)]
pub struct VocabArgs {
    /// Text files, directories or globs
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    pub corpus: Vec<String>,
    /// Vocabulary size
    #[arg(long, default_value_t = 30522, value_name = "N")]
    pub size: usize,
    /// Keep case and accents
    #[arg(long)]
    pub cased: bool,
    /// Output file
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Do not show progress on stderr
    #[arg(long)]
    pub quiet: bool,
}

/// Options of `bert-pretrain evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The options that were given
    #[command(flatten)]
    pub given: Given,
    /// Model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text files, directories or globs
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    pub corpus: Vec<String>,
    /// Options for turning text into training examples
    #[command(flatten)]
    pub data: DataArgs,
    /// Examples per batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub batch_size: usize,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bert-pretrain fill-mask`.
#[derive(Debug, Args)]
pub struct FillMaskArgs {
    /// The options that were given
    #[command(flatten)]
    pub given: Given,
    /// Model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Texts containing `[MASK]`
    #[command(flatten)]
    pub texts: TextArgs,
    /// Columns of a table
    #[command(flatten)]
    pub columns: TextColumns,
    /// Number of predictions per mask
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub top_k: usize,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bert-pretrain next-sentence`.
#[derive(Debug, Args)]
pub struct NextSentenceArgs {
    /// Model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// First sentence
    #[arg(long, value_name = "TEXT")]
    pub first: String,
    /// Sentence that may follow it
    #[arg(long, value_name = "TEXT")]
    pub second: String,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}
