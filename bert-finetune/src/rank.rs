//! `bert-finetune rank`: sorts texts by how well they answer a query, as scored by a cross-encoder.

use std::path::{Path, PathBuf};

use bert_cli::args::{Common, TextArgs, column_rules, text_column};
use bert_cli::given::Given;
use bert_cli::input::read_inputs;
use bert_cli::input::source::Input;
use bert_cli::program::{print_line, select_device};
use bert_model::device::NamedDevice;
use bert_model::pipeline::{PairScorer, Precision};
use bert_train::Progress;
use bert_train::run_directory::check_has_model;
use clap::Args;
use serde_json::json;

use crate::nearest::Best;
use crate::option_values::at_least_1;
use crate::output::{one_line, warn};
use crate::search::WINDOW;
use crate::truncated::warn_of_comparison;

/// Options of `bert-finetune rank`.
#[derive(Debug, Args)]
pub struct RankArgs {
    /// The options given on the command line
    #[command(flatten)]
    pub given: Given,
    /// Cross-encoder (a classifier with one label): a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Number type of the encoder's products: f32, bf16 (on flex, and on a GPU that has it) or int8 (on flex). The
    /// last two are faster and change the results slightly
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Query to rank the texts for
    #[arg(long, value_name = "TEXT")]
    pub query: String,
    /// Texts to rank
    #[command(flatten)]
    pub texts: TextArgs,
    /// Text column of a table [default: text]
    #[arg(long, value_name = "COL")]
    pub text: Option<String>,
    /// Tables have no header; columns are numbered from 1
    #[arg(long)]
    pub no_header: bool,
    /// Number of texts to print [default: all]
    #[arg(long, value_parser = at_least_1, value_name = "K")]
    pub top_k: Option<usize>,
    /// Maximum sequence length in tokens; if a pair is longer, its longer text is truncated [default: the model's]
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Prints the texts, best first.
///
/// # Errors
/// If the model, the device or the texts cannot be used.
pub fn run(args: &RankArgs) -> anyhow::Result<()> {
    let source = args.texts.source()?;
    let format = source.as_ref().and_then(Input::table_format);
    args.given.check(&column_rules(source.is_some(), format, &["text", "no-header"]))?;
    let scorer = open_scorer(&args.model, args.precision, args.max_seq_len, &args.common)?;
    let columns = text_column(args.text.as_deref(), args.no_header)?;
    let mut texts: Box<dyn Iterator<Item = bert_model::Result<String>>> = match &source {
        Some(input) => Box::new(read_inputs(input, &columns)?.map(|row| Ok(row?.text))),
        None => Box::new(args.texts.texts.iter().cloned().map(Ok)),
    };
    let mut progress = Progress::new("ranking", None, 0, args.common.quiet || source.is_none());
    let mut best = Best::new(args.top_k.unwrap_or(usize::MAX));
    let mut done = 0;
    loop {
        let window: Vec<String> = texts.by_ref().take(WINDOW).collect::<bert_model::Result<_>>()?;
        if window.is_empty() {
            break;
        }
        let pairs: Vec<(&str, &str)> = window.iter().map(|text| (args.query.as_str(), text.as_str())).collect();
        for (place, score) in scorer.score(&pairs)?.into_iter().enumerate() {
            best.offer(score, done + place, || window[place].clone());
        }
        done += window.len();
        progress.update(done as u64, "texts");
    }
    progress.finish();
    warn_of_comparison(scorer.truncated_count());
    for hit in best.into_hits() {
        let (index, text, score) = (hit.index, hit.payload, hit.score);
        match (args.common.json, source.is_some()) {
            (true, true) => print_line(json!({"row": index + 1, "index": index, "text": text, "score": score}))?,
            (true, false) => print_line(json!({"index": index, "text": text, "score": score}))?,
            (false, _) => print_line(format_args!("{score:.4}\t{index}\t{}", one_line(&text)))?,
        }
    }
    Ok(())
}

/// Opens a cross-encoder, and warns about anything unusual in it.
///
/// # Errors
/// If the model or the device cannot be used.
pub(crate) fn open_scorer(
    directory: &Path,
    precision: Precision,
    max_length: Option<usize>,
    common: &Common,
) -> anyhow::Result<PairScorer> {
    let NamedDevice { device, .. } = select_device(&common.device, common.quiet)?;
    precision.check(&device)?;
    check_has_model(directory)?;
    let builder = PairScorer::builder().device(device).precision(precision);
    let builder = max_length.into_iter().fold(builder, |builder, length| builder.max_length(length));
    let scorer = builder.open(directory)?;
    warn(directory, scorer.warning());
    Ok(scorer)
}
