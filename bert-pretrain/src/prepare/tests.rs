//! The data of a run: what is set aside, how many steps there are, what a resumed run must find again.

use bert_train::IfExists;
use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::args::{Cli, Command};

/// A folder with two corpora and the data of a run on them.
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
        let data = prepare(&settings, &directory, true).unwrap();
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
fn the_baseline_is_the_entropy_of_the_hidden_words() {
    let masked = |ids: &[u32]| PretrainingExample {
        masked: ids.iter().map(|&id| crate::masking::MaskedToken { position: 1, id }).collect(),
        ..PretrainingExample::empty()
    };
    let uniform = unigram_entropy(&[masked(&[5, 6]), masked(&[7, 8])]);
    assert!((uniform - 4.0_f64.ln()).abs() < 1e-12, "{uniform}");
    assert_eq!(unigram_entropy(&[masked(&[5, 5])]), 0.0);
}
