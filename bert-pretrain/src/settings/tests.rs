//! The defaults, and what is refused.

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
    assert_eq!((run.output, run.if_exists, run.keep), ("run".into(), Some(IfExists::Refuse), 2));
}

#[test]
fn the_sample_has_its_own_and_no_argument_is_the_sample() {
    let (settings, run) = PretrainSettings::sample().unwrap();
    assert_eq!((&*settings.config, settings.vocab_size, settings.data.max_seq_len), ("sample", Some(1000), 64));
    assert_eq!((settings.learning_rate, settings.warmup, settings.batch_size), (2e-3, 0.1, 16));
    assert_eq!((settings.steps, run.output), (Some(4000), DEFAULT_OUTPUT.into()));
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
        ("--eval-share 1", "--eval-share: found 1, expected at least 0 and below 1"),
        ("--steps 3 --phase2-steps 4", "--phase2-steps: found 4, expected at most --steps"),
        ("--config huge", "--config: found \"huge\", expected one of tiny"),
    ] {
        let message = resolve(arguments).unwrap_err().to_string();
        assert!(message.contains(expected), "{arguments}: {message}");
    }
}
