//! Holds out part of the corpus for evaluation, and computes a baseline loss for it.

use bert_model::{Result, Tokenizer};
use bert_train::RunDirectory;
use bert_train::permutation::mix;

use crate::examples::PretrainingExample;
use crate::settings::PretrainSettings;
use crate::split::{Split, Subset};
use crate::store::Store;

/// Tag that keeps this random stream independent of the run's others.
const SPLIT: u64 = 11;

/// Minimum number of held-out documents; fewer are hardly a sample of the corpus.
const FEWEST_DOCUMENTS: f64 = 5.0;
/// Minimum mean length, in sentences, for which passages of documents are worth evaluating.
const SHORTEST_PASSAGE: f64 = 4.0;

/// Maximum number of training tokens that the frequency baseline is computed from.
const COUNTED_TOKENS: usize = 1 << 22;

/// How much of a corpus is held out, for the corpus message and `run.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOutShare {
    /// Number of held-out documents or passages.
    pub documents: u64,
    /// Number of tokens in them.
    pub tokens: u64,
    /// `tokens` as a fraction of the corpus.
    pub share: f64,
    /// Whether passages of documents are held out instead of whole documents.
    pub is_passages: bool,
}

/// Holds out a fraction of the corpus: whole documents or, if the corpus consists of a few long documents, a passage of
/// each one, since a single document would be too large a share and would not represent the others.
///
/// # Errors
/// If the tokenized corpus cannot be read or written.
pub fn hold_out(
    store: Store,
    share: f64,
    settings: &PretrainSettings,
    tokenizer: &Tokenizer,
    (directory, fingerprint): (&RunDirectory, &str),
) -> Result<(Store, Split, HeldOutShare)> {
    let stats = store.stats();
    let (documents, sentences) = (stats.documents as f64, stats.sentences as f64);
    let seed = mix(&[settings.seed, SPLIT]);
    let is_passages =
        share > 0.0 && documents * share < FEWEST_DOCUMENTS && sentences * share >= SHORTEST_PASSAGE * documents;
    let (store, split) = match is_passages {
        false => (store, Split::new(stats.documents, share, seed)),
        true => {
            let (path, unknown) = (directory.file("split.tokens"), tokenizer.special().unk);
            let split = store.with_passages_apart(&path, (share, seed), unknown, fingerprint)?;
            let all = split.stats().documents;
            (split, Split::at(stats.documents, all))
        }
    };
    let reader = store.reader()?;
    let held_out = (0..split.len(Subset::HeldOut)).map(|index| reader.tokens(split.document(Subset::HeldOut, index)));
    let tokens = held_out.sum::<Result<u64>>()?;
    let share = tokens as f64 / stats.tokens.max(1) as f64;
    let documents = split.len(Subset::HeldOut);
    Ok((store, split, HeldOutShare { documents, tokens, share, is_passages }))
}

impl HeldOutShare {
    /// Formats the share as "held out: 2 documents, 1.9 % of the tokens"; `None` if nothing is held out.
    pub fn describe(&self) -> Option<String> {
        let Self { documents, share, is_passages, .. } = self;
        let what = match (is_passages, documents) {
            (_, 0) => return None,
            (false, 1) => "1 document".into(),
            (false, _) => format!("{documents} documents"),
            (true, 1) => "a passage of the document".into(),
            (true, _) => format!("a passage of each of {documents} long documents"),
        };
        Some(format!("held out: {what}, {:.1} % of the tokens", 100.0 * share))
    }
}

/// The frequency baseline: the mean cross-entropy, in nats, of predicting the masked tokens of `held_out` only by their
/// frequency in the training documents (with one added to every count). A model that uses context achieves less. `None`
/// if there are no masked tokens.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn unigram_loss(
    store: &Store,
    split: Split,
    held_out: &[PretrainingExample],
    vocab_size: usize,
) -> Result<Option<f64>> {
    let masked: Vec<u32> = held_out.iter().flat_map(|example| &example.masked).map(|token| token.id).collect();
    if masked.is_empty() {
        return Ok(None);
    }
    let reader = store.reader()?;
    let (mut counts, mut total) = (vec![1_u64; vocab_size], 0);
    for index in 0..split.len(Subset::Training) {
        if total >= COUNTED_TOKENS {
            break;
        }
        for &id in reader.document(split.document(Subset::Training, index))?.iter().flatten() {
            counts[id as usize] += 1;
            total += 1;
        }
    }
    let all = (total + vocab_size) as f64;
    let loss = |id: &u32| -(counts[*id as usize] as f64 / all).ln();
    Ok(Some(masked.iter().map(loss).sum::<f64>() / masked.len() as f64))
}
