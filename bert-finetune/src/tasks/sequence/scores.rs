//! Metrics and mistakes of classification, multi-label classification and regression.

use bert_model::ProblemType;
use bert_model::pipeline::argmax;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{SequenceExample, class_of, flags_of, value_of};
use crate::metrics::classification::classification;
use crate::metrics::multi_label::multi_label;
use crate::metrics::regression::regression;
use crate::report::{Mistake, worst};

/// A labeled example, and the scores of all labels.
pub(super) type Scored<'a> = (&'a SequenceExample, &'a [f32]);

/// The metrics of a problem type, including the mean loss.
pub(super) fn metrics(problem: ProblemType, labels: &[String], scored: &[Scored]) -> Map<String, Value> {
    let count = scored.len() as f64;
    match problem {
        ProblemType::SingleLabelClassification => {
            let gold: Vec<usize> = scored.iter().map(|(example, _)| class_of(&example.target)).collect();
            let predicted: Vec<usize> = scored.iter().map(|(_, scores)| argmax(scores)).collect();
            let cost = |(&gold, (_, scores)): (&usize, &Scored)| -f64::from(scores[gold].max(1e-30)).ln();
            let loss: f64 = gold.iter().zip(scored).map(cost).sum();
            with_loss(classification(&gold, &predicted, labels.len()), loss / count)
        }
        ProblemType::MultiLabelClassification => {
            let gold: Vec<Vec<bool>> = scored.iter().map(|(example, _)| flags_of(&example.target)).collect();
            let predicted: Vec<Vec<bool>> = scored.iter().map(|(_, scores)| chosen(scores)).collect();
            // A probability that was rounded to 1 was at least that near to it.
            let rest = |p: f32| (1.0 - p).max(f32::EPSILON / 4.0);
            let cost = |(&is_gold, &p): (&bool, &f32)| -f64::from(if is_gold { p.max(1e-30) } else { rest(p) }).ln();
            let losses = gold.iter().zip(scored).flat_map(|(gold, (_, scores))| gold.iter().zip(*scores).map(cost));
            let loss = losses.sum::<f64>() / (count * labels.len() as f64);
            with_loss(multi_label(&gold, &predicted, labels.len()), loss)
        }
        ProblemType::Regression => {
            let gold: Vec<f64> = scored.iter().map(|(example, _)| value_of(&example.target)).collect();
            let predicted: Vec<f64> = scored.iter().map(|(_, scores)| f64::from(scores[0])).collect();
            let metrics = regression(&gold, &predicted);
            with_loss(&metrics, metrics.mse)
        }
    }
}

/// The worst mistakes, worst first.
pub(super) fn mistakes(problem: ProblemType, labels: &[String], scored: &[Scored]) -> Vec<Mistake> {
    let mistake = |(example, scores): &Scored| {
        let (expected, predicted, weight, probability) = match problem {
            ProblemType::SingleLabelClassification => {
                let (gold, found) = (class_of(&example.target), argmax(scores));
                let probability = f64::from(scores[found]);
                (labels[gold].clone(), labels[found].clone(), probability, Some(probability))
            }
            ProblemType::MultiLabelClassification => {
                let gold = flags_of(&example.target);
                let off = |(&gold, &p): (&bool, &f32)| f64::from((f32::from(u8::from(gold)) - p).abs());
                let weight = gold.iter().zip(*scores).map(off).fold(0.0, f64::max);
                (named(labels, &gold), named(labels, &chosen(scores)), weight, None)
            }
            ProblemType::Regression => {
                let (gold, found) = (value_of(&example.target), f64::from(scores[0]));
                (format!("{gold:.2}"), format!("{found:.2}"), (gold - found).abs(), None)
            }
        };
        let parts = example.pair.iter().map(|pair| ("second text".to_string(), pair.clone())).collect();
        let text = example.text.clone();
        (expected != predicted).then_some((weight, Mistake::Label { text, parts, expected, predicted, probability }))
    };
    worst(scored.iter().filter_map(mistake).collect())
}

/// Whether each label of a multi-label problem is predicted.
fn chosen(scores: &[f32]) -> Vec<bool> {
    scores.iter().map(|&probability| probability > 0.5).collect()
}

/// The names of the labels whose flags are set.
fn named(labels: &[String], flags: &[bool]) -> String {
    let names: Vec<&str> = labels.iter().zip(flags).filter(|(_, flag)| **flag).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// Serializes metrics and adds the loss.
fn with_loss(metrics: impl Serialize, loss: f64) -> Map<String, Value> {
    let mut metrics = json!(metrics);
    metrics["loss"] = loss.into();
    metrics.as_object().cloned().unwrap_or_default()
}
