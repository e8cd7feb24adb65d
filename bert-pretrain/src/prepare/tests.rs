//! Tests of held-out data, step counts, and the checks of a resumed run.

use bert_train::IfExists;
use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::args::{Cli, Command};
use crate::phases::count_steps;

/// A directory with two corpora, and the data of a run on them.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), sample::corpus(60, 1)).unwrap();
        std::fs::write(folder.path().join("b.txt"), sample::corpus(10, 2)).unwrap();
        Self { folder }
    }

    fn settings(&self, options: &str) -> PretrainSettings {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let options = options.replace("b.txt", &path("b.txt"));
        let line = format!("x train --corpus {} -o run --vocab-size 300 --max-seq-len 32 {options}", path("a.txt"));
        let Some(Command::Train(args)) = Cli::parse_from(line.split_whitespace()).command else { panic!("{line}") };
        PretrainSettings::resolve(&args).unwrap().0
    }

    fn prepare(&self, name: &str, options: &str) -> (PretrainSettings, PreparedData) {
        let directory = RunDirectory::open(self.folder.path().join(name), IfExists::Refuse).unwrap();
        let settings = self.settings(options);
        let data = prepare(&settings, given_tokenizer(&settings).unwrap(), &directory, true).unwrap();
        (settings, data)
    }
}

#[test]
fn a_share_of_the_documents_is_set_aside_or_another_corpus_is_taken() {
    let fixture = Fixture::new();
    let (_, data) = fixture.prepare("share", "--eval-share 0.1");
    assert_eq!((&data.facts["documents"], &data.facts["held_out_documents"]), (&60.into(), &6.into()));
    assert_eq!(data.facts["held_out_examples"], data.held_out.len());
    assert!(!data.held_out.is_empty() && data.facts["eval_corpus"].is_null());
    let (_, data) = fixture.prepare("limited", "--eval-share 0.1 --eval-examples 2");
    assert_eq!(data.held_out.len(), 2);
    let (_, data) = fixture.prepare("none", "--eval-share 0");
    assert!(data.held_out.is_empty());
    let (_, data) = fixture.prepare("other", "--eval-corpus b.txt");
    assert_eq!((&data.facts["held_out_documents"], data.split.len(Subset::Training)), (&0.into(), 60));
    assert!(!data.held_out.is_empty() && data.facts["eval_corpus"][0]["bytes"].is_u64());
}

#[test]
fn the_fingerprint_is_of_the_content_and_not_of_the_place() {
    let fixture = Fixture::new();
    let fingerprint = |name: &str, options: &str| fixture.prepare(name, options).1.fingerprint;
    let plain = fingerprint("1", "");
    assert_eq!(plain, fingerprint("2", "--lr 0.5 --eval-share 0.5"));
    assert_ne!(plain, fingerprint("3", "--sentences line"));
    assert_ne!(plain, fingerprint("4", "--eval-corpus b.txt"));
}

#[test]
fn steps_are_given_or_follow_from_the_epochs() {
    let fixture = Fixture::new();
    let (settings, data) = fixture.prepare("run", "--batch-size 4 --epochs 1");
    let one = count_steps(&settings, &data).unwrap();
    let two = count_steps(&PretrainSettings { epochs: 2.0, ..settings.clone() }, &data).unwrap();
    assert!(one > 10 && (2 * one - 1..=2 * one).contains(&two), "{one} and {two}");
    let accumulated = count_steps(&PretrainSettings { accumulate: 2, ..settings.clone() }, &data).unwrap();
    assert_eq!(accumulated, one.div_ceil(2));
    assert_eq!(count_steps(&PretrainSettings { steps: Some(7), ..settings.clone() }, &data).unwrap(), 7);
    assert_eq!(count_steps(&PretrainSettings { phase2_steps: 9000, ..settings }, &data).unwrap(), 9000);
}

#[test]
fn the_baseline_is_the_loss_of_guessing_by_the_frequencies_of_the_training_text() {
    let fixture = Fixture::new();
    let (_, data) = fixture.prepare("run", "--eval-share 0.1");
    let masked = |ids: &[u32]| PretrainingExample {
        masked: ids.iter().map(|&id| crate::masking::MaskedToken { position: 1, id }).collect(),
        ..PretrainingExample::empty()
    };
    let vocab_size = data.tokenizer.vocabulary().len();
    let loss = |ids: &[u32]| unigram_loss(&data.store, data.split, &[masked(ids)], vocab_size).unwrap();
    let reader = data.store.reader().unwrap();
    let documents = (0..data.split.len(Subset::Training)).map(|index| data.split.document(Subset::Training, index));
    let tokens: Vec<u32> = documents.flat_map(|index| reader.document(index).unwrap().concat()).collect();
    let (all, id) = ((tokens.len() + vocab_size) as f64, tokens[0]);
    let count = tokens.iter().filter(|&&token| token == id).count() as f64;
    let expected = -((count + 1.0) / all).ln();
    assert!((loss(&[id, id]).unwrap() - expected).abs() < 1e-9);
    // The padding token never occurs.
    assert!((loss(&[0]).unwrap() - all.ln()).abs() < 1e-9);
    assert_eq!(loss(&[]), None);
    assert_eq!(json!(data.unigram_loss), data.facts["held_out_unigram_loss"]);
}

/// Writes a corpus of long documents; every sentence of a document has its own word.
fn long_documents(fixture: &Fixture, documents: usize) {
    let words = ["alder", "birch", "cedar"];
    let sentences = |word: &str| (0..300).map(|index| format!("the {word} has {index} leaves.\n")).collect::<String>();
    let text: Vec<String> = words.iter().take(documents).map(|word| sentences(word)).collect();
    std::fs::write(fixture.folder.path().join("a.txt"), text.join("\n")).unwrap();
}

#[test]
fn of_few_long_documents_a_passage_of_each_is_held_out() {
    let fixture = Fixture::new();
    long_documents(&fixture, 3);
    let (_, data) = fixture.prepare("passages", "--eval-share 0.05");
    assert_eq!((&data.facts["documents"], &data.facts["held_out_documents"]), (&3.into(), &3.into()));
    let share = data.facts["held_out_tokens"].as_f64().unwrap() / data.facts["tokens"].as_f64().unwrap();
    assert!((share - 0.05).abs() < 0.02, "{share}");
    let reader = data.store.reader().unwrap();
    let read = |part, index| reader.document(data.split.document(part, index)).unwrap();
    for index in 0..3 {
        let (training, passage) = (read(Subset::Training, index), read(Subset::HeldOut, index));
        assert_eq!((training.len(), passage.len()), (285, 15));
        assert!(passage.iter().all(|sentence| !training.contains(sentence)), "trained on what is held out");
    }
    assert!(data.unigram_loss.unwrap() > 0.0 && !data.held_out.is_empty());
    // The same passages in every run with this seed.
    let held_out = data.held_out.clone();
    assert_eq!(fixture.prepare("again", "--eval-share 0.05").1.held_out, held_out);
    assert_ne!(fixture.prepare("other", "--eval-share 0.05 --seed 7").1.held_out, held_out);
}

#[test]
fn a_passage_of_a_single_document_is_held_out_if_it_is_long_enough() {
    let fixture = Fixture::new();
    long_documents(&fixture, 1);
    let (_, data) = fixture.prepare("long", "--eval-share 0.05");
    assert_eq!(data.facts["held_out_documents"], 1);
    assert!(!data.held_out.is_empty());
    let (_, data) = fixture.prepare("short", "--eval-share 0.01");
    assert!(data.held_out.is_empty() && data.unigram_loss.is_none());
}

#[test]
fn other_data_under_a_resumed_run_is_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let (settings, data) = fixture.prepare("run", "");
    let directory = || RunDirectory::open(fixture.folder.path().join("run"), IfExists::Resume).unwrap();
    directory().describe(&json!({"settings": {"data_sha256": data.fingerprint}})).unwrap();
    prepare(&settings, given_tokenizer(&settings).unwrap(), &directory(), true).unwrap();
    std::fs::write(fixture.folder.path().join("a.txt"), sample::corpus(60, 3)).unwrap();
    let tokens = || std::fs::read(fixture.folder.path().join("run/corpus.tokens")).unwrap();
    let before = tokens();
    let message = prepare(&settings, given_tokenizer(&settings).unwrap(), &directory(), true).unwrap_err().to_string();
    assert!(message.contains("data_sha256"), "{message}");
    assert!(tokens() == before, "the refused run replaced the tokens");
}
