//! Human-readable output: metrics, next steps, short answers.

use std::path::Path;

use bert_cli::program::print_line;
use bert_model::Result;
use serde_json::{Map, Value};

use crate::description::Description;
use crate::model_directory::config_of;

/// Prints the final metrics of a run on stderr. `labels` are the class names in index order; empty if there are none.
pub fn print_table(summary: &Value, labels: &[String]) {
    let mut rows = vec![("best epoch".to_string(), summary["best_epoch"].to_string())];
    for part in ["eval", "test"] {
        let metrics = summary[part].as_object().cloned().unwrap_or_default();
        rows.extend(metric_rows(&metrics, labels).into_iter().map(|(name, value)| (format!("{part} {name}"), value)));
    }
    for (name, mean) in summary["mean"]["eval"].as_object().into_iter().flatten() {
        let spread = &summary["spread"]["eval"][name];
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        rows.push((format!("mean {name}"), format!("{:.4} ± {:.4}", number(mean), number(spread))));
    }
    rows.push(("seconds".into(), format!("{:.0}", summary["seconds"].as_f64().unwrap_or(f64::NAN))));
    rows.push(("model".into(), summary["model"].as_str().unwrap_or_default().into()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        eprintln!("{name:width$} {value}");
    }
}

/// Prints metrics on stdout, one per line. `labels` are the class names in index order; empty if there are none.
///
/// # Errors
/// If standard output cannot be written.
pub fn print_metrics(metrics: &Map<String, Value>, labels: &[String]) -> Result<()> {
    for (name, value) in metric_rows(metrics, labels) {
        print_line(format_args!("{name:12} {value}"))?;
    }
    Ok(())
}

/// The metrics that are single numbers, formatted for display.
fn metric_rows(metrics: &Map<String, Value>, labels: &[String]) -> Vec<(String, String)> {
    let row = |(name, value): (&String, &Value)| {
        let text = if value.is_u64() { value.to_string() } else { format!("{:.4}", value.as_f64()?) };
        Some((metric_name(name, metrics, labels), text))
    };
    metrics.iter().filter_map(row).collect()
}

/// The display name of a metric. With two classes, precision, recall and F1 are those of the second class, which the
/// name includes.
pub fn metric_name(name: &str, metrics: &Map<String, Value>, labels: &[String]) -> String {
    let classes = metrics.get("per_class").and_then(Value::as_array).map_or(0, Vec::len);
    match labels {
        [_, positive] if classes == 2 && ["precision", "recall", "f1"].contains(&name) => {
            format!("{name} of {positive}")
        }
        _ => name.replace('_', " "),
    }
}

/// Prints a hint on stderr if there are classes that the model never predicted correctly.
pub fn hint_never_found(metrics: &Value, labels: &[String]) {
    let classes = never_found(metrics, labels);
    if !classes.is_empty() {
        let advice = "more examples or epochs may help, and for classes and tags also --class-weights balanced";
        eprintln!("hint: never predicted correctly: {}; {advice}", classes.join(", "));
    }
}

/// The classes (labels or entity types) that have examples but a recall of 0.
fn never_found(metrics: &Value, labels: &[String]) -> Vec<String> {
    let by_number = ["per_class", "per_label"].iter().filter_map(|part| metrics[part].as_array()).flatten().enumerate();
    let by_number = by_number.filter_map(|(index, scores)| Some((labels.get(index)?, scores)));
    let by_name = metrics["per_type"].as_object().into_iter().flatten();
    let missed = |(name, scores): (&String, &Value)| {
        let support = scores["support"].as_u64().filter(|&support| support > 0)?;
        (scores["recall"].as_f64() == Some(0.0)).then(|| format!("{name} ({support} examples)"))
    };
    by_number.chain(by_name).filter_map(missed).collect()
}

/// The class names of a model directory in index order; empty if its head has no classes.
pub fn class_names(model: &Path) -> Vec<String> {
    config_of(model).ok().and_then(|config| config.labels().ok().flatten()).unwrap_or_default()
}

/// Prints on stderr which commands to run next with a trained model.
pub fn print_next_steps(model: &Path, description: &Description) {
    let options = description.task.options;
    let (command, asked) = match (options.contains(&"question"), options.contains(&"choice")) {
        (true, _) => ("predict", "--question \"QUESTION\" --context \"TEXT\""),
        (false, true) => ("predict", "\"TEXT\" --choice \"ONE\" --choice \"OTHER\""),
        _ if options.contains(&"scale") => ("similarity", "\"TEXT\" \"TEXT\""),
        _ if description.text_pair.is_some() => ("predict", "\"TEXT\" --pair \"TEXT\""),
        _ => ("predict", "\"TEXT\""),
    };
    let model = model.display().to_string();
    let quoted = if model.contains(' ') { format!("'{model}'") } else { model.clone() };
    eprintln!("next: bert-finetune {command} --model {quoted} {asked}");
    eprintln!("mistakes and curves: {model}/report.html");
}

/// Replaces the characters in a text that would break a line of a table.
pub fn one_line(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

/// Formats an answer as one short line: "good 0.98", "3.41", "0.120 -0.435", "joy, hope".
pub fn short(answer: &Value) -> String {
    if let Some(label) = answer["label"].as_str() {
        return format!("{label} {:.2}", answer["probabilities"][label].as_f64().unwrap_or(f64::NAN));
    }
    if let Some(labels) = answer["labels"].as_array() {
        return labels.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    }
    if let Some(values) = answer["values"].as_array() {
        let shown = values.iter().filter_map(Value::as_f64).map(|value| format!("{value:.3}"));
        return shown.collect::<Vec<_>>().join(" ");
    }
    if let Some(text) = answer["answer"].as_str() {
        return one_line(text);
    }
    answer["value"].as_f64().map_or_else(|| answer.to_string(), |value| format!("{value:.3}"))
}

/// Prints a warning about a model directory on stderr, if there is one.
pub fn warn(directory: &Path, warning: Option<&str>) {
    if let Some(warning) = warning {
        bert_cli::warning::warn(format_args!("{}: {warning}", directory.display()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn of_two_classes_the_positive_one_is_named_and_counts_have_no_fraction() {
        let metrics = json!({"accuracy": 0.5, "f1": 0.25, "macro_f1": 1.0, "per_class": [{}, {}], "examples": 700});
        let rows = metric_rows(metrics.as_object().unwrap(), &labels(&["ham", "spam"]));
        let found: Vec<String> = rows.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(found, ["accuracy 0.5000", "f1 of spam 0.2500", "macro f1 1.0000", "examples 700"]);
        let of_more = json!({"f1": 0.25, "per_class": [{}, {}, {}]});
        assert_eq!(metric_name("f1", of_more.as_object().unwrap(), &labels(&["a", "b", "c"])), "f1");
    }

    #[test]
    fn classes_without_any_right_answer_are_named() {
        let scores = |recall: f64, support: u64| json!({"recall": recall, "support": support});
        let metrics = json!({"per_class": [scores(1.0, 3), scores(0.0, 9), scores(0.0, 0)]});
        assert_eq!(never_found(&metrics, &labels(&["LOC", "ABBR", "NUM"])), ["ABBR (9 examples)"]);
        let metrics = json!({"per_type": {"PER": scores(0.5, 2), "ORG": scores(0.0, 4)}});
        assert_eq!(never_found(&metrics, &[]), ["ORG (4 examples)"]);
    }
}
