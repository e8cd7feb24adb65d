//! Entity scores, the metric of CoNLL-2003: an entity is right if its first word, its last word and its type are.
//!
//! The counts are those of CoNLL's `conlleval` script (Tjong Kim Sang, 2000) and of seqeval's default mode, which
//! agree. Plain tags are counted as `conlleval -r` does, each word being an entity: without `O` among them, F1 is the
//! accuracy.

use std::collections::{BTreeMap, HashSet};

use bert_model::pipeline::tags::{EntitySpan, TagScheme, entities};
use serde::Serialize;

use super::classification::{ClassScores, ratio};

/// How well entities were found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityScores {
    /// Of all types together (micro), 0 to 1; 0 if there is nothing to count. Likewise recall and F1.
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Unweighted mean of the types' F1, 0 to 1. A type counts if it is among the labels or the predictions.
    pub macro_f1: f64,
    /// Mean of the types' F1 weighted by their support, 0 to 1.
    pub weighted_f1: f64,
    /// Share of words with the right tag, `O` included, 0 to 1.
    pub accuracy: f64,
    pub per_type: BTreeMap<String, ClassScores>,
    /// Sentences.
    pub examples: u64,
}

/// Compares the tags of sentences, word by word. Labels and predictions are read in the same scheme.
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

/// How many entities of a type are predicted, are there, and are predicted rightly.
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
