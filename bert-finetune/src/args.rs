//! The command line, as it is typed.

use std::path::PathBuf;

use bert_cli::args::{Common, TextArgs};
use bert_model::pipeline::Layers;
use bert_train::Decay;
use clap::{Args, Parser, Subcommand};

use crate::description::Description;
use crate::presets::Preset;
use crate::tasks::kind::TaskKind;

pub use crate::option_values::{ClassWeights, Combine, Freeze, Pooling};

/// Fine-tune BERT on a labeled file, predict, and embed.
///
/// Without a command: fine-tunes the model that `bert-pretrain` left on a small built-in sample.
#[derive(Debug, Parser)]
#[command(name = "bert-finetune", version, args_conflicts_with_subcommands = true)]
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
    /// Fine-tune a model on a labeled file
    Train(Box<TrainArgs>),
    /// Measure a fine-tuned model on a labeled file
    Evaluate(EvaluateArgs),
    /// Answer for new texts
    Predict(PredictArgs),
    /// Contextual embeddings of texts
    Embed(EmbedArgs),
    /// Write a run's report.html again
    Report(ReportArgs),
}

/// `bert-finetune train`
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// What the model is asked for [default: the preset's, else classification]
    #[arg(long, value_enum)]
    pub task: Option<TaskKind>,
    /// Task, columns and metric of a known data set: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, conll2003,
    /// ud-pos, squad, squad2, sick, copa, cosmosqa
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// The model directory to begin with [default: runs/pretrain for the sample]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Begin with random weights, to see what the pretrained ones are worth
    #[arg(long)]
    pub from_scratch: bool,
    /// Labeled file (.csv, .tsv, .jsonl); none: the built-in sample
    #[arg(long, value_name = "FILE")]
    pub train: Option<PathBuf>,
    /// Labeled file that decides which epoch is best
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// Instead of --eval: this share of the training examples
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    pub eval_share: f64,
    /// Labeled file that is looked at once, at the end
    #[arg(long, value_name = "FILE")]
    pub test: Option<PathBuf>,
    /// Where the fine-tuned model goes [default: runs/finetune for the sample]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Go on with the run in the output directory
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Remove the run in the output directory first
    #[arg(long)]
    pub overwrite: bool,
    /// Columns
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Column of the label [default: label]
    #[arg(long, value_name = "COL")]
    pub label: Option<String>,
    /// Column of the word in a CoNLL file [default: 1; 2 of CoNLL-U]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    pub token_column: Option<String>,
    /// Column of the tag in a CoNLL file [default: the last; 4 of CoNLL-U]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    pub tag_column: Option<String>,
    /// Pieces between the beginnings of two windows of a long text (question answering)
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub doc_stride: usize,
    /// The metric that decides: accuracy, f1, macro_f1, mcc, pearson, spearman [default: the task's own]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Passes over the training examples
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub epochs: u64,
    /// Examples of a step [default: 32]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// The highest learning rate [default: 5e-5; 5e-4 for --lora, 1e-3 for --freeze encoder]
    #[arg(long)]
    pub lr: Option<f64>,
    /// A share of the steps (below 1) or a number of steps
    #[arg(long, default_value_t = 0.1)]
    pub warmup: f64,
    /// linear, cosine or constant
    #[arg(long, default_value = "linear")]
    pub schedule: Decay,
    /// Decoupled weight decay, not on biases and LayerNorm
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Limit of the global gradient norm; 0 for none
    #[arg(long, default_value_t = 1.0, value_name = "NORM")]
    pub clip: f64,
    /// Longest sequence in tokens [default: 128; 384 for question answering]
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// Weigh classes against their number in the training examples
    #[arg(long, value_name = "balanced")]
    pub class_weights: Option<ClassWeights>,
    /// What does not learn: encoder (which then runs once for each text), embeddings, or the embeddings and N layers
    #[arg(long, value_name = "encoder|embeddings|N")]
    pub freeze: Option<Freeze>,
    /// Learn low-rank adapters of the encoder's matrices, and the head; they are merged in the end
    #[arg(long, value_name = "RANK", conflicts_with = "freeze")]
    pub lora: Option<usize>,
    /// Run with this many seeds, from --seed on; tell mean and spread, keep the best
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seeds: u64,
    /// Stop when the metric has not improved for N epochs
    #[arg(long, value_name = "N")]
    pub early_stop: Option<u64>,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// Where a table has its texts.
#[derive(Debug, Clone, Default, Args)]
pub struct ColumnArgs {
    /// Column of the text (of the question), a name or a number [default: text; a trained model's: as in training]
    #[arg(long, value_name = "COL")]
    pub text: Option<String>,
    /// Column of the second text of a pair (of the text that a question is about)
    #[arg(long, value_name = "COL")]
    pub text_pair: Option<String>,
    /// Columns of the choices, with commas between
    #[arg(long, value_delimiter = ',', value_name = "COL")]
    pub choices: Vec<String>,
    /// Tables have no header; columns are numbers, from 1
    #[arg(long)]
    pub no_header: bool,
}

impl ColumnArgs {
    /// What is described, with the columns that are given here instead of its own.
    ///
    /// A name means that there is a header, whatever the training file had.
    pub fn over(&self, usual: Description, label: Option<&str>) -> Description {
        let ColumnArgs { text, text_pair, choices, no_header } = self.clone();
        let named = [text.as_deref(), text_pair.as_deref(), label]
            .into_iter()
            .flatten()
            .chain(choices.iter().map(String::as_str));
        let is_named = named.flat_map(|columns| columns.split(',')).any(|column| column.parse::<usize>().is_err());
        Description {
            header: !no_header && (usual.header || is_named),
            text: text.unwrap_or(usual.text),
            text_pair: text_pair.or(usual.text_pair),
            label: label.map(str::to_string).or(usual.label),
            choices: if choices.is_empty() { usual.choices } else { choices },
            ..usual
        }
    }
}

/// `bert-finetune evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// A fine-tuned model directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Labeled file
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Columns
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Column of the label [default: the training file's]
    #[arg(long, value_name = "COL")]
    pub label: Option<String>,
    /// "No answer" to a question must score more than this above the best answer [default: as tuned in training]
    #[arg(long, allow_hyphen_values = true, value_name = "X")]
    pub no_answer_threshold: Option<f64>,
    /// Write every answer to this file, one JSON object a line
    #[arg(long, value_name = "OUT")]
    pub predictions: Option<PathBuf>,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// `bert-finetune predict`
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// A fine-tuned model directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The texts
    #[command(flatten)]
    pub texts: TextArgs,
    /// Columns
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// The second text, for a model of pairs and one text given as an argument
    #[arg(long, value_name = "TEXT")]
    pub pair: Option<String>,
    /// The question, for a model that answers
    #[arg(long, value_name = "TEXT", requires = "context")]
    pub question: Option<String>,
    /// The text that the question is about
    #[arg(long, value_name = "TEXT", requires = "question")]
    pub context: Option<String>,
    /// "No answer" to a question must score more than this above the best answer [default: as tuned in training]
    #[arg(long, allow_hyphen_values = true, value_name = "X")]
    pub no_answer_threshold: Option<f64>,
    /// List so many of the best answers to a question, at most 20, as `n_best`
    #[arg(long, value_name = "K")]
    pub n_best: Option<usize>,
    /// A choice, for a model that chooses; once for each
    #[arg(long, value_name = "TEXT")]
    pub choice: Vec<String>,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// `bert-finetune embed`
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// A model directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The texts
    #[command(flatten)]
    pub texts: TextArgs,
    /// Column of the text in a table
    #[arg(long, default_value = "text", value_name = "COL")]
    pub text: String,
    /// Tables have no header; columns are numbers, from 1
    #[arg(long)]
    pub no_header: bool,
    /// One vector a text: mean, cls, max or pooler; or none for one a token
    #[arg(long, value_enum, default_value = "mean")]
    pub pooling: Pooling,
    /// Hidden layers, 0 = the embeddings' output: -1, or -1,-2,-3,-4, or -4..-1
    #[arg(long, default_value = "-1", allow_hyphen_values = true)]
    pub layers: Layers,
    /// How several layers become one vector
    #[arg(long, value_enum, default_value = "concat")]
    pub combine: Combine,
    /// Scale every vector to length 1
    #[arg(long)]
    pub normalize: bool,
    /// Longest sequence in tokens; longer texts are cut [default: the model's]
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// OUT.jsonl, OUT.npy or OUT.safetensors; none: JSON lines on stdout
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Options of every command
    #[command(flatten)]
    pub common: Common,
}

/// `bert-finetune report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A run directory
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Accepted as everywhere; a report has no progress to show
    #[arg(long)]
    pub quiet: bool,
}
