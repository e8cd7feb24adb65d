//! Rejects options that have no effect for a command.

use bert_cli::args::column_rules;
use bert_cli::given::only_if;
use bert_cli::input::source::Input;
use bert_model::{Error, Result};

use crate::args::{Cli, Command, EvaluateArgs, FillMaskArgs, TrainArgs};

const NO_PAIRS: &str = "--no-nsp does not form segment pairs";

/// Rejects options that have no effect, before a model is downloaded or a file is read.
///
/// # Errors
/// [`Error::Usage`] for the first such option.
pub fn check_options(cli: &Cli) -> Result<()> {
    match &cli.command {
        None => check_train(&cli.train),
        Some(Command::Train(args)) => check_train(args),
        Some(Command::Evaluate(args)) => check_evaluate(args),
        Some(Command::FillMask(args)) => check_fill_mask(args),
        Some(Command::Vocab(_) | Command::NextSentence(_)) => Ok(()),
    }
}

/// Rejects options of `train` that have no effect.
///
/// # Errors
/// [`Error::Usage`] for the first such option.
pub fn check_train(args: &TrainArgs) -> Result<()> {
    let learns_vocabulary = args.tokenizer.is_none() && args.init.is_none();
    let evaluates = !args.eval_corpus.is_empty() || args.eval_share > 0.0;
    args.given.check(&[
        only_if(learns_vocabulary, &["vocab-size"], "no vocabulary is learned"),
        only_if(args.eval_corpus.is_empty(), &["eval-share"], "--eval-corpus replaces the held-out documents"),
        only_if(evaluates, &["eval-every", "eval-examples"], "no documents are held out for evaluation"),
        only_if(!args.data.no_nsp, &["nsp-mode"], NO_PAIRS),
        only_if(args.phase2_steps > 0, &["phase2-seq-len"], "there is no second phase; pass --phase2-steps"),
    ])
}

fn check_evaluate(args: &EvaluateArgs) -> Result<()> {
    if args.batch_size == 0 {
        return Err(Error::Usage("--batch-size: found 0, expected at least 1".into()));
    }
    args.given.check(&[only_if(!args.data.no_nsp, &["nsp-mode"], NO_PAIRS)])
}

fn check_fill_mask(args: &FillMaskArgs) -> Result<()> {
    let source = args.texts.source()?;
    let format = source.as_ref().and_then(Input::table_format);
    args.given.check(&column_rules(source.is_some(), format, &["text", "no-header", "keep"]))
}
