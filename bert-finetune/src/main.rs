//! The `bert-finetune` program: parses the command line, runs the command and prints its result.

#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]

use std::process::ExitCode;

use anyhow::Result;
use bert_cli::allocator::keep_memory;
use bert_cli::args::ranks_rule;
use bert_cli::input::source::Input;
use bert_cli::program::{create_parent, exit, exit_code, one_line, print_how_to_resume, print_line};
use bert_cli::warning::silence;
use bert_finetune::args::{Cli, Command, EmbedArgs, EvaluateArgs, PredictArgs, ReportArgs, TrainArgs};
use bert_finetune::data::Files;
use bert_finetune::description::Description;
use bert_finetune::effect::{check_evaluate, check_predict};
use bert_finetune::embed::embed;
use bert_finetune::evaluate::{EvaluationOptions, evaluate, write_predictions};
use bert_finetune::model_directory::config_of;
use bert_finetune::output::{class_names, hint_never_found, print_metrics, print_next_steps, print_table};
use bert_finetune::predict::predict;
use bert_finetune::settings::{FinetuneRunOptions, FinetuneSettings};
use bert_finetune::tasks::any::{AnyTask, open_task_for};
use bert_finetune::train::{self, FinetuneOutcome};
use bert_finetune::{demo, for_task, rank, report, search, similarity};
use bert_model::Error;
use bert_train::communicator::Failure;
use bert_train::launch::{launched_rank, on_ranks, refuse_ranks, told_once, wait_for_first};
use bert_train::run_directory::check_has_model;
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
    if let Some(Command::Train(args)) = &cli.command
        && !args.resume
    {
        // Options are checked before a model is downloaded.
        FinetuneSettings::resolve(args)?;
    }
    if !cli.trains() {
        told_once(refuse_ranks().map_err(anyhow::Error::from), exit_code)?;
    }
    cli.fetch_models()?;
    match &cli.command {
        None => on_ranks(|communicator| run_train(&cli.train, (&interrupt, communicator)), failure),
        Some(Command::Train(args)) => on_ranks(|communicator| run_train(args, (&interrupt, communicator)), failure),
        Some(Command::Evaluate(args)) => run_evaluate(args),
        Some(Command::Predict(args)) => run_predict(args),
        Some(Command::Embed(args)) => run_embed(args),
        Some(Command::Similarity(args)) => similarity::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Search(args)) => search::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Rank(args)) => rank::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Report(args)) => run_report(args),
    }
}

/// What an error means to the other ranks.
fn failure(error: &anyhow::Error) -> Failure {
    Failure::of(error.downcast_ref(), one_line(error), exit_code(error))
}

fn run_train(args: &TrainArgs, ranks: (&Interrupt, &dyn Communicator)) -> Result<ExitCode> {
    let (mut args, communicator) = (args.clone(), ranks.1);
    let (mut settings, run) = share_settings(communicator, || {
        args.given.check(&[ranks_rule(communicator.size(), args.resume)])?;
        args.fetch_models()?;
        let resolved = if args.resume { FinetuneSettings::resume(&args)? } else { FinetuneSettings::resolve(&args)? };
        match resolved.0.train {
            None if communicator.size() > 1 => {
                Err(Error::Usage("the sample runs in one process; pass --train FILE".into()))
            }
            _ => Ok(resolved),
        }
    })?;
    let is_first = communicator.is_first();
    if !is_first {
        silence();
        // A model of the Hub may have another place on this machine.
        args.common.quiet = true;
        communicator.agree(args.fetch_models())?;
        settings.model = args.model.clone().unwrap_or(settings.model);
    } else {
        communicator.agree(Ok(()))?;
    }
    let run = FinetuneRunOptions { quiet: run.quiet || !is_first, ..run };
    let Some(training) = settings.train.clone() else { return demo::run_sample(settings, run, &args, ranks.0) };
    let files = Files { training, evaluation: settings.eval.clone(), test: settings.test.clone() };
    // A run directory with something in it would be refused.
    if let Some(predictions) = run.predictions.as_deref().filter(|path| is_first && !path.starts_with(&run.output)) {
        create_parent(predictions)?;
    }
    let FinetuneOutcome { ended, summary } = train::run(&settings, &run, &files, ranks)?;
    if let Ended::Interrupted(code) = ended {
        if is_first {
            print_how_to_resume(&run.output);
        }
        return Ok(ExitCode::from(code as u8));
    }
    if !is_first {
        return Ok(ExitCode::SUCCESS);
    }
    write_predictions(&settings, &run)?;
    let labels = class_names(&run.output);
    match run.json {
        true => print_line(&summary)?,
        false if !run.quiet => print_table(&summary, &labels),
        false => {}
    }
    if !run.quiet {
        hint_never_found(&summary["eval"], &labels);
        print_next_steps(&run.output, &settings.description);
    }
    Ok(ExitCode::SUCCESS)
}

fn run_report(args: &ReportArgs) -> Result<ExitCode> {
    report::write(&args.run)?;
    let path = args.run.join("report.html");
    match args.json {
        true => print_line(json!({"report": path}))?,
        false => print_line(path.display())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_evaluate(args: &EvaluateArgs) -> Result<ExitCode> {
    check_has_model(&args.model)?;
    let data = Input::new(&args.data).in_format(args.input_format);
    check_evaluate(args, Description::read(&args.model, &config_of(&args.model)?, args.task)?.task, &data)?;
    let task = open_task_for(&args.model, args.task, |usual| {
        args.columns.over(usual, args.label.as_deref()).with_threshold(args.no_answer_threshold)
    })?;
    let evaluation = EvaluationOptions {
        model: &args.model,
        data,
        keep: &args.keep,
        predictions: args.predictions.as_deref(),
        precision: args.precision,
        common: &args.common,
    };
    let metrics = for_task!(task, task => evaluate(&task, evaluation))?;
    let labels = class_names(&args.model);
    if args.common.json {
        print_line(Value::Object(metrics))?;
    } else {
        print_metrics(&metrics, &labels)?;
        if !args.common.quiet {
            hint_never_found(&Value::Object(metrics), &labels);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_predict(args: &PredictArgs) -> Result<ExitCode> {
    // The context of a question also counts as a text.
    let has_texts = args.context.is_none() || args.texts.input.is_some() || !args.texts.texts.is_empty();
    let source = if has_texts { args.texts.source()? } else { None };
    check_has_model(&args.model)?;
    let kind = Description::read(&args.model, &config_of(&args.model)?, args.task)?.task;
    check_predict(args, kind, source.as_ref())?;
    let mut task = open_task_for(&args.model, args.task, |usual| {
        let unlabeled = Description { label: None, ..usual };
        args.columns.over(unlabeled, None).with_threshold(args.no_answer_threshold)
    })?;
    if let (AnyTask::QuestionAnswering(task), Some(n_best)) = (&mut task, args.n_best) {
        task.processor = task.processor.clone().with_candidates(n_best);
    }
    for_task!(task, task => predict(&task, kind, args, source))?;
    Ok(ExitCode::SUCCESS)
}

fn run_embed(args: &EmbedArgs) -> Result<ExitCode> {
    embed(args)?;
    Ok(ExitCode::SUCCESS)
}
