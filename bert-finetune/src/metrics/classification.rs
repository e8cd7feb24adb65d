//! Metrics of single-label classification, as in scikit-learn (with `zero_division=0`: an undefined
//! ratio is 0).
//!
//! All follow from the confusion matrix. With TP, FP and FN of a class: precision = TP / (TP + FP),
//! recall = TP / (TP + FN), F1 = their harmonic mean. MCC, CoLA's metric, is Matthews' correlation
//! in Gorodkin's form for any number of classes (*Comparing two K-category assignments by a
//! K-category correlation coefficient*, 2004).

use serde::Serialize;

/// All metrics of single-label classification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classification {
    /// Fraction of correct predictions, 0 to 1.
    pub accuracy: f64,
    /// With two classes the precision of class 1, the positive one; with more, the unweighted mean
    /// over classes (macro), 0 to 1.
    pub precision: f64,
    /// Recall of class 1, or the unweighted mean over classes, 0 to 1.
    pub recall: f64,
    /// F1 of class 1, or the unweighted mean over classes (`macro_f1`), 0 to 1.
    pub f1: f64,
    /// Unweighted mean of the classes' F1, 0 to 1. As in scikit-learn, only classes that occur
    /// among labels or predictions count.
    pub macro_f1: f64,
    /// F1 of the summed counts, 0 to 1; equals the accuracy, since each example has one class.
    pub micro_f1: f64,
    /// Mean of the classes' F1 weighted by their support, 0 to 1.
    pub weighted_f1: f64,
    /// Matthews correlation coefficient, −1 to 1; 0 if all labels or all predictions are of one
    /// class.
    pub mcc: f64,
    /// Scores of each class in index order, including absent classes.
    pub per_class: Vec<ClassScores>,
    /// Confusion matrix, counts `confusion[gold][predicted]`.
    pub confusion: Vec<Vec<u64>>,
    /// Number of examples.
    pub examples: u64,
}

/// The scores of one class, 0 to 1, and its support: the number of examples labeled with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ClassScores {
    /// TP / (TP + FP), 0 to 1.
    pub precision: f64,
    /// TP / (TP + FN), 0 to 1.
    pub recall: f64,
    /// Harmonic mean of precision and recall, 0 to 1.
    pub f1: f64,
    /// Number of examples labeled with the class.
    pub support: u64,
}

impl ClassScores {
    /// Computes scores from the numbers of correct predictions, of predictions and of labels.
    pub fn from_counts(right: u64, predicted: u64, gold: u64) -> Self {
        Self {
            precision: ratio(right, predicted),
            recall: ratio(right, gold),
            f1: ratio(2 * right, predicted + gold),
            support: gold,
        }
    }
}

/// Compares predicted with true class indices; `classes` is the number of classes.
pub fn classification(gold: &[usize], predicted: &[usize], classes: usize) -> Classification {
    from_confusion(confusion_matrix(gold, predicted, classes))
}

/// Counts `matrix[gold][predicted]`. An index of `classes` or more enlarges the matrix.
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

/// The marginal sums of a confusion matrix.
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

    /// Matthews correlation: the covariance over the root of the product of variances, all times
    /// examples².
    fn mcc(&self) -> f64 {
        let dot = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
        let square = (self.examples as f64).powi(2);
        let covariance = self.right as f64 * self.examples as f64 - dot(&self.gold, &self.predicted);
        let variances = (square - dot(&self.gold, &self.gold)) * (square - dot(&self.predicted, &self.predicted));
        if variances == 0.0 { 0.0 } else { covariance / variances.sqrt() }
    }
}

/// The ratio `part / whole`, or 0 if `whole` is 0.
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
