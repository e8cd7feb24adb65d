//! Metrics of multi-label classification, as in scikit-learn on indicator matrices
//! (`zero_division=0`).

use serde::Serialize;

use super::classification::{ClassScores, ratio};

/// Scores of predicted label sets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MultiLabel {
    /// Subset accuracy: the fraction of examples with all labels correct, 0 to 1.
    pub accuracy: f64,
    /// Precision over all labels together (micro), 0 to 1.
    pub precision: f64,
    /// Recall over all labels together (micro), 0 to 1.
    pub recall: f64,
    /// F1 over all labels together (micro), 0 to 1.
    pub f1: f64,
    /// The same as `f1`, under its explicit name.
    pub micro_f1: f64,
    /// Unweighted mean of the labels' F1, 0 to 1; labels that never occur count as 0.
    pub macro_f1: f64,
    /// Mean of the labels' F1 weighted by their support, 0 to 1.
    pub weighted_f1: f64,
    /// Scores of each label, in label order.
    pub per_label: Vec<ClassScores>,
    /// Number of examples.
    pub examples: u64,
}

/// Compares rows of indicators, one for each of `labels` labels.
pub fn multi_label(gold: &[Vec<bool>], predicted: &[Vec<bool>], labels: usize) -> MultiLabel {
    debug_assert_eq!(gold.len(), predicted.len());
    let per_label: Vec<ClassScores> = (0..labels).map(|label| Tally::of(gold, predicted, label).scores()).collect();
    let total = (0..labels).map(|label| Tally::of(gold, predicted, label)).fold(Tally::default(), Tally::plus).scores();
    let exact = gold.iter().zip(predicted).filter(|(gold, predicted)| gold == predicted).count();
    let weighted: f64 = per_label.iter().map(|label| label.f1 * label.support as f64).sum();
    MultiLabel {
        accuracy: ratio(exact as u64, gold.len() as u64),
        precision: total.precision,
        recall: total.recall,
        f1: total.f1,
        micro_f1: total.f1,
        macro_f1: per_label.iter().map(|label| label.f1).sum::<f64>() / labels.max(1) as f64,
        weighted_f1: weighted / total.support.max(1) as f64,
        per_label,
        examples: gold.len() as u64,
    }
}

/// Numbers of examples with a label correctly predicted, predicted, and true.
#[derive(Clone, Copy, Default)]
struct Tally {
    right: u64,
    predicted: u64,
    gold: u64,
}

impl Tally {
    fn of(gold: &[Vec<bool>], predicted: &[Vec<bool>], label: usize) -> Self {
        gold.iter().zip(predicted).fold(Self::default(), |tally, (gold, predicted)| {
            let (gold, predicted) = (gold[label], predicted[label]);
            tally.plus(Self { right: (gold && predicted).into(), predicted: predicted.into(), gold: gold.into() })
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            right: self.right + other.right,
            predicted: self.predicted + other.predicted,
            gold: self.gold + other.gold,
        }
    }

    fn scores(self) -> ClassScores {
        ClassScores::from_counts(self.right, self.predicted, self.gold)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::golden, *};

    #[test]
    fn as_scikit_learn() {
        for case in golden::cases("multi_label") {
            let gold: Vec<Vec<bool>> = golden::field(&case, "gold");
            let predicted: Vec<Vec<bool>> = golden::field(&case, "predicted");
            let scores = multi_label(&gold, &predicted, golden::field(&case, "labels"));
            golden::assert_scores(&case["scores"], &serde_json::to_value(scores).unwrap());
        }
    }
}
