//! The command-line arguments, as parsed by clap.

use std::path::PathBuf;

use bert_cli::args::{Common, TextArgs, TextColumns};
use bert_cli::given::Given;
use bert_cli::input::header::ColumnSource;
use bert_cli::input::kind::Format;
use bert_model::pipeline::{Layers, Precision};
use bert_train::{Algorithm, Decay};
use clap::{Args, Parser, Subcommand};

use crate::description::Description;
use crate::embedder::EmbedderArgs;
use crate::option_values::at_least_1;
use crate::presets::Preset;
use crate::rank::RankArgs;
use crate::search::SearchArgs;
use crate::similarity::SimilarityArgs;
use crate::tasks::embedding::EmbeddingPooling;
use crate::tasks::kind::TaskKind;

pub use crate::option_values::{ClassWeights, Combine, Freeze, Pooling, from_1_to_20};

/// Default number of texts per core that `predict` and `embed` hold in memory at once: enough to keep all cores busy
/// with batches of similar lengths, and few enough that progress is visible.
const TEXTS_PER_CORE: usize = 512;

/// Fine-tune BERT on a labeled file, predict, and compute embeddings.
///
/// Without a command, fine-tunes the model in runs/pretrain, written by `bert-pretrain`, on a small built-in sample.
#[derive(Debug, Parser)]
#[command(name = "bert-finetune", version, args_conflicts_with_subcommands = true)]
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

/// The commands of `bert-finetune`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model on a labeled file
    Train(Box<TrainArgs>),
    /// Evaluate a fine-tuned model on a labeled file
    Evaluate(EvaluateArgs),
    /// Predict for new texts
    ///
    /// With --json, prints one object per text: `label` and `probabilities` for a classifier; `labels` and
    /// `probabilities` for a multi-label model; `value` for a regression (`values`, in the order of the labels in
    /// config.json, if the head has several); `words`, `tags` and `entities`; the `answer` to a question; or the index
    /// of the `choice`.
    Predict(PredictArgs),
    /// Compute contextual embeddings of texts
    Embed(EmbedArgs),
    /// Print the similarity of two texts
    Similarity(SimilarityArgs),
    /// Find the texts of a corpus that are most similar to a query
    Search(Box<SearchArgs>),
    /// Rank texts for a query with a cross-encoder
    Rank(RankArgs),
    /// Rewrite the report.html of a run
    Report(ReportArgs),
}

/// Options of `bert-finetune train`.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// The options given on the command line
    #[command(flatten)]
    pub given: Given,
    /// Task to train for [default: the preset's, else classification]
    #[arg(long, value_enum)]
    pub task: Option<TaskKind>,
    /// Task, columns and metric of a known data set: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte,
    /// wnli, conll2003, ud-pos, squad, squad2, sick, copa, cosmosqa
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// Model to start from: a directory, or a name on the Hugging Face Hub [default: runs/pretrain for the sample]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Start from random weights instead, to measure the benefit of pretraining
    #[arg(long)]
    pub from_scratch: bool,
    /// Labeled training file (.csv, .tsv, .jsonl, SQuAD's .json, CoNLL, each also .gz and .zst; .parquet) [default:
    /// built-in sample]
    #[arg(long, value_name = "FILE")]
    pub train: Option<PathBuf>,
    /// Labeled evaluation file, which selects the best epoch
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// Fraction of the training examples to hold out for evaluation, without --eval
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    pub eval_share: f64,
    /// Labeled test file, evaluated once after training
    #[arg(long, value_name = "FILE")]
    pub test: Option<PathBuf>,
    /// Write the predictions for the test file (else for the evaluation examples) to this file, one
    /// JSON object per line
    #[arg(long, value_name = "OUT")]
    pub predictions: Option<PathBuf>,
    /// Output directory for the fine-tuned model [default: runs/finetune for the sample]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Resume the run in the output directory, with its own settings
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run in the output directory, once the new one is prepared
    #[arg(long)]
    pub overwrite: bool,
    /// Columns of a table
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Label column, or columns of 0 and 1 for several labels (joy,fear) [default: label]
    #[arg(long, value_name = "COL")]
    pub label: Option<String>,
    /// Word column of a CoNLL file [default: 1; 2 for CoNLL-U]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    pub token_column: Option<String>,
    /// Tag column of a CoNLL file [default: the last; 4 for CoNLL-U]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    pub tag_column: Option<String>,
    /// Distance in tokens between the starts of windows over a long text (question answering)
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub doc_stride: usize,
    /// Columns of negatives: texts that do not belong to --text, separated by commas (embedding)
    #[arg(long, value_delimiter = ',', value_name = "COL")]
    pub negative: Vec<String>,
    /// Factor by which the loss multiplies cosines [default: 20] (embedding)
    #[arg(long, value_name = "X")]
    pub scale: Option<f64>,
    /// How to pool token vectors [default: as the model's directory says, else mean] (embedding)
    #[arg(long, value_enum)]
    pub pooling: Option<EmbeddingPooling>,
    /// Normalize vectors to length 1 (embedding)
    #[arg(long)]
    pub normalize: bool,
    /// Examples to hold in memory at once, while the loss still covers the whole batch (embedding)
    #[arg(long, value_name = "N")]
    pub mini_batch: Option<usize>,
    /// Metric that selects the best epoch: accuracy, f1, macro_f1, micro_f1, weighted_f1, mcc, pearson, spearman,
    /// ndcg_at_10, mrr_at_10, accuracy_at_1 or recall_at_10, if the task has it [default: the task's own]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Passes over the training examples
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub epochs: u64,
    /// Examples per step [default: 32]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Optimizer: adamw, lamb or muon
    #[arg(long, default_value = "adamw")]
    pub optimizer: Algorithm,
    /// Peak learning rate [default: 5e-5; 5e-4 with --lora, 1e-3 with --freeze encoder]
    #[arg(long)]
    pub lr: Option<f64>,
    /// Warmup: a fraction of the steps (below 1) or a number of steps
    #[arg(long, default_value_t = 0.1)]
    pub warmup: f64,
    /// Learning-rate schedule: linear, cosine or constant
    #[arg(long, default_value = "linear")]
    pub schedule: Decay,
    /// Decoupled weight decay, not applied to biases and LayerNorm
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Maximum global gradient norm; 0 disables clipping
    #[arg(long, default_value_t = 1.0, value_name = "NORM")]
    pub clip: f64,
    /// Maximum sequence length in tokens [default: 128; 384 for question answering; for embeddings
    /// as the model's directory says, else 128]
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// Floating-point precision of training: f32, bf16 or f16, if the device supports it
    #[arg(long, default_value = "f32")]
    pub precision: bert_train::Precision,
    /// Under mpirun or srun: send gradients to the other processes in bf16, half the bytes; the last digits then depend
    /// on the number of processes
    #[arg(long)]
    pub bf16_exchange: bool,
    /// Weight classes inversely to their frequency in the training examples
    #[arg(long, value_name = "balanced")]
    pub class_weights: Option<ClassWeights>,
    /// Parameters to freeze: encoder (which then runs only once per text), embeddings, or the
    /// embeddings and the lowest N layers
    #[arg(long, value_name = "encoder|embeddings|N")]
    pub freeze: Option<Freeze>,
    /// Train low-rank adapters (LoRA) of the encoder's matrices, and the head; they are merged at
    /// the end
    #[arg(long, value_name = "RANK", conflicts_with = "freeze")]
    pub lora: Option<usize>,
    /// Train with this many consecutive seeds, starting from --seed; report mean and spread, keep
    /// the best
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seeds: u64,
    /// Stop when the metric has not improved for N epochs
    #[arg(long, value_name = "N")]
    pub early_stop: Option<u64>,
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
    /// Number of checkpoints to keep, also after the run has finished [default: 2, none of a finished run]
    #[arg(long, value_name = "K")]
    pub keep: Option<usize>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// The columns of a table that contain the texts.
#[derive(Debug, Clone, Default, Args)]
pub struct ColumnArgs {
    /// Text column (or the question's), by name or number [default: text; for a trained model, as
    /// in training]
    #[arg(long, value_name = "COL")]
    pub text: Option<String>,
    /// Column of a pair's second text (or of the question's context)
    #[arg(long, value_name = "COL")]
    pub text_pair: Option<String>,
    /// Columns of the choices, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "COL")]
    pub choices: Vec<String>,
    /// Tables have no header; columns are numbered from 1
    #[arg(long)]
    pub no_header: bool,
}

/// The number of texts to hold in memory at once: `given`, or the default.
pub fn batch_size(given: Option<usize>) -> usize {
    given.unwrap_or_else(|| TEXTS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from))
}

impl ColumnArgs {
    /// Returns `usual` with its columns overridden by those given here and by `label`.
    ///
    /// A column name implies a header, even if the training file had none.
    pub fn over(&self, usual: Description, label: Option<&str>) -> Description {
        let ColumnArgs { text, text_pair, choices, no_header } = self.clone();
        let named = [text.as_deref(), text_pair.as_deref(), label]
            .into_iter()
            .flatten()
            .chain(choices.iter().map(String::as_str));
        let is_named = named.flat_map(|columns| columns.split(',')).any(|column| column.parse::<usize>().is_err());
        Description {
            header: !no_header && (usual.header || is_named),
            source: if text.is_some() || text_pair.is_some() { ColumnSource::Given } else { usual.source },
            text: text.unwrap_or(usual.text),
            text_pair: text_pair.or(usual.text_pair),
            label: label.map(str::to_string).or(usual.label),
            choices: if choices.is_empty() { usual.choices } else { choices },
            ..usual
        }
    }
}

/// Options of `bert-finetune evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The options given on the command line
    #[command(flatten)]
    pub given: Given,
    /// Fine-tuned model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Number type of the encoder's products: f32, bf16 (on flex, and on a GPU that has it) or int8 (on flex). The
    /// last two are faster and change the results slightly
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Task of a third-party model whose config.json does not specify it [default: as in training, else told from
    /// `architectures` and `problem_type`]
    #[arg(long, value_enum)]
    pub task: Option<TaskKind>,
    /// Labeled file, or - for stdin
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Format of the labeled file [default: by its extension; stdin: by its first line]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub input_format: Option<Format>,
    /// Columns of a table
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Label column [default: as in training]
    #[arg(long, value_name = "COL")]
    pub label: Option<String>,
    /// Answer "none" if its score exceeds the best answer's by more than this [default: as tuned in training]
    #[arg(long, allow_hyphen_values = true, value_name = "X")]
    pub no_answer_threshold: Option<f64>,
    /// Write all predictions to this file, one JSON object per line
    #[arg(long, value_name = "OUT")]
    pub predictions: Option<PathBuf>,
    /// Columns to copy into the predictions, separated by commas; one whose name the prediction already uses becomes
    /// input_NAME
    #[arg(long, value_delimiter = ',', value_name = "COL")]
    pub keep: Vec<String>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bert-finetune predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// The options given on the command line
    #[command(flatten)]
    pub given: Given,
    /// Fine-tuned model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Number type of the encoder's products: f32, bf16 (on flex, and on a GPU that has it) or int8 (on flex). The
    /// last two are faster and change the results slightly
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Task of a third-party model whose config.json does not specify it [default: as in training, else told from
    /// `architectures` and `problem_type`]
    #[arg(long, value_enum)]
    pub task: Option<TaskKind>,
    /// Texts
    #[command(flatten)]
    pub texts: TextArgs,
    /// Columns of a table
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Columns to copy into the answers, separated by commas; one whose name the answer already uses becomes input_NAME
    #[arg(long, value_delimiter = ',', value_name = "COL")]
    pub keep: Vec<String>,
    /// Maximum number of texts to process together; fewer take less memory [default: 512 per core]
    #[arg(long, value_parser = at_least_1, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Second text of a pair; the first is the argument
    #[arg(long, value_name = "TEXT")]
    pub pair: Option<String>,
    /// Question to answer, with --context
    #[arg(long, value_name = "TEXT", requires = "context")]
    pub question: Option<String>,
    /// Text to find the answer in
    #[arg(long, value_name = "TEXT", requires = "question")]
    pub context: Option<String>,
    /// Answer "none" if its score exceeds the best answer's by more than this [default: as tuned in
    /// training]
    #[arg(long, allow_hyphen_values = true, value_name = "X")]
    pub no_answer_threshold: Option<f64>,
    /// Also list this many top answers to a question, at most 20, as `n_best`
    #[arg(long, value_parser = from_1_to_20, value_name = "K")]
    pub n_best: Option<usize>,
    /// A choice; repeat the option for each one
    #[arg(long, value_name = "TEXT")]
    pub choice: Vec<String>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bert-finetune embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// The options given on the command line
    #[command(flatten)]
    pub given: Given,
    /// How texts are embedded
    #[command(flatten)]
    pub embedder: EmbedderArgs,
    /// Texts
    #[command(flatten)]
    pub texts: TextArgs,
    /// Columns of a table
    #[command(flatten)]
    pub columns: TextColumns,
    /// Hidden layers, where 0 is the output of the embeddings: -1, or -1,-2,-3,-4, or -4..-1
    #[arg(long, default_value = "-1", allow_hyphen_values = true)]
    pub layers: Layers,
    /// How to combine several layers
    #[arg(long, value_enum, default_value = "concat")]
    pub combine: Combine,
    /// Maximum number of texts to embed together; fewer take less memory [default: 512 per core]
    #[arg(long, value_parser = at_least_1, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Output file, .jsonl, .npy or .safetensors [default: JSON lines on stdout]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Options of `bert-finetune report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Do not show progress on stderr
    #[arg(long)]
    pub quiet: bool,
}
