//! Decides which of two evaluations is better: of the epochs of a run, and of the runs with several seeds.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Compares two evaluations by a metric for which higher is better; `Greater` means that the first one is better.
///
/// An undefined metric (for instance, the correlation of constants) is worse than any value. Ties are broken by the
/// lower held-out loss, because a small held-out set has few distinct accuracies.
pub(super) fn compare(metric: &str, first: &Map<String, Value>, second: &Map<String, Value>) -> Ordering {
    let value = |metrics: &Map<String, Value>| number(metrics, metric).unwrap_or(f64::NEG_INFINITY);
    let loss = |metrics: &Map<String, Value>| number(metrics, "loss").unwrap_or(f64::INFINITY);
    value(first).total_cmp(&value(second)).then(loss(second).total_cmp(&loss(first)))
}

/// Whether the metric has a value in an evaluation.
pub(super) fn is_defined(metric: &str, metrics: &Map<String, Value>) -> bool {
    number(metrics, metric).is_some()
}

fn number(metrics: &Map<String, Value>, name: &str) -> Option<f64> {
    metrics.get(name).and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Reported bug: with an undefined correlation the first epoch was kept, and a demonstration kept an epoch with the
    /// same accuracy and a higher loss.
    #[test]
    fn ties_and_undefined_metrics_go_to_the_lower_loss() {
        for (first, second, expected) in [
            (json!({"f1": 0.9, "loss": 2.0}), json!({"f1": 0.8, "loss": 1.0}), Ordering::Greater),
            (json!({"f1": 0.9, "loss": 2.0}), json!({"f1": 0.9, "loss": 1.0}), Ordering::Less),
            (json!({"f1": 0.9, "loss": 1.0}), json!({"f1": 0.9, "loss": 1.0}), Ordering::Equal),
            (json!({"f1": null, "loss": 1.0}), json!({"f1": null, "loss": 2.0}), Ordering::Greater),
            (json!({"f1": null, "loss": 1.0}), json!({"f1": -0.5, "loss": 2.0}), Ordering::Less),
            (json!({"f1": 0.9}), json!({"f1": 0.9, "loss": 2.0}), Ordering::Less),
            (json!({"f1": 0.9, "loss": null}), json!({"f1": 0.9, "loss": 2.0}), Ordering::Less),
        ] {
            let found = compare("f1", first.as_object().unwrap(), second.as_object().unwrap());
            assert_eq!(found, expected, "{first} {second}");
        }
    }
}
