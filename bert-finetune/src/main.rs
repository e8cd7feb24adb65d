//! The program: parses, runs, prints, and turns errors into one line and an exit code.

#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bert_finetune::args::{Cli, Command, EmbedArgs, EvaluateArgs, PredictArgs, ReportArgs, TrainArgs};
use bert_finetune::description::{AnyTask, Description, open_task, open_task_for};
use bert_finetune::embed::{Pooling, Recipe, embed};
use bert_finetune::features::Encoded;
use bert_finetune::predict::{WINDOW, score};
use bert_finetune::settings::TrainSettings;
use bert_finetune::tasks::{Asked, Examples, Task};
use bert_finetune::train::{self, Files, Outcome};
use bert_finetune::vectors::{Sink, write_lines};
use bert_finetune::{for_task, report, sample};
use bert_model::device::{self, NamedDevice};
use bert_model::text::Sequence;
use bert_model::train::run_directory::read_run;
use bert_model::train::{Ended, Interrupt, Progress};
use bert_model::{BertModel, Error, Tokenizer, load};
use bert_pretrain::allocator::keep_memory;
use bert_pretrain::args::Common;
use bert_pretrain::input::columns::Column;
use bert_pretrain::input::read_inputs;
use bert_pretrain::input::table::{Row, TableOptions};
use bert_pretrain::program::{exit, print_line, select_device};
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
        Some(Command::Report(args)) => run_report(args),
    }
}

fn run_train(args: &TrainArgs, interrupt: &Interrupt) -> Result<ExitCode> {
    let (settings, run) = TrainSettings::resolve(args)?;
    let Some(training) = settings.train.clone() else { return run_sample(args, interrupt) };
    let files = Files { training, evaluation: settings.eval.clone(), test: settings.test.clone() };
    let Outcome { ended, summary } = train::run(&settings, &run, &files, interrupt)?;
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

/// Fine-tunes on the built-in sample, from the pretrained model and from random weights, and shows the difference.
fn run_sample(args: &TrainArgs, interrupt: &Interrupt) -> Result<ExitCode> {
    let (mut settings, mut run) = TrainSettings::resolve(args)?;
    let is_pretrained = args.model.is_some() || settings.model.join("model.safetensors").exists();
    if !is_pretrained && let Ended::Interrupted(code) = pretrain_for_a_moment(args, &settings.model, interrupt)? {
        return Ok(ExitCode::from(code as u8));
    }
    let folder = tempfile::tempdir().context("a temporary directory")?;
    let (training, held_out) = sample::tables(settings.seed);
    let files = Files {
        training: folder.path().join("guests.tsv"),
        evaluation: Some(folder.path().join("guests-held-out.tsv")),
        test: None,
    };
    std::fs::write(&files.training, training)?;
    std::fs::write(folder.path().join("guests-held-out.tsv"), held_out)?;

    let pretrained = train::run(&settings, &run, &files, interrupt)?;
    let (directory, json) = (run.output.clone(), run.json);
    settings.from_scratch = true;
    run.output = folder.path().join("from-scratch");
    let random = train::run(&settings, &run, &files, interrupt)?;
    for outcome in [&pretrained, &random] {
        if let Ended::Interrupted(code) = outcome.ended {
            return Ok(ExitCode::from(code as u8));
        }
    }
    let accuracy = |outcome: &Outcome| outcome.summary["eval"]["accuracy"].as_f64().unwrap_or(f64::NAN);
    if json {
        let mut summary = pretrained.summary.clone();
        summary["random_weights"] = random.summary["eval"].clone();
        print_line(&summary)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_table(&pretrained.summary);
    let (pretrained, random) = (accuracy(&pretrained), accuracy(&random));
    print_line(format_args!("held-out accuracy from the pretrained model {pretrained:.3}"))?;
    print_line(format_args!("held-out accuracy from random weights       {random:.3}"))?;
    print_line(format_args!("what pretraining is worth                   {:+.3}", pretrained - random))?;
    let texts = ["the breakfast was superb and the music was lovely.", "what a gloomy room, and what a stale soup."];
    for_task!(open_task(&directory)?, task => show_answers(&task, &directory, &texts, &args.common))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the fine-tuned model about a few texts.
fn show_answers<T: Task>(task: &T, directory: &Path, texts: &[&str], common: &Common) -> Result<()> {
    let NamedDevice { device, .. } = device::select(&common.device)?;
    let model = open_model::<T>(directory, &device)?;
    let asked = |text: &&str| task.question(&Asked { text: text.to_string(), ..Asked::default() });
    let examples: Vec<T::Example> = texts.iter().map(asked).collect::<Result<_, _>>()?;
    let encoded = Encoded::new(task, &examples)?;
    for (text, answer) in texts.iter().zip(score(task, &model, &encoded, &device)?.answers(task, &examples)) {
        print_line(format_args!("{text} → {}", short(&answer)))?;
    }
    Ok(())
}

/// A short pretraining on the sample, where `bert-pretrain` has not run yet; what was interrupted there goes on.
fn pretrain_for_a_moment(args: &TrainArgs, directory: &Path, interrupt: &Interrupt) -> Result<Ended> {
    eprintln!(
        "no model in {} yet: pretraining one on the built-in sample first (`bert-pretrain`)",
        directory.display()
    );
    let begun = read_run(directory).unwrap_or_default();
    let steps = begun["settings"]["steps"].as_u64().unwrap_or(1600).to_string();
    let how = if begun.is_null() { "--overwrite" } else { "--resume" };
    let mut arguments = vec!["bert-pretrain", "--steps", &steps, "--device", &args.common.device, how];
    if args.common.quiet {
        arguments.push("--quiet");
    }
    let cli = bert_pretrain::args::Cli::parse_from(arguments);
    let (settings, run) = bert_pretrain::settings::TrainSettings::resolve(&cli.train)?;
    Ok(bert_pretrain::train::run(&settings, &run, interrupt)?.ended)
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

/// The final metrics, on stderr.
fn print_table(summary: &Value) {
    eprintln!("best epoch {}", summary["best_epoch"]);
    for part in ["eval", "test"] {
        for (name, value) in summary[part].as_object().into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                eprintln!("{:16} {value:.4}", format!("{part} {name}"));
            }
        }
    }
    for (name, mean) in summary["mean"]["eval"].as_object().into_iter().flatten() {
        let spread = &summary["spread"]["eval"][name];
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        eprintln!("{:16} {:.4} ± {:.4}", format!("mean {name}"), number(mean), number(spread));
    }
    eprintln!("{:16} {:.0}", "seconds", summary["seconds"].as_f64().unwrap_or(f64::NAN));
    eprintln!("{:16} {}", "model", summary["model"].as_str().unwrap_or_default());
}

fn run_evaluate(args: &EvaluateArgs) -> Result<ExitCode> {
    let metrics = for_task!(
        open_task_for(&args.model, |usual| {
            usual.with_columns(&args.columns, args.label.as_deref()).with_threshold(args.no_answer_threshold)
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
    let NamedDevice { device, .. } = select_device(&args.common)?;
    let model = open_model::<T>(&args.model, &device)?;
    let examples = task.read(&args.data)?;
    let encoded = Encoded::new(task, &examples)?;
    train::warn_of_cut(task.cut());
    let (metrics, scored) = train::evaluate(task, &model, &examples, &encoded, &device)?;
    if let Some(path) = &args.predictions {
        let lines: Vec<String> = scored.answers(task, &examples).map(|answer| answer.to_string()).collect();
        write_lines(path, &lines)?;
    }
    Ok(metrics)
}

fn print_metrics(metrics: &Map<String, Value>) -> Result<()> {
    for (name, value) in metrics {
        if let Some(value) = value.as_f64() {
            print_line(format_args!("{name:12} {value:.4}"))?;
        }
    }
    Ok(())
}

/// The model of a fine-tuned directory; one whose head was never trained is refused.
fn open_model<T: Task>(directory: &Path, device: &burn::tensor::Device) -> Result<T::Model> {
    let loaded = load::<T::Model>(directory, 0, device)?;
    match loaded.initialised.first() {
        None => Ok(loaded.model),
        Some(missing) => bail!(
            "{}: no tensor `{missing}`: not a fine-tuned model; train one with `bert-finetune train`",
            directory.display()
        ),
    }
}

fn run_predict(args: &PredictArgs) -> Result<ExitCode> {
    let mut task = open_task_for(&args.model, |usual| {
        let unlabelled = Description { label: None, ..usual };
        unlabelled.with_columns(&args.columns, None).with_threshold(args.no_answer_threshold)
    })?;
    match (&mut task, args.n_best) {
        (AnyTask::QuestionAnswering(task), Some(n_best)) => task.n_best = n_best,
        (_, Some(_)) => return Err(Error::Usage("--n-best: only questions have answers to list".into()).into()),
        (_, None) => {}
    }
    for_task!(task, task => predict_with(&task, args))?;
    Ok(ExitCode::SUCCESS)
}

fn predict_with<T: Task>(task: &T, args: &PredictArgs) -> Result<()> {
    let NamedDevice { device, .. } = select_device(&args.common)?;
    let model = open_model::<T>(&args.model, &device)?;
    let asked = Asked {
        text: String::new(),
        pair: args.pair.clone(),
        question: args.question.clone(),
        choices: args.choice.clone(),
    };
    let mut texts = args.texts.clone();
    texts.texts.extend(args.context.clone().filter(|_| args.texts.texts.is_empty()));
    let source = texts.source()?;
    let is_long = source.is_some();
    // What belongs to a text is in the file's columns.
    asked.check(if is_long { &[] } else { T::OPTIONS })?;
    let mut examples: Examples<T::Example> = match source {
        Some(path) => task.questions(&path)?,
        None => {
            let question = |text: &String| task.question(&Asked { text: text.clone(), ..asked.clone() });
            Box::new(texts.texts.iter().map(question).collect::<Vec<_>>().into_iter())
        }
    };
    let mut progress = Progress::new("predicting", None, 0, args.common.quiet || !is_long);
    let mut done = 0;
    loop {
        let window: Vec<T::Example> = examples.by_ref().take(WINDOW).collect::<Result<_, _>>()?;
        if window.is_empty() {
            break;
        }
        let encoded = Encoded::new(task, &window)?;
        for answer in score(task, &model, &encoded, &device)?.answers(task, &window) {
            match args.common.json {
                true => print_line(answer)?,
                false => print_line(short(&answer))?,
            }
        }
        done += window.len() as u64;
        progress.update(done, "texts");
    }
    progress.finish();
    train::warn_of_cut(task.cut());
    Ok(())
}

/// "good 0.98", "3.41", "joy, hope"
fn short(answer: &Value) -> String {
    if let Some(label) = answer["label"].as_str() {
        return format!("{label} {:.2}", answer["probabilities"][label].as_f64().unwrap_or(f64::NAN));
    }
    if let Some(labels) = answer["labels"].as_array() {
        return labels.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    }
    if let (Some(words), Some(tags)) = (answer["words"].as_array(), answer["tags"].as_array()) {
        let tagged = |(word, tag): (&Value, &Value)| Some(format!("{}/{}", word.as_str()?, tag.as_str()?));
        return words.iter().zip(tags).filter_map(tagged).collect::<Vec<_>>().join(" ");
    }
    if let Some(text) = answer["answer"].as_str() {
        return text.to_string();
    }
    answer["value"].as_f64().map_or_else(|| answer.to_string(), |value| format!("{value:.3}"))
}

fn run_embed(args: &EmbedArgs) -> Result<ExitCode> {
    let NamedDevice { device, .. } = select_device(&args.common)?;
    let loaded = load::<BertModel>(&args.model, args.common.seed, &device)?;
    let has_pooler = !loaded.initialised.iter().any(|name| name.starts_with("pooler"));
    if args.pooling == Pooling::Pooler && !has_pooler {
        bail!("{}: the checkpoint has no pooler; choose another --pooling", args.model.display());
    }
    let tokenizer = Tokenizer::load(&args.model)?;
    tokenizer.check_fits(&loaded.config)?;
    let limit = loaded.config.max_position_embeddings;
    let tokenizer = tokenizer.truncating(args.max_seq_len.unwrap_or(limit).min(limit))?;
    let recipe = Recipe {
        pooling: args.pooling,
        layers: args.layers.resolve(loaded.config.num_hidden_layers + 1)?,
        combine: args.combine,
        normalize: args.normalize,
    };
    let text = Column::parse(&args.text, !args.no_header)?;
    let columns = TableOptions { header: !args.no_header, ..TableOptions::texts(text) };
    let every_token = args.pooling == Pooling::None;
    let source = args.texts.source()?;
    let mut rows: Box<dyn Iterator<Item = bert_model::Result<Row>>> = match &source {
        Some(path) => Box::new(read_inputs(path, &columns)?),
        None => Box::new(
            args.texts.texts.clone().into_iter().map(|text| Ok(Row { line: 1, text, pair: None, labels: vec![] })),
        ),
    };
    let mut sink = Sink::open(args.output.as_deref(), every_token)?;
    let mut progress = Progress::new("embedding", None, 0, args.common.quiet || source.is_none());
    let mut done = 0;
    loop {
        let rows: Vec<Row> = rows.by_ref().take(WINDOW).collect::<Result<_, _>>()?;
        if rows.is_empty() {
            break;
        }
        let sequences: Vec<Sequence> =
            rows.iter().map(|row| Ok(Sequence::from(&tokenizer.encode(&row.text, None)?))).collect::<Result<_>>()?;
        let embedded = embed(&loaded.model, &sequences, tokenizer.special().pad, &recipe, &device)?;
        for ((row, sequence), vectors) in rows.iter().zip(&sequences).zip(embedded) {
            let tokens: Vec<String> = match every_token {
                true => sequence.ids.iter().map(|&id| tokenizer.piece(id)).collect(),
                false => Vec::new(),
            };
            sink.add(&row.text, &tokens, vectors, every_token)?;
        }
        done += rows.len() as u64;
        progress.update(done, "texts");
    }
    progress.finish();
    train::warn_of_cut(tokenizer.cut());
    sink.finish(every_token)?;
    Ok(ExitCode::SUCCESS)
}
