//! `bert-finetune` without a training file: demonstrates the benefit of pretraining on a built-in labeled sample. This
//! is the only module that depends on `bert-pretrain`.
//!
//! The sample contains good and bad reviews of inns from the world of `bert-pretrain`'s sample. The training texts use
//! some of its positive and negative words, the held-out texts the others. A model pretrained on the world's reviews
//! knows which words belong together; one that starts from random weights does not.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bert_cli::args::Common;
use bert_cli::program::{print_how_to_resume, print_line};
use bert_model::device::{self, NamedDevice};
use bert_model::pipeline::Precision;
use bert_pretrain::sample::{BLAME, PRAISE, SUBJECTS};
use bert_train::run_directory::read_run;
use bert_train::{Ended, IfExists, Interrupt, Solo};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::args::TrainArgs;
use crate::data::Files;
use crate::for_task;
use crate::output::{class_names, print_table};
use crate::predict::open_pipeline;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};
use crate::tasks::any::open_task;
use crate::tasks::{Query, RequestOf, Task};
use crate::train::{self, FinetuneOutcome};

/// Number of words of each list that occur in the training texts.
const TRAINING_WORDS: usize = 6;

/// Texts whose predictions are shown. Their words of praise and blame are held out, so only pretraining can reveal
/// their meaning.
const QUESTIONS: [&str; 2] =
    ["the breakfast was perfect and the bed was warm.", "what a draughty room, and what a stale soup."];

/// Fine-tunes on the built-in sample, from the pretrained model and from random weights, and prints the difference.
///
/// # Errors
/// Those of [`train::run`].
pub fn run_sample(
    mut settings: FinetuneSettings,
    mut run: FinetuneRunOptions,
    args: &TrainArgs,
    interrupt: &Interrupt,
) -> Result<ExitCode> {
    let is_pretrained = args.model.is_some() || settings.model.join("model.safetensors").exists();
    if !is_pretrained && let Ended::Interrupted(code) = pretrain_for_a_moment(args, &settings.model, interrupt)? {
        return Ok(ExitCode::from(code as u8));
    }
    let folder = tempfile::tempdir().context("a temporary directory")?;
    let (training, held_out) = tables(settings.seed);
    let files = Files {
        training: folder.path().join("guests.tsv"),
        evaluation: Some(folder.path().join("guests-held-out.tsv")),
        test: None,
    };
    std::fs::write(&files.training, training)?;
    std::fs::write(folder.path().join("guests-held-out.tsv"), held_out)?;

    let (directory, json) = (run.output.clone(), run.json);
    let pretrained = train::run(&settings, &run, &files, (interrupt, &Solo))?;
    if let Ended::Interrupted(code) = pretrained.ended {
        print_how_to_resume(&directory);
        return Ok(ExitCode::from(code as u8));
    }
    settings.from_scratch = true;
    run.output = folder.path().join("from-scratch");
    let random = train::run(&settings, &run, &files, (interrupt, &Solo))?;
    if let Ended::Interrupted(code) = random.ended {
        return Ok(ExitCode::from(code as u8));
    }
    let accuracy = |outcome: &FinetuneOutcome| outcome.summary["eval"]["accuracy"].as_f64().unwrap_or(f64::NAN);
    if json {
        let mut summary = pretrained.summary.clone();
        summary["random_weights"] = random.summary["eval"].clone();
        print_line(&summary)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !run.quiet {
        print_table(&pretrained.summary, &class_names(&directory));
    }
    let (pretrained, random) = (accuracy(&pretrained), accuracy(&random));
    print_line(format_args!("held-out accuracy from the pretrained model {pretrained:.3}"))?;
    print_line(format_args!("held-out accuracy from random weights       {random:.3}"))?;
    print_line(format_args!("gain from pretraining                       {:+.3}", pretrained - random))?;
    for_task!(open_task(&directory)?, task => show_answers(&task, &directory, &QUESTIONS, &args.common))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the fine-tuned model's predictions for a few texts.
fn show_answers<T: Task>(task: &T, directory: &Path, texts: &[&str], common: &Common) -> Result<()> {
    let NamedDevice { device, .. } = device::select(&common.device)?;
    let pipeline = open_pipeline(task, directory, &device, Precision::F32)?;
    let query = |text: &&str| task.example_of(&Query { text: text.to_string(), ..Query::default() });
    let examples: Vec<T::Example> = texts.iter().map(query).collect::<Result<_, _>>()?;
    let requests: Vec<RequestOf<T>> = examples.iter().map(|example| task.request(example)).collect();
    for (text, answer) in texts.iter().zip(pipeline.run(&requests)?) {
        print_line(format_args!("{text} → {}", task.plain(&answer)?))?;
    }
    Ok(())
}

/// Pretrains on the sample if `bert-pretrain` has not been run, or resumes if that was interrupted.
fn pretrain_for_a_moment(args: &TrainArgs, directory: &Path, interrupt: &Interrupt) -> Result<Ended> {
    eprintln!(
        "no model in {} yet: pretraining one on the built-in sample first (`bert-pretrain`)",
        directory.display()
    );
    let begun = read_run(directory).unwrap_or_default();
    let (mut settings, mut run) = bert_pretrain::settings::PretrainSettings::sample()?;
    settings.steps = begun["settings"]["steps"].as_u64().or(settings.steps);
    run.if_exists = Some(if begun.is_null() { IfExists::Overwrite } else { IfExists::Resume });
    run.device = args.common.device.clone();
    run.quiet = args.common.quiet;
    Ok(bert_pretrain::train::run(&settings, &run, (interrupt, &Solo))?.ended)
}

/// Training and held-out examples, as two tab-separated tables with columns `text` and `label`.
fn tables(seed: u64) -> (String, String) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let training = table(0..TRAINING_WORDS, 480, &mut rng);
    let held_out = table(TRAINING_WORDS..PRAISE.len(), 400, &mut rng);
    (training, held_out)
}

fn table(words: std::ops::Range<usize>, rows: usize, rng: &mut ChaCha8Rng) -> String {
    let row = |index: usize, rng: &mut ChaCha8Rng| {
        let (list, label) = if index.is_multiple_of(2) { (&PRAISE, "good") } else { (&BLAME, "bad") };
        let mut word = || list[rng.random_range(words.clone())];
        let (first, second) = (word(), word());
        let (one, other) =
            (SUBJECTS[rng.random_range(0..SUBJECTS.len())], SUBJECTS[rng.random_range(0..SUBJECTS.len())]);
        let text = match rng.random_range(0..3) {
            0 => format!("the {one} was {first} and the {other} was {second}."),
            1 => format!("what a {first} {one}, and what a {second} {other}."),
            _ => format!("the guest found the {one} {first} and {second}."),
        };
        format!("{text}\t{label}\n")
    };
    let rows: String = (0..rows).map(|index| row(index, rng)).collect();
    format!("text\tlabel\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_to_begin_with_is_where_pretraining_leaves_it() {
        assert_eq!(crate::settings::SAMPLE_MODEL, bert_pretrain::settings::DEFAULT_OUTPUT);
    }

    #[test]
    fn held_out_texts_share_no_word_of_praise_or_blame_with_the_training_texts() {
        let (training, held_out) = tables(42);
        let words = |table: &str| {
            let has = |word: &&&str| table.split(|c: char| !c.is_alphabetic()).any(|found| found == **word);
            PRAISE.iter().chain(&BLAME).filter(has).copied().collect::<Vec<_>>()
        };
        let (seen, asked) = (words(&training), words(&held_out));
        assert_eq!((seen.len(), asked.len()), (12, 8));
        assert!(asked.iter().all(|word| !seen.contains(word)));
        // Reported bug: the demonstration asked about a word that is in neither list.
        for (question, list) in QUESTIONS.iter().zip([&PRAISE, &BLAME]) {
            let found = words(question);
            assert!(
                found.len() == 2 && found.iter().all(|word| list.contains(word) && asked.contains(word)),
                "{found:?}"
            );
        }
    }
}
