//! Metrics of one class out of many, as scikit-learn computes them (`zero_division=0`: a ratio without cases is 0).
//!
//! All follow from the confusion matrix. With TP, FP and FN of a class: precision = TP / (TP + FP), recall =
//! TP / (TP + FN), F1 = their harmonic mean. MCC, the metric of CoLA, is Matthews' correlation in Gorodkin's form for
//! any number of classes (*Comparing two K-category assignments by a K-category correlation coefficient*, 2004).

use serde::Serialize;

/// What a confusion matrix says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classification {
    /// Share of right predictions, 0 to 1.
    pub accuracy: f64,
    /// Two classes: that of class 1, the positive one; more: the mean over the classes (macro). Likewise the next two.
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Unweighted mean of the classes' F1, 0 to 1. As in scikit-learn, a class counts if it occurs among the labels or
    /// the predictions.
    pub macro_f1: f64,
    /// F1 of the summed counts, 0 to 1; with one class per example it equals the accuracy.
    pub micro_f1: f64,
    /// Mean of the classes' F1 weighted by their support, 0 to 1.
    pub weighted_f1: f64,
    /// Matthews' correlation, −1 to 1; 0 if labels or predictions are all of one class.
    pub mcc: f64,
    /// In the order of the class indices, absent classes too.
    pub per_class: Vec<ClassScores>,
    /// `confusion[gold][predicted]` counts.
    pub confusion: Vec<Vec<u64>>,
    pub examples: u64,
}

/// The scores of one class, 0 to 1, and how many examples have it as their label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ClassScores {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    pub support: u64,
}

impl ClassScores {
    /// From the numbers of right predictions, of predictions and of labels.
    pub fn from_counts(right: u64, predicted: u64, gold: u64) -> Self {
        Self {
            precision: ratio(right, predicted),
            recall: ratio(right, gold),
            f1: ratio(2 * right, predicted + gold),
            support: gold,
        }
    }
}

/// Compares class indices with each other; `classes` is their number.
pub fn classification(gold: &[usize], predicted: &[usize], classes: usize) -> Classification {
    from_confusion(confusion_matrix(gold, predicted, classes))
}

/// Counts `matrix[gold][predicted]`. An index beyond `classes` makes the matrix larger.
pub fn confusion_matrix(gold: &[usize], predicted: &[usize], classes: usize) -> Vec<Vec<u64>> {
    debug_assert_eq!(gold.len(), predicted.len());
    let classes = gold.iter().chain(predicted).map(|class| class + 1).max().unwrap_or_default().max(classes);
    let mut matrix = vec![vec![0; classes]; classes];
    for (&gold, &predicted) in gold.iter().zip(predicted) {
        matrix[gold][predicted] += 1;
    }
    matrix
}

fn from_confusion(confusion: Vec<Vec<u64>>) -> Classification {
    let counts = Counts::new(&confusion);
    let per_class: Vec<ClassScores> = (0..confusion.len())
        .map(|class| ClassScores::from_counts(confusion[class][class], counts.predicted[class], counts.gold[class]))
        .collect();
    let present: Vec<ClassScores> = (0..confusion.len())
        .filter(|&class| counts.gold[class] + counts.predicted[class] > 0)
        .map(|class| per_class[class])
        .collect();
    let macro_average = |score: fn(&ClassScores) -> f64| mean(present.iter().map(score), present.len());
    let macro_f1 = macro_average(|class| class.f1);
    let (precision, recall, f1) = match per_class[..] {
        [_, positive] => (positive.precision, positive.recall, positive.f1),
        _ => (macro_average(|class| class.precision), macro_average(|class| class.recall), macro_f1),
    };
    let accuracy = ratio(counts.right, counts.examples);
    let weighted = per_class.iter().map(|class| class.f1 * class.support as f64);
    Classification {
        accuracy,
        precision,
        recall,
        f1,
        macro_f1,
        micro_f1: accuracy,
        weighted_f1: mean(weighted, counts.examples as usize),
        mcc: counts.mcc(),
        per_class,
        confusion,
        examples: counts.examples,
    }
}

/// The sums of a confusion matrix.
struct Counts {
    gold: Vec<u64>,
    predicted: Vec<u64>,
    right: u64,
    examples: u64,
}

impl Counts {
    fn new(confusion: &[Vec<u64>]) -> Self {
        let gold: Vec<u64> = confusion.iter().map(|row| row.iter().sum()).collect();
        let predicted = (0..confusion.len()).map(|class| confusion.iter().map(|row| row[class]).sum()).collect();
        let right = (0..confusion.len()).map(|class| confusion[class][class]).sum();
        let examples = gold.iter().sum();
        Self { gold, predicted, right, examples }
    }

    /// The correlation of two assignments: their covariance over the root of their variances, all times examples².
    fn mcc(&self) -> f64 {
        let dot = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
        let square = (self.examples as f64).powi(2);
        let covariance = self.right as f64 * self.examples as f64 - dot(&self.gold, &self.predicted);
        let variances = (square - dot(&self.gold, &self.gold)) * (square - dot(&self.predicted, &self.predicted));
        if variances == 0.0 { 0.0 } else { covariance / variances.sqrt() }
    }
}

/// A share, or 0 of nothing.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    if count == 0 { 0.0 } else { values.sum::<f64>() / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::{super::golden, *};

    #[test]
    fn as_scikit_learn() {
        for case in golden::cases("classification") {
            let gold: Vec<usize> = golden::field(&case, "gold");
            let predicted: Vec<usize> = golden::field(&case, "predicted");
            let scores = classification(&gold, &predicted, golden::field(&case, "classes"));
            golden::assert_scores(&case["scores"], &serde_json::to_value(scores).unwrap());
        }
    }

    #[test]
    fn nothing_to_compare() {
        let scores = classification(&[], &[], 2);
        assert_eq!((scores.accuracy, scores.macro_f1, scores.mcc, scores.examples), (0.0, 0.0, 0.0, 0));
    }
}
