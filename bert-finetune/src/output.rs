//! Human-readable output: metrics, short answers, warnings.

use std::path::Path;

use anyhow::Result;
use bert_cli::program::print_line;
use serde_json::{Map, Value};

/// Prints the final metrics on stderr.
pub fn print_table(summary: &Value) {
    eprintln!("best epoch {}", summary["best_epoch"]);
    for part in ["eval", "test"] {
        for (name, value) in summary[part].as_object().into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                eprintln!("{:16} {value:.4}", format!("{part} {name}"));
            }
        }
    }
    for (name, mean) in summary["mean"]["eval"].as_object().into_iter().flatten() {
        let spread = &summary["spread"]["eval"][name];
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        eprintln!("{:16} {:.4} ± {:.4}", format!("mean {name}"), number(mean), number(spread));
    }
    eprintln!("{:16} {:.0}", "seconds", summary["seconds"].as_f64().unwrap_or(f64::NAN));
    eprintln!("{:16} {}", "model", summary["model"].as_str().unwrap_or_default());
}

/// Prints metrics on stdout, one per line.
///
/// # Errors
/// If standard output cannot be written.
pub fn print_metrics(metrics: &Map<String, Value>) -> Result<()> {
    for (name, value) in metrics {
        if let Some(value) = value.as_f64() {
            print_line(format_args!("{name:12} {value:.4}"))?;
        }
    }
    Ok(())
}

/// Formats an answer as one short line: "good 0.98", "3.41", "0.120 -0.435", "joy, hope".
pub fn short(answer: &Value) -> String {
    if let Some(label) = answer["label"].as_str() {
        return format!("{label} {:.2}", answer["probabilities"][label].as_f64().unwrap_or(f64::NAN));
    }
    if let Some(labels) = answer["labels"].as_array() {
        return labels.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    }
    if let (Some(words), Some(tags)) = (answer["words"].as_array(), answer["tags"].as_array()) {
        let tagged = |(word, tag): (&Value, &Value)| Some(format!("{}/{}", word.as_str()?, tag.as_str()?));
        return words.iter().zip(tags).filter_map(tagged).collect::<Vec<_>>().join(" ");
    }
    if let Some(values) = answer["values"].as_array() {
        let shown = values.iter().filter_map(Value::as_f64).map(|value| format!("{value:.3}"));
        return shown.collect::<Vec<_>>().join(" ");
    }
    if let Some(text) = answer["answer"].as_str() {
        return text.to_string();
    }
    answer["value"].as_f64().map_or_else(|| answer.to_string(), |value| format!("{value:.3}"))
}

/// Warns on stderr about a model directory.
pub fn warn(directory: &Path, warning: Option<&str>) {
    if let Some(warning) = warning {
        eprintln!("warning: {}: {warning}", directory.display());
    }
}

/// Warns on stderr if texts were truncated.
pub fn warn_truncated(texts: u64) {
    if texts > 0 {
        eprintln!("warning: {texts} text(s) longer than --max-seq-len were truncated");
    }
}
