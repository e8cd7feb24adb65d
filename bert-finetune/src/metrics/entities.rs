//! Entity-level scores, the metric of CoNLL-2003: an entity is correct if its first word, last word
//! and type are.
//!
//! Counts as CoNLL's `conlleval` script (Tjong Kim Sang, 2000) and seqeval's default mode, which
//! agree. Plain tags are counted like `conlleval -r`, each word being an entity; if none is `O`, F1
//! is the accuracy.

use std::collections::{BTreeMap, HashSet};

use bert_model::pipeline::tags::{EntitySpan, TagScheme, entities};
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
    /// Number of sentences.
    pub examples: u64,
}

/// Compares predicted with true tags of each sentence; both are read in the same scheme.
pub fn entity_scores(gold: &[Vec<String>], predicted: &[Vec<String>], scheme: TagScheme) -> EntityScores {
    debug_assert_eq!(gold.len(), predicted.len());
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for (gold, predicted) in gold.iter().zip(predicted) {
        let gold: HashSet<EntitySpan> = entities(gold, scheme).into_iter().collect();
        for entity in entities(predicted, scheme) {
            let right = gold.contains(&entity);
            let count = counts.entry(entity.kind).or_default();
            count.predicted += 1;
            count.right += u64::from(right);
        }
        gold.into_iter().for_each(|entity| counts.entry(entity.kind).or_default().gold += 1);
    }
    from_counts(&counts, word_accuracy(gold, predicted), gold.len() as u64)
}

/// Numbers of correct, predicted and true entities of a type.
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

fn from_counts(counts: &BTreeMap<String, Counts>, accuracy: f64, examples: u64) -> EntityScores {
    let sum = |part: fn(&Counts) -> u64| counts.values().map(part).sum();
    let micro = Counts { right: sum(|c| c.right), predicted: sum(|c| c.predicted), gold: sum(|c| c.gold) }.scores();
    let per_type: BTreeMap<String, ClassScores> = counts.iter().map(|(kind, c)| (kind.clone(), c.scores())).collect();
    let weighted: f64 = per_type.values().map(|scores| scores.f1 * scores.support as f64).sum();
    EntityScores {
        precision: micro.precision,
        recall: micro.recall,
        f1: micro.f1,
        macro_f1: per_type.values().map(|scores| scores.f1).sum::<f64>() / per_type.len().max(1) as f64,
        weighted_f1: weighted / micro.support.max(1) as f64,
        accuracy,
        per_type,
        examples,
    }
}

fn word_accuracy(gold: &[Vec<String>], predicted: &[Vec<String>]) -> f64 {
    let pairs = || gold.iter().flatten().zip(predicted.iter().flatten());
    ratio(pairs().filter(|(gold, predicted)| gold == predicted).count() as u64, pairs().count() as u64)
}

#[cfg(test)]
mod tests {
    use super::{super::golden, *};

    #[test]
    fn as_seqeval_and_conlleval() {
        for case in golden::cases("entities") {
            let gold: Vec<Vec<String>> = golden::field(&case, "gold");
            let predicted: Vec<Vec<String>> = golden::field(&case, "predicted");
            let scores = entity_scores(&gold, &predicted, golden::field(&case, "scheme"));
            golden::assert_scores(&case["scores"], &serde_json::to_value(scores).unwrap());
        }
    }
}
