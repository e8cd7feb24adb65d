//! Metrics of predicted numbers: the correlations that STS-B is scored by, as SciPy computes them, and mean errors.

use serde::Serialize;

/// How near predicted numbers are to the true ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regression {
    /// Linear correlation, −1 to 1. `None` with fewer than two examples, or where the labels or the predictions are all
    /// equal: SciPy answers NaN there, and JSON has no NaN.
    pub pearson: Option<f64>,
    /// Pearson's correlation of the ranks, equal values sharing the mean of their ranks; −1 to 1, `None` as above.
    pub spearman: Option<f64>,
    /// Mean squared error, from 0; in squared units of the label.
    pub mse: f64,
    /// Mean absolute error, from 0; in units of the label.
    pub mae: f64,
    pub examples: u64,
}

/// Compares predictions with labels, pair by pair.
pub fn regression(gold: &[f64], predicted: &[f64]) -> Regression {
    debug_assert_eq!(gold.len(), predicted.len());
    let errors = || gold.iter().zip(predicted).map(|(gold, predicted)| predicted - gold);
    let count = gold.len().max(1) as f64;
    Regression {
        pearson: pearson(gold, predicted),
        spearman: spearman(gold, predicted),
        mse: errors().map(|error| error * error).sum::<f64>() / count,
        mae: errors().map(f64::abs).sum::<f64>() / count,
        examples: gold.len() as u64,
    }
}

/// Pearson's linear correlation.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() < 2 || is_constant(x) || is_constant(y) {
        return None;
    }
    let (x, y) = (centered(x), centered(y));
    let product: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding may pass 1 by an ulp. What is not finite is no correlation.
    let correlation = product / (norm(&x) * norm(&y));
    correlation.is_finite().then(|| correlation.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    let comparable = x.iter().chain(y).all(|value| !value.is_nan());
    if comparable { pearson(&average_ranks(x), &average_ranks(y)) } else { None }
}

/// Ranks from 1; equal values share the mean of theirs.
fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (ties.len() as f64 + 1.0) / 2.0;
        ties.iter().for_each(|&index| ranks[index] = rank);
        first += ties.len();
    }
    ranks
}

fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

fn centered(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| value - mean).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::{super::golden, *};

    #[test]
    fn as_scipy() {
        for case in golden::cases("regression") {
            let gold: Vec<f64> = golden::field(&case, "gold");
            let predicted: Vec<f64> = golden::field(&case, "predicted");
            golden::assert_scores(&case["scores"], &serde_json::to_value(regression(&gold, &predicted)).unwrap());
        }
    }

    #[test]
    fn no_correlation_of_what_is_not_finite() {
        let scores = regression(&[1.0, 2.0, 3.0], &[1.0, f64::NAN, 3.0]);
        assert_eq!((scores.pearson, scores.spearman), (None, None));
    }
}
