//! The recipe of a run with `--budget`: the settings that learn most in little time. Options that were given count
//! more.
//!
//! docs/RECIPE.md describes the rules and what they are based on. A run that continues a model (`--init`) and one on
//! the built-in sample keep their own settings; the budget then determines only the number of steps.

use bert_model::BertConfig;
use bert_train::Algorithm;

use crate::args::TrainArgs;

/// The sizes that a budget chooses from, smallest first.
pub const SIZES: [&str; 6] = ["tiny", "mini", "small", "medium", "base", "large"];

/// Training tokens per weight of the encoder's layers that a size needs to be better than the next smaller one.
const TOKENS_PER_WEIGHT: f64 = 3.0;
/// Weights of the encoder's layers per token of the corpus, above which a model would memorize the text.
const WEIGHTS_PER_TOKEN: f64 = 4.0;
/// Passes over the corpus above which training has dropout.
const PASSES_WITHOUT_DROPOUT: f64 = 20.0;

/// The settings that a budget has yet to choose, once the corpus is open and the speed has been measured; none of a
/// recorded run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undecided {
    /// The size of the vocabulary.
    pub vocab_size: bool,
    /// The size of the model.
    pub size: bool,
    /// The learning rate, which depends on the size of the model.
    pub learning_rate: bool,
    /// The batch size, which depends on the size of the model.
    pub batch_size: bool,
    /// Dropout, which depends on the number of passes over the corpus.
    pub dropout: bool,
    /// Whether to predict next sentences, which a model with one token type cannot.
    pub next_sentences: bool,
    /// The number of steps of phase 2.
    pub phase2_steps: bool,
}

/// Whether the recipe applies to a command line.
fn applies(args: &TrainArgs) -> bool {
    args.budget.is_some() && !args.corpus.is_empty() && args.init.is_none()
}

/// Whether no option sets the length of sequences.
fn leaves_lengths_open(args: &TrainArgs) -> bool {
    args.data.max_seq_len.is_none() && !args.given.has("phase2-steps")
}

/// Whether no option says if, and when, next sentences are predicted.
fn leaves_next_sentences_open(args: &TrainArgs) -> bool {
    !args.given.has("nsp-mode") && !args.data.no_nsp && !args.nsp_in_phase2
}

/// The options with those of the recipe in place of defaults.
pub fn apply(args: &TrainArgs) -> TrainArgs {
    let mut args = args.clone();
    if !applies(&args) {
        return args;
    }
    let has = |option: &str| args.given.has(option);
    if !has("short-seq-prob") {
        args.data.short_seq_prob = 0.0;
    }
    if !has("mask-prob") {
        args.data.mask_prob = MASK_PROB;
    }
    let has_two_lengths = leaves_lengths_open(&args);
    if has_two_lengths {
        (args.data.max_seq_len, args.phase2_seq_len) = (Some(SEQUENCE_LENGTHS[0]), SEQUENCE_LENGTHS[1]);
        args.shift_positions = true;
    }
    if leaves_next_sentences_open(&args) {
        let has_phase2 = has_two_lengths || args.phase2_steps > 0;
        // Two halves of a short sequence are too little context to learn from.
        (args.nsp_in_phase2, args.data.no_nsp) = (has_phase2, !has_phase2);
    }
    args.optimizer.get_or_insert(Algorithm::Muon);
    args.warmup.get_or_insert(0.1);
    args.weight_decay.get_or_insert(WEIGHT_DECAY);
    args
}

/// The fraction of tokens to mask: more words to predict in the same time (Wettig et al. 2023, "Should You Mask 15% in
/// Masked Language Modeling?").
const MASK_PROB: f64 = 0.5;
/// The lengths of sequences in phase 1 and phase 2: with short ones a model learns to use the context after a tenth of
/// the tokens (docs/RECIPE.md, "Short sequences first").
const SEQUENCE_LENGTHS: [usize; 2] = [32, 128];
/// The part of the time that phase 2 takes.
pub const PHASE2_SHARE: f64 = 0.4;
/// λ of the decoupled weight decay. Muon's high rates let weights grow, and a later fine-tuning, with its small steps,
/// changes little of large ones.
const WEIGHT_DECAY: f64 = 0.3;

impl Undecided {
    /// The settings that these options leave to the budget.
    pub fn of(args: &TrainArgs) -> Self {
        let applies = applies(args);
        Self {
            vocab_size: applies && args.tokenizer.is_none() && args.vocab_size.is_none(),
            size: applies && args.config.is_none(),
            learning_rate: applies && args.lr.is_none(),
            batch_size: applies && args.batch_size.is_none(),
            dropout: applies && args.dropout.is_none(),
            next_sentences: applies && leaves_next_sentences_open(args),
            phase2_steps: applies && leaves_lengths_open(args),
        }
    }
}

/// The size of the vocabulary for a corpus of this many bytes: every WordPiece should be seen often.
pub fn vocab_size(corpus_bytes: u64) -> usize {
    match corpus_bytes {
        ..32_000_000 => 8192,
        32_000_000..256_000_000 => 16_384,
        _ => 30_522,
    }
}

/// The peak learning rate for a model: the narrower, the higher.
pub fn learning_rate(algorithm: Algorithm, config: &BertConfig) -> f64 {
    let width = 256.0 / config.hidden_size as f64;
    match algorithm {
        Algorithm::Muon => 5e-3 * width.sqrt(),
        Algorithm::AdamW => 1e-3 * width,
        Algorithm::Lamb => 4e-3 * width.sqrt(),
    }
}

/// Sequences per step: few, since little time is better spent on many steps. In larger models, Muon's iteration would
/// take half of the time of a step with so few.
pub fn batch_size(config: &BertConfig) -> usize {
    if weights(config) < 1e6 { 32 } else { 64 }
}

/// The number of weights of the encoder's matrices.
pub fn weights(config: &BertConfig) -> f64 {
    let (hidden, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
    config.num_hidden_layers as f64 * (4.0 * hidden * hidden + 2.0 * hidden * inner)
}

/// Whether a model should be trained on `tokens` tokens (passes over the corpus counted) rather than the next smaller
/// one.
pub fn is_worth(config: &BertConfig, tokens: f64, corpus_tokens: f64) -> bool {
    let weights = weights(config);
    tokens >= TOKENS_PER_WEIGHT * weights && weights <= WEIGHTS_PER_TOKEN * corpus_tokens
}

/// Dropout for a run with this many passes over the corpus; `None` for the configuration's.
pub fn dropout(passes: f64) -> Option<f64> {
    (passes <= PASSES_WITHOUT_DROPOUT).then_some(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_model_needs_more_tokens_and_more_text() {
        let size = |name: &str| BertConfig::named(name).unwrap();
        let weights: Vec<f64> = SIZES.iter().map(|name| weights(&size(name))).collect();
        assert_eq!(weights[1], 4.0 * 12.0 * 256.0 * 256.0);
        assert!(weights.is_sorted());
        let worth = |tokens, corpus| SIZES.iter().rfind(|name| is_worth(&size(name), tokens, corpus)).copied();
        assert_eq!(worth(20e6, 3.3e6), Some("mini"));
        assert_eq!(worth(2e6, 3.3e6), Some("tiny"));
        assert_eq!(worth(1e12, 3.3e6), Some("small"));
        assert_eq!(worth(1e12, 3.3e9), Some("large"));
    }

    #[test]
    fn narrow_models_learn_faster_and_many_passes_have_dropout() {
        let rate = |name: &str, algorithm| learning_rate(algorithm, &BertConfig::named(name).unwrap());
        for algorithm in [Algorithm::Muon, Algorithm::AdamW, Algorithm::Lamb] {
            assert!(SIZES.map(|name| -rate(name, algorithm)).is_sorted(), "{algorithm:?}");
        }
        assert_eq!(["tiny", "mini", "base"].map(|name| batch_size(&BertConfig::named(name).unwrap())), [32, 64, 64]);
        assert_eq!((dropout(6.0), dropout(200.0)), (Some(0.0), None));
        assert_eq!([1_000_000, 100_000_000, 10_000_000_000].map(vocab_size), [8192, 16_384, 30_522]);
    }
}
