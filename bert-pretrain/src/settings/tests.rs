//! Tests of defaults and of rejected options.

use bert_train::{Algorithm, IfExists};
use clap::Args;
use serde_json::json;

use super::*;

fn resolve(arguments: &str) -> Result<(PretrainSettings, PretrainRunOptions)> {
    let words = ["bert-pretrain", "train"].into_iter().chain(arguments.split_whitespace());
    let Some(crate::args::Command::Train(args)) = Cli::parse_from(words).command else { panic!("{arguments}") };
    PretrainSettings::resolve(&args)
}

fn settings(arguments: &str) -> PretrainSettings {
    resolve(arguments).unwrap().0
}

#[test]
fn a_corpus_has_the_documented_defaults() {
    let (settings, run) = resolve("--corpus a.txt -o run").unwrap();
    assert_eq!((&*settings.config, settings.vocab_size, settings.data.max_seq_len), ("tiny", None, 128));
    assert_eq!((settings.learning_rate, settings.warmup, settings.batch_size), (1e-4, 0.01, 32));
    assert_eq!((settings.steps, settings.epochs, settings.seed), (None, 3.0, 42));
    assert_eq!(settings.optimizer, OptimizerConfig { weight_decay: 0.01, ..OptimizerConfig::default() });
    assert_eq!((settings.clip, settings.data.mask_prob, settings.data.short_seq_prob), (1.0, 0.15, 0.1));
    assert_eq!((run.output, run.if_exists, run.keep), ("run".into(), Some(IfExists::Refuse), None));
}

#[test]
fn the_sample_has_its_own_and_no_argument_is_the_sample() {
    let (settings, run) = PretrainSettings::sample().unwrap();
    assert_eq!((&*settings.config, settings.vocab_size, settings.data.max_seq_len), ("sample", Some(1000), 64));
    assert_eq!((settings.learning_rate, settings.warmup, settings.batch_size), (3e-3, 0.1, 16));
    assert_eq!((settings.steps, run.output), (Some(1400), DEFAULT_OUTPUT.into()));
    assert_eq!(serde_json::json!(settings), serde_json::json!(self::settings("")));
}

#[test]
fn what_is_given_counts_more_than_the_sample_does() {
    let given = settings("--warmup 0.01 --lr 1e-4 --batch-size 32 --config tiny --max-seq-len 128 --epochs 3");
    assert_eq!((given.warmup, given.learning_rate, given.batch_size), (0.01, 1e-4, 32));
    assert_eq!((&*given.config, given.data.max_seq_len, given.steps), ("tiny", 128, None));
    assert_eq!(settings("--tokenizer vocab.txt").vocab_size, None);
}

#[test]
fn as_many_tokens_are_hidden_as_googles_lists_have() {
    let data = settings("--corpus a.txt -o run").data;
    assert_eq!([64, 128, 512].map(|length| data.max_predictions(length)), [10, 20, 80]);
    assert_eq!(settings("--max-predictions 7").data.max_predictions(512), 7);
}

#[test]
fn what_cannot_be_is_refused_with_the_option() {
    for (arguments, expected) in [
        ("--corpus a.txt", "-o DIR"),
        ("--short-seq-prob 1.1", "--short-seq-prob: found 1.1, expected from 0 to 1"),
        ("--mask-prob 1", "--mask-prob: found 1, expected between 0 and 1"),
        ("--max-predictions 0", "--max-predictions: found 0, expected at least 1"),
        ("--max-seq-len 7", "--max-seq-len: found 7, expected at least 8"),
        ("--steps 0", "--steps: found 0"),
        ("--epochs 0", "--epochs: found 0"),
        ("--warmup nan", "--warmup: found NaN"),
        ("--lr=-1", "--lr: found -1"),
        ("--dropout 1", "--dropout: found 1, expected at least 0 and below 1"),
        ("--eval-share 1", "--eval-share: found 1, expected at least 0 and below 1"),
        ("--steps 3 --phase2-steps 4", "--phase2-steps: found 4, expected at most --steps"),
        ("--phase2-steps 0 --nsp-in-phase2", "--phase2-steps: found 0, expected at least 1"),
        ("--phase2-steps 0 --shift-positions", "--phase2-steps: found 0, expected at least 1"),
        ("--weight-decay nan", "--weight-decay: found NaN"),
        ("--weight-decay=-1", "--weight-decay: found -1"),
        ("--batch-size 1000000000000", "--batch-size: found 1000000000000, expected from 1 to"),
        ("--accumulate 0", "--accumulate: found 0, expected from 1 to"),
        ("--eval-examples 0", "--eval-examples: found 0, expected at least 1 (--eval-share 0"),
        ("--config huge", "--config: found \"huge\", expected one of tiny"),
    ] {
        let message = resolve(arguments).unwrap_err().to_string();
        assert!(message.contains(expected), "{arguments}: {message}");
    }
}

#[test]
fn a_budget_brings_its_recipe_where_nothing_is_given() {
    let plain = "--corpus a.txt -o run";
    let with = settings(&format!("{plain} --budget 1h"));
    assert_eq!((with.optimizer.algorithm, with.optimizer.weight_decay, with.steps), (Algorithm::Muon, 0.3, None));
    assert_eq!((with.data.nsp_mode, with.nsp_in_phase2), (NspMode::Balanced, true));
    assert_eq!(
        (with.data.max_seq_len, with.phase2_seq_len, with.longest(), with.shift_positions),
        (32, 128, 128, true)
    );
    assert_eq!((with.data.mask_prob, with.data.of_evaluation().mask_prob), (0.5, 0.15));
    assert_eq!(
        with.undecided,
        Undecided {
            vocab_size: true,
            size: true,
            learning_rate: true,
            batch_size: true,
            dropout: true,
            next_sentences: true,
            phase2_steps: true
        }
    );
    let given = "--optimizer adamw --nsp-mode balanced --lr 1e-4 --warmup 0.01 --batch-size 7 --dropout 0.2 --vocab-size 99 \
                 --config mini --mask-prob 0.2 --max-seq-len 64 --weight-decay 0.02";
    let given = settings(&format!("{plain} --budget 1h {given}"));
    assert_eq!((given.optimizer.algorithm, given.optimizer.weight_decay), (Algorithm::AdamW, 0.02));
    assert_eq!((given.data.nsp_mode, given.nsp_in_phase2), (NspMode::Balanced, false));
    assert_eq!((given.learning_rate, given.warmup, given.batch_size), (1e-4, 0.01, 7));
    assert_eq!((given.dropout, given.vocab_size, &*given.config), (Some(0.2), Some(99), "mini"));
    assert_eq!((given.data.max_seq_len, given.longest(), given.shift_positions), (64, 64, false));
    assert_eq!((given.data.mask_prob, given.undecided), (0.2, Undecided::default()));
    let phase2 = "--phase2-steps 9 --phase2-seq-len 64";
    for (options, expected) in [
        ("--no-nsp", (NspMode::Off, false)),
        ("--max-seq-len 64", (NspMode::Off, false)),
        (phase2, (NspMode::Balanced, true)),
        ("--phase2-steps 0", (NspMode::Off, false)),
        (&format!("{phase2} --nsp-in-phase2"), (NspMode::Balanced, true)),
        (&format!("{phase2} --nsp-mode google"), (NspMode::Google, false)),
    ] {
        let settings = settings(&format!("{plain} --budget 1h {options}"));
        assert_eq!((settings.data.nsp_mode, settings.nsp_in_phase2), expected, "{options}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one.json");
    BertConfig { type_vocab_size: 1, ..BertConfig::named("tiny").unwrap() }.save(&path).unwrap();
    let single = settings(&format!("{plain} --budget 1h --config {}", path.display()));
    assert_eq!((single.data.nsp_mode, single.nsp_in_phase2), (NspMode::Off, false), "one token type");
    // A model that is continued and the sample keep their settings.
    for options in [format!("{plain} --init model"), String::new()] {
        let (with, without) = (settings(&format!("{options} --budget 1h")), settings(&options));
        let without = PretrainSettings { budget: with.budget, steps: with.steps, ..without };
        assert_eq!((json!(with), with.undecided), (json!(without), Undecided::default()), "{options}");
        assert_eq!((with.steps, with.budget), (None, Some("1h".parse().unwrap())));
    }
}

fn train_args(arguments: &str) -> TrainArgs {
    Cli::parse_from(["bert-pretrain"].into_iter().chain(arguments.split_whitespace())).train
}

/// An option that is neither would be ignored when a run is resumed.
#[test]
fn every_option_of_train_is_a_setting_or_an_option_of_the_run() {
    let (settings, run) = resolve("--corpus a.txt -o run").unwrap();
    let (settings, run) = (json!(settings), json!(run));
    let others = ["resume", "overwrite", "json", "quiet"];
    for argument in TrainArgs::augment_args(clap::Command::new("x")).get_arguments() {
        let option = argument.get_long().unwrap();
        let key = option.replace('-', "_");
        let is_known = resume::SETTINGS.iter().any(|(name, _)| *name == option) || others.contains(&option);
        assert!(is_known || settings.get(&key).is_some() || run.get(&key).is_some(), "--{option}");
    }
    for setting in resume::SETTINGS.iter().flat_map(|(_, settings)| settings.iter()) {
        assert!(settings.pointer(&format!("/{}", setting.replace('.', "/"))).is_some(), "{setting}");
    }
}

#[test]
fn a_resumed_run_has_its_own_settings_and_names_all_that_differ() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().display().to_string();
    let given = format!(
        "--corpus a.txt --tokenizer vocab8k.txt --lr 1e-3 --optimizer lamb --steps 50 --keep 3 --device flex -o {run}"
    );
    let (settings, options) = PretrainSettings::resolve(&train_args(&given)).unwrap();
    let described = json!({"settings": settings, "run": options});
    std::fs::write(directory.path().join("run.json"), described.to_string()).unwrap();
    let resume = |more: &str| PretrainSettings::resume(&train_args(&format!("--resume -o {run} {more}")));
    for more in
        ["", "--corpus a.txt", "--lr 0.001 --steps 50 --optimizer lamb", "--tokenizer vocab8k.txt --weight-decay 0.01"]
    {
        let (resumed, options) = resume(more).unwrap();
        assert_eq!(json!(resumed), described["settings"], "{more}");
        assert_eq!((options.keep, &*options.device, options.if_exists), (Some(3), "flex", Some(IfExists::Resume)));
    }
    assert_eq!(resume("--save-every 5").unwrap().1.save_every, 5);
    let message =
        resume("--corpus b.txt --lr 1e-4 --epochs 3 --optimizer adamw --vocab-size 9").unwrap_err().to_string();
    for difference in [
        "corpus = [\"b.txt\"]",
        "corpus = [\"a.txt\"]",
        "learning_rate = 0.0001",
        "learning_rate = 0.001",
        "steps = null",
        "steps = 50",
        "optimizer.algorithm = \"lamb\"",
        "vocab_size = 9",
        "vocab_size = null",
    ] {
        assert!(message.contains(difference), "{difference}: {message}");
    }
}

#[test]
fn without_a_run_there_is_nothing_to_resume_unless_a_corpus_is_given() {
    let message = PretrainSettings::resume(&train_args("--resume -o nowhere")).unwrap_err().to_string();
    assert!(message.contains("nowhere: found no run to resume"), "{message}");
    assert_eq!(
        PretrainSettings::resume(&train_args("--resume --corpus a.txt -o nowhere")).unwrap().0.corpus,
        ["a.txt"]
    );
}
