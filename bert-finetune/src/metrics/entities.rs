//! Entity-level scores, the metric of CoNLL-2003: an entity is correct if its first word, last word and type are.
//!
//! Counts entities like CoNLL's `conlleval` script (Tjong Kim Sang, 2000) and seqeval's default mode, which agree, and
//! like seqeval's strict mode. Tags that do not mark entities, such as parts of speech, are counted like
//! `conlleval -r`: each word is an entity, so F1 equals the accuracy.

use std::collections::{BTreeMap, HashSet};

use bert_model::pipeline::tags::{EntitySpan, TagReader, TagScheme};
use serde::Serialize;

use super::classification::{ClassScores, ratio};

/// Scores of predicted entities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityScores {
    /// Precision over all types (micro), 0 to 1; 0 if there is nothing to count.
    pub precision: f64,
    /// Recall over all types (micro), 0 to 1.
    pub recall: f64,
    /// F1 over all types (micro), 0 to 1.
    pub f1: f64,
    /// Unweighted mean of the types' F1, 0 to 1, over types among labels or predictions.
    pub macro_f1: f64,
    /// Mean of the types' F1 weighted by their support, 0 to 1.
    pub weighted_f1: f64,
    /// Fraction of words with the correct tag, including `O`, 0 to 1.
    pub accuracy: f64,
    /// Scores of each type.
    pub per_type: BTreeMap<String, ClassScores>,
    /// The same scores, restricted to entities whose tags strictly follow the scheme; `None` for plain tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<StrictScores>,
    /// Number of sentences.
    pub examples: u64,
}

/// Scores in seqeval's strict mode, over all types (micro).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StrictScores {
    /// Precision, 0 to 1.
    pub precision: f64,
    /// Recall, 0 to 1.
    pub recall: f64,
    /// F1, 0 to 1.
    pub f1: f64,
}

/// Compares predicted with true tags of each sentence, both parsed by `reader`.
pub fn entity_scores<S: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<S>], reader: &TagReader) -> EntityScores {
    let counts = match reader.marks_entities() {
        true => count(gold, predicted, |tags| reader.entities(tags)),
        false => count(gold, predicted, words),
    };
    let strict = (reader.scheme() != TagScheme::Plain).then(|| {
        let counts = count(gold, predicted, |tags| reader.strict_entities(tags));
        let ClassScores { precision, recall, f1, .. } = micro(&counts);
        StrictScores { precision, recall, f1 }
    });
    let scores = from_counts(&counts, word_accuracy(gold, predicted), gold.len() as u64);
    EntityScores { strict, ..scores }
}

/// Treats each word as an entity whose type is its tag.
fn words<S: AsRef<str>>(tags: &[S]) -> Vec<EntitySpan<'_>> {
    tags.iter().enumerate().map(|(index, tag)| EntitySpan::new(tag.as_ref(), index, index + 1)).collect()
}

/// Counts the entities of each type.
fn count<'a, S>(
    gold: &'a [Vec<S>],
    predicted: &'a [Vec<S>],
    read: impl Fn(&'a [S]) -> Vec<EntitySpan<'a>>,
) -> BTreeMap<&'a str, Counts> {
    debug_assert_eq!(gold.len(), predicted.len());
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for (gold, predicted) in gold.iter().zip(predicted) {
        let gold: HashSet<EntitySpan> = read(gold).into_iter().collect();
        for entity in read(predicted) {
            let right = gold.contains(&entity);
            let count = counts.entry(entity.kind).or_default();
            count.predicted += 1;
            count.right += u64::from(right);
        }
        gold.into_iter().for_each(|entity| counts.entry(entity.kind).or_default().gold += 1);
    }
    counts
}

/// The numbers of correct, predicted and true entities of a type.
#[derive(Clone, Copy, Default)]
struct Counts {
    right: u64,
    predicted: u64,
    gold: u64,
}

impl Counts {
    fn scores(&self) -> ClassScores {
        ClassScores::from_counts(self.right, self.predicted, self.gold)
    }
}

/// The micro-averaged scores over all types.
fn micro(counts: &BTreeMap<&str, Counts>) -> ClassScores {
    let sum = |part: fn(&Counts) -> u64| counts.values().map(part).sum();
    Counts { right: sum(|c| c.right), predicted: sum(|c| c.predicted), gold: sum(|c| c.gold) }.scores()
}

fn from_counts(counts: &BTreeMap<&str, Counts>, accuracy: f64, examples: u64) -> EntityScores {
    let micro = micro(counts);
    let per_type: BTreeMap<String, ClassScores> =
        counts.iter().map(|(kind, c)| (kind.to_string(), c.scores())).collect();
    let weighted: f64 = per_type.values().map(|scores| scores.f1 * scores.support as f64).sum();
    EntityScores {
        precision: micro.precision,
        recall: micro.recall,
        f1: micro.f1,
        macro_f1: per_type.values().map(|scores| scores.f1).sum::<f64>() / per_type.len().max(1) as f64,
        weighted_f1: weighted / micro.support.max(1) as f64,
        accuracy,
        per_type,
        strict: None,
        examples,
    }
}

fn word_accuracy<S: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<S>]) -> f64 {
    let pairs = || gold.iter().flatten().zip(predicted.iter().flatten());
    ratio(
        pairs().filter(|(gold, predicted)| gold.as_ref() == predicted.as_ref()).count() as u64,
        pairs().count() as u64,
    )
}

#[cfg(test)]
mod tests {
    use super::{super::golden, *};

    #[test]
    fn as_seqeval_and_conlleval() {
        for case in golden::cases("entities") {
            let gold: Vec<Vec<String>> = golden::field(&case, "gold");
            let predicted: Vec<Vec<String>> = golden::field(&case, "predicted");
            let tags: Vec<&String> = gold.iter().chain(&predicted).flatten().collect();
            let reader = TagReader::of_labels(tags).with_scheme(golden::field(&case, "scheme"));
            let scores = entity_scores(&gold, &predicted, &reader);
            golden::assert_scores(&case["scores"], &serde_json::to_value(scores).unwrap());
        }
    }

    /// Reported bug: BMES, tags with the letter last or with `_`, and plain tags were not read like in seqeval, and the
    /// accuracy of IOB2 with a stray `I` differed.
    #[test]
    fn every_scheme_in_every_notation_as_seqeval() {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/tags.json")))
                .unwrap();
        for case in cases {
            let gold: Vec<Vec<String>> = golden::field(&case, "gold");
            let predicted: Vec<Vec<String>> = golden::field(&case, "predicted");
            let scheme: TagScheme = golden::field(&case, "scheme");
            let reader = TagReader::of_labels(gold.iter().chain(&predicted).flatten());
            let found = match reader.scheme() {
                TagScheme::Iob2 if scheme == TagScheme::Iob1 => scheme,
                TagScheme::Ioe2 if scheme == TagScheme::Ioe1 => scheme,
                found => found,
            };
            assert_eq!((found, reader.warnings()), (scheme, vec![]), "{case}");
            let scores = entity_scores(&gold, &predicted, &reader.with_scheme(scheme));
            golden::assert_scores(&case["scores"], &serde_json::to_value(scores).unwrap());
        }
    }
}
