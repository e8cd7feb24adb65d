//! The `bert-pretrain` program: parses the command line, runs the command and prints its result.

#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use bert_cli::allocator::keep_memory;
use bert_cli::answers::Answers;
use bert_cli::args::{Common, ranks_rule};
use bert_cli::input::keep::KeptRow;
use bert_cli::input::read_inputs;
use bert_cli::program::{create_parent, exit, exit_code, one_line, print_how_to_resume, print_line, select_device};
use bert_model::device::NamedDevice;
use bert_model::pipeline::{
    FilledText, MaskFiller, MaskProcessor, PairProcessor, PairScorer, Pipeline, Precision, Prediction, Processor,
};
use bert_model::pretrained::load_config;
use bert_model::{Error, Tokenizer};
use bert_pretrain::args::{Cli, Command, EvaluateArgs, FillMaskArgs, NextSentenceArgs, TrainArgs, VocabArgs};
use bert_pretrain::corpus::Corpus;
use bert_pretrain::effect::check_options;
use bert_pretrain::evaluate::evaluate;
use bert_pretrain::settings::{DataSettings, PretrainRunOptions, PretrainSettings};
use bert_pretrain::vocabulary::write_vocab;
use bert_pretrain::{advice, sample, train, vocabulary};
use bert_train::communicator::Failure;
use bert_train::launch::{launched_rank, on_ranks, refuse_ranks, told_once, wait_for_first};
use bert_train::run_directory::{check_has_model, read_run};
use bert_train::sharing::share_settings;
use bert_train::{Communicator, Ended, Interrupt};
use clap::Parser;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_memory();
    match Cli::try_parse() {
        // Only `train` runs in several processes; a launcher may start others independently of each other.
        Ok(cli) if cli.trains() => exit(told_once(run(cli), exit_code)),
        Ok(cli) => exit(run(cli)),
        Err(error) if launched_rank() == 0 => error.exit(),
        Err(error) => {
            wait_for_first();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

fn run(mut cli: Cli) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    check_options(&cli)?;
    if !cli.trains() {
        told_once(refuse_ranks().map_err(anyhow::Error::from), exit_code)?;
    }
    cli.fetch_models()?;
    match &cli.command {
        None => on_ranks(|communicator| run_train(&cli.train, (&interrupt, communicator)), failure),
        Some(Command::Train(args)) => on_ranks(|communicator| run_train(args, (&interrupt, communicator)), failure),
        Some(Command::Vocab(args)) => run_vocab(args),
        Some(Command::Evaluate(args)) => run_evaluate(args),
        Some(Command::FillMask(args)) => run_fill_mask(args),
        Some(Command::NextSentence(args)) => run_next_sentence(args),
    }
}

/// What an error means to the other ranks.
fn failure(error: &anyhow::Error) -> Failure {
    Failure::of(error.downcast_ref(), one_line(error), exit_code(error))
}

fn run_train(args: &TrainArgs, ranks: (&Interrupt, &dyn Communicator)) -> Result<ExitCode> {
    let is_first = ranks.1.is_first();
    let (settings, run) = share_settings(ranks.1, || {
        let mut args = args.clone();
        args.given.check(&[ranks_rule(ranks.1.size(), args.resume)])?;
        args.fetch_models()?;
        if args.resume { PretrainSettings::resume(&args) } else { PretrainSettings::resolve(&args) }
    })?;
    let run = PretrainRunOptions { quiet: run.quiet || !is_first, ..run };
    let outcome = train::run(&settings, &run, ranks)?;
    if let Ended::Interrupted(code) = outcome.ended {
        if is_first {
            print_how_to_resume(&run.output);
        }
        return Ok(ExitCode::from(code as u8));
    }
    if !is_first {
        return Ok(ExitCode::SUCCESS);
    }
    if run.json {
        print_line(&outcome.summary)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !run.quiet {
        print_table(&outcome.summary);
        print_next_steps(&run.output);
    }
    if settings.corpus.is_empty() {
        print_sample_masks(&run.output, &args.common)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the final metrics on stderr, with advice.
fn print_table(summary: &Value) {
    let number = |value: &Value| value.as_f64().map(|value| format!("{value:.4}"));
    let mut rows = vec![("steps".to_string(), summary["steps"].to_string())];
    for part in ["train", "eval"] {
        for (name, value) in summary[part].as_object().into_iter().flatten() {
            rows.extend(number(value).map(|value| (format!("{part} {name}"), value)));
            if (part, name.as_str()) == ("eval", "mlm_loss") {
                let (before, baseline) = (number(&summary["eval_before"][name]), number(&summary["unigram_loss"]));
                rows.extend(before.map(|value| ("  before training".into(), value)));
                rows.extend(
                    baseline.map(|value| ("  word-frequency baseline".into(), format!("{value} (no context)"))),
                );
            }
        }
    }
    for name in ["tokens_per_second", "seconds"] {
        rows.extend(summary[name].as_f64().map(|value| (name.replace('_', " "), format!("{value:.0}"))));
    }
    rows.push(("model".into(), summary["model"].as_str().unwrap_or_default().into()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        eprintln!("{name:width$}  {value}");
    }
    if let (Some(loss), Some(baseline)) = (summary["eval"]["mlm_loss"].as_f64(), summary["unigram_loss"].as_f64())
        && let Some(advice) = advice::below_baseline(loss, baseline)
    {
        eprintln!("{advice}");
    }
}

/// Prints suggestions for using a finished run, on stderr.
fn print_next_steps(directory: &Path) {
    let directory = directory.display();
    eprintln!("next: bert-pretrain fill-mask --model {directory} \"some text with a [MASK] in it\"");
    eprintln!("      bert-finetune train --model {directory} --train labeled.tsv -o runs/finetuned");
    eprintln!("      curves and filled masks: {directory}/report.html");
}

/// Prints the model's predictions for the sample's questions, and whether they are right.
fn print_sample_masks(directory: &Path, common: &Common) -> Result<()> {
    let filler: MaskFiller = open(directory, common, MaskProcessor::new)?;
    if !common.quiet {
        eprintln!();
    }
    for (question, answer) in sample::questions() {
        let filled = filler.fill(&question, 3)?;
        let right = filled.masks.iter().all(|mask| mask.predictions[0].token.eq_ignore_ascii_case(answer));
        print_line(format_args!("{} {}", if right { "right" } else { "wrong" }, describe(&filled)))?;
    }
    Ok(())
}

fn run_vocab(args: &VocabArgs) -> Result<ExitCode> {
    create_parent(&args.output)?;
    let corpus = Corpus::open(&args.corpus)?.without_vocabulary(&args.output);
    let vocabulary = vocabulary::learn(&corpus, args.size, args.cased)?;
    if !args.quiet {
        vocabulary::fewer_than(args.size, vocabulary.len()).iter().for_each(|line| eprintln!("{line}"));
    }
    write_vocab(&args.output, &vocabulary)?;
    if args.json {
        print_line(json!({"vocabulary": args.output.display().to_string(), "size": vocabulary.len()}))?;
    } else if !args.quiet {
        eprintln!("{}: {} WordPieces", args.output.display(), vocabulary.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn run_evaluate(args: &EvaluateArgs) -> Result<ExitCode> {
    if let Some(length) = args.data.max_seq_len {
        check_has_model(&args.model)?;
        let limit = load_config(&args.model)?.max_position_embeddings;
        if length > limit {
            return Err(
                Error::Usage(format!("--max-seq-len: found {length}, expected at most the model's {limit}")).into()
            );
        }
    }
    let device = select_device(&args.common.device, args.common.quiet)?;
    let data = DataSettings::resolve(&args.data, trained_length(&args.model).unwrap_or(128))?;
    if !args.common.quiet {
        eprintln!("sequences of up to {} tokens", data.max_seq_len);
    }
    let evaluation = evaluate(&args.model, &args.corpus, &data, args.batch_size, &device.device, args.common.seed)
        .map_err(advised)?;
    let metrics = serde_json::to_value(evaluation).context("the metrics")?;
    if args.common.json {
        print_line(metrics)?;
    } else {
        for (name, value) in metrics.as_object().into_iter().flatten() {
            let value = value.as_f64().map_or("-".into(), |value| format!("{value:.4}"));
            print_line(format_args!("{name:12}  {value}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The length of the longest sequences that a model was trained on, if it is a run's.
fn trained_length(model: &Path) -> Option<usize> {
    let run = read_run(model).ok()?;
    let settings = &run["settings"];
    let is_longer = settings["phase2_steps"].as_u64().is_some_and(|steps| steps > 0);
    let phase2 = settings["phase2_seq_len"].as_u64().filter(|_| is_longer);
    Some(settings["max_seq_len"].as_u64()?.max(phase2.unwrap_or(0)) as usize)
}

fn run_fill_mask(args: &FillMaskArgs) -> Result<ExitCode> {
    let source = args.texts.source()?;
    let filler: MaskFiller = open(&args.model, &args.common, MaskProcessor::new)?;
    let mut answers = Answers::new(args.common.json);
    let mut answer = |row: &KeptRow, filled: FilledText| -> Result<()> {
        answers.write(row, &filled, || Ok(describe(&filled)))?;
        // Flush immediately: the next text may be a long time coming.
        Ok(answers.flush()?)
    };
    match source {
        None => {
            for text in &args.texts.texts {
                answer(&KeptRow::default(), filler.fill(text, args.top_k)?)?;
            }
        }
        Some(input) => {
            let name = input.name();
            let (input, mut kept) = input.keeping(args.columns.keep.clone());
            for row in read_inputs(input, &args.columns.options()?)? {
                let row = row?;
                let place = || format!("{}:{}", name.display(), row.line);
                answer(&kept.next_row()?, filler.fill(&row.text, args.top_k).with_context(place)?)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_next_sentence(args: &NextSentenceArgs) -> Result<ExitCode> {
    let scorer: PairScorer = open(&args.model, &args.common, PairProcessor::next_sentence)?;
    scorer.config().check_pairs()?;
    let scores = scorer.score(&[(&args.first, &args.second)])?;
    let probability = scores.first().map_or(f64::NAN, |&score| f64::from(score));
    if args.common.json {
        print_line(json!({"is_next": probability}))?;
    } else {
        print_line(format_args!("is next: {probability:.4}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the pipeline of a model directory; `processor` builds its processor from the tokenizer and the model's number
/// of positions. A model whose head was never trained is rejected.
fn open<P: Processor>(
    directory: &Path,
    common: &Common,
    processor: impl FnOnce(Tokenizer, usize) -> P,
) -> Result<Pipeline<P>> {
    check_has_model(directory)?;
    let NamedDevice { device, .. } = select_device(&common.device, common.quiet)?;
    let tokenizer = Tokenizer::load(directory)?;
    let processor = processor(tokenizer, load_config(directory)?.max_position_embeddings);
    let pipeline = Pipeline::with_processor(directory, processor, &device, Precision::F32).map_err(advised)?;
    if let Some(warning) = pipeline.warning() {
        eprintln!("warning: {}: {warning}", directory.display());
    }
    Ok(pipeline)
}

/// Adds advice on how to train a head that the checkpoint lacks.
fn advised(error: Error) -> anyhow::Error {
    match error {
        Error::MissingTensors { .. } => {
            anyhow!("{error}; train one with `bert-pretrain train --init DIR`, or use the model it was trained from")
        }
        other => other.into(),
    }
}

/// Formats predictions as "the soup was [MASK] . → good 0.91, fine 0.03".
fn describe(filled: &FilledText) -> String {
    let guesses = filled.masks.iter().map(|mask| {
        let guess = |guess: &Prediction| format!("{} {:.2}", guess.token, guess.probability);
        mask.predictions.iter().map(guess).collect::<Vec<_>>().join(", ")
    });
    format!("{} → {}", filled.text, guesses.collect::<Vec<_>>().join(" | "))
}
