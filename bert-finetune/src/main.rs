//! The program: parses, runs, prints, and turns errors into one line and an exit code.

#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]

use std::process::ExitCode;

use anyhow::Result;
use bert_cli::allocator::keep_memory;
use bert_cli::input::columns::Column;
use bert_cli::input::read_inputs;
use bert_cli::input::table::{Row, TableOptions};
use bert_cli::program::{exit, print_line, select_device};
use bert_finetune::args::{Cli, Command, EmbedArgs, EvaluateArgs, Pooling, PredictArgs, ReportArgs, TrainArgs};
use bert_finetune::description::Description;
use bert_finetune::features::Encoded;
use bert_finetune::output::{print_metrics, print_table, warn_truncated};
use bert_finetune::predict::{WINDOW, open_pipeline, predict_with};
use bert_finetune::settings::FinetuneSettings;
use bert_finetune::tasks::Task;
use bert_finetune::tasks::any::{AnyTask, open_task_for};
use bert_finetune::train::{self, Files, FinetuneOutcome};
use bert_finetune::vectors::{Sink, write_lines};
use bert_finetune::{demo, for_task, rank, report, search, similarity};
use bert_model::Error;
use bert_model::device::NamedDevice;
use bert_model::pipeline::Processor;
use bert_train::{Ended, Interrupt, Progress};
use clap::Parser;
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_memory();
    exit(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    match &cli.command {
        None => run_train(&cli.train, &interrupt),
        Some(Command::Train(args)) => run_train(args, &interrupt),
        Some(Command::Evaluate(args)) => run_evaluate(args),
        Some(Command::Predict(args)) => run_predict(args),
        Some(Command::Embed(args)) => run_embed(args),
        Some(Command::Similarity(args)) => similarity::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Search(args)) => search::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Rank(args)) => rank::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Report(args)) => run_report(args),
    }
}

fn run_train(args: &TrainArgs, interrupt: &Interrupt) -> Result<ExitCode> {
    let (settings, run) = FinetuneSettings::resolve(args)?;
    let Some(training) = settings.train.clone() else { return demo::run_sample(args, interrupt) };
    let files = Files { training, evaluation: settings.eval.clone(), test: settings.test.clone() };
    let FinetuneOutcome { ended, summary } = train::run(&settings, &run, &files, interrupt)?;
    if let Ended::Interrupted(code) = ended {
        return Ok(ExitCode::from(code as u8));
    }
    if run.json {
        print_line(&summary)?;
    } else {
        print_table(&summary);
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
    let metrics = for_task!(
        open_task_for(&args.model, |usual| {
            args.columns.over(usual, args.label.as_deref()).with_threshold(args.no_answer_threshold)
        })?,
        task => evaluate_with(&task, args)
    )?;
    if args.common.json {
        print_line(Value::Object(metrics))?;
    } else {
        print_metrics(&metrics)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn evaluate_with<T: Task>(task: &T, args: &EvaluateArgs) -> Result<Map<String, Value>> {
    let NamedDevice { device, .. } = select_device(&args.common.device, args.common.quiet)?;
    let pipeline = open_pipeline(task, &args.model, &device)?;
    let examples = task.read_held_out(&args.data)?;
    let encoded = Encoded::new(task, &examples)?;
    warn_truncated(task.processor().tokenizer().truncated_count());
    let (metrics, outputs) = train::evaluate(task, pipeline.model(), &examples, &encoded, &device)?;
    if let Some(path) = &args.predictions {
        let answer = |((example, inputs), outputs): ((&T::Example, &Vec<_>), &Vec<_>)| {
            task.json(&task.processor().postprocess(&task.request(example), inputs, outputs)).to_string()
        };
        let lines: Vec<String> = examples.iter().zip(&encoded.inputs).zip(&outputs).map(answer).collect();
        write_lines(path, &lines)?;
    }
    Ok(metrics)
}

fn run_predict(args: &PredictArgs) -> Result<ExitCode> {
    let mut task = open_task_for(&args.model, |usual| {
        let unlabeled = Description { label: None, ..usual };
        args.columns.over(unlabeled, None).with_threshold(args.no_answer_threshold)
    })?;
    match (&mut task, args.n_best) {
        (AnyTask::QuestionAnswering(task), Some(n_best)) => {
            task.processor = task.processor.clone().with_candidates(n_best);
        }
        (_, Some(_)) => return Err(Error::Usage("--n-best: only questions have answers to list".into()).into()),
        (_, None) => {}
    }
    for_task!(task, task => predict_with(&task, args))?;
    Ok(ExitCode::SUCCESS)
}

fn run_embed(args: &EmbedArgs) -> Result<ExitCode> {
    let embedder = args.embedder.open(&args.layers, args.combine.into(), &args.common)?;
    let text = Column::parse(&args.text, !args.no_header)?;
    let columns = TableOptions { header: !args.no_header, ..TableOptions::texts(text) };
    let every_token = args.embedder.pooling == Some(Pooling::None);
    let source = args.texts.source()?;
    let mut rows: Box<dyn Iterator<Item = bert_model::Result<Row>> + Send> = match &source {
        Some(input) => read_inputs(input, &columns)?,
        None => Box::new(
            args.texts.texts.clone().into_iter().map(|text| Ok(Row { line: 1, text, pair: None, labels: vec![] })),
        ),
    };
    let mut sink = Sink::open(args.output.as_deref(), every_token)?;
    let mut progress = Progress::new("embedding", None, 0, args.common.quiet || source.is_none());
    let mut done = 0;
    loop {
        let window = rows.by_ref().take(WINDOW).map(|row| Ok(row?.text));
        let texts: Vec<String> = window.collect::<bert_model::Result<_>>()?;
        if texts.is_empty() {
            break;
        }
        match every_token {
            true => {
                for (text, embedded) in texts.iter().zip(embedder.embed_tokens(&texts)?) {
                    sink.add(text, &embedded.tokens, embedded.vectors, every_token)?;
                }
            }
            false => {
                for (text, vector) in texts.iter().zip(embedder.embed(&texts)?) {
                    sink.add(text, &[], vec![vector], every_token)?;
                }
            }
        }
        done += texts.len() as u64;
        progress.update(done, "texts");
    }
    progress.finish();
    warn_truncated(embedder.truncated_count());
    sink.finish(every_token)?;
    Ok(ExitCode::SUCCESS)
}
