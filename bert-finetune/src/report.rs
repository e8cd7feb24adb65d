//! Writes `evaluation.json`, the results of the best epoch, and renders `report.html` from it, `run.json` and
//! `metrics.jsonl`.

use std::path::Path;

use bert_model::Result;
use bert_model::file::{read_json, write_json};
use bert_train::report::{Cell, Chart, Mark, MarkedText, Report, ReportExample, facts, points};
use bert_train::run_directory::{read_metrics, read_run};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::output::metric_name;

const EVALUATION: &str = "evaluation.json";
/// Maximum number of mistakes to record.
const KEPT: usize = 50;

/// A wrong prediction, as recorded in `evaluation.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mistake {
    /// A wrong label, value or choice.
    Label {
        /// The text.
        text: String,
        /// Further texts of the example, as `(name, text)`.
        parts: Vec<(String, String)>,
        /// The expected label or value.
        expected: String,
        /// The predicted label or value.
        predicted: String,
        /// Probability of the prediction, if the task has one.
        probability: Option<f64>,
    },
    /// Wrong spans of a text.
    Spans {
        /// A line to show above the text, such as the question.
        lead: Option<String>,
        /// The text.
        text: String,
        /// Spans as `(start, end, label, comparison with the expected ones)`, in code points; the end is exclusive.
        spans: Vec<(usize, usize, String, Mark)>,
    },
}

/// The mistakes of greatest weight, in descending order.
pub fn worst(mut mistakes: Vec<(f64, Mistake)>) -> Vec<Mistake> {
    mistakes.sort_by(|a, b| b.0.total_cmp(&a.0));
    mistakes.into_iter().take(KEPT).map(|(_, mistake)| mistake).collect()
}

/// The results of the best epoch, as recorded in `evaluation.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The metrics, as `evaluate --json` prints them.
    pub metrics: Map<String, Value>,
    /// The worst mistakes, worst first.
    pub mistakes: Vec<Mistake>,
    /// The metrics of the test file, if the run has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Map<String, Value>>,
}

impl EvaluationRecord {
    /// Writes `evaluation.json` into the run directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        write_json(directory.join(EVALUATION), self)
    }
}

fn read_evaluation(path: &Path) -> Result<EvaluationRecord> {
    read_json(path, "the evaluation of a run")
}

/// Adds the metrics of the test file to `evaluation.json`. A run without an evaluation has no such file yet; one is
/// created for `epoch`, the last epoch, whose model was kept.
///
/// # Errors
/// If the file cannot be read or written.
pub fn record_test(directory: &Path, epoch: u64, test: Option<&Map<String, Value>>) -> Result<()> {
    let Some(test) = test else { return Ok(()) };
    let path = directory.join(EVALUATION);
    let record = match path.exists() {
        true => read_evaluation(&path)?,
        false => EvaluationRecord { epoch, metrics: Map::new(), mistakes: Vec::new(), test: None },
    };
    EvaluationRecord { test: Some(test.clone()), ..record }.save(directory)
}

/// Writes `report.html` for the run in `directory`.
///
/// # Errors
/// If a file of the run cannot be read, or the page cannot be written.
pub fn write(directory: &Path) -> Result<()> {
    let run = read_run(directory)?;
    let log = read_metrics(directory)?;
    let evaluation: Option<EvaluationRecord> = match directory.join(EVALUATION) {
        path if path.exists() => Some(read_evaluation(&path)?),
        _ => None,
    };
    let labels: Vec<String> = serde_json::from_value(run["labels"].clone()).unwrap_or_default();
    let mut report = Report::new("bert-finetune", directory.display().to_string());
    if let Some(evaluation) = &evaluation {
        let best = vec![("best epoch".to_string(), evaluation.epoch.to_string())];
        report.figures("Held-out examples", &[best, figures(&evaluation.metrics, &labels)].concat());
        if let Some(test) = &evaluation.test {
            report.figures("Test examples", &figures(test, &labels));
        }
    }
    charts(&mut report, &log, run["settings"]["metric"].as_str().unwrap_or("accuracy"));
    if let Some(evaluation) = evaluation {
        details(&mut report, &evaluation, &labels);
    }
    for (title, part) in [("Data", "examples"), ("Settings", "settings"), ("Model", "model")] {
        report.facts(title, &facts(&run[part]));
    }
    report.write(directory.join("report.html"))
}

/// The headline metrics, as `(name, value)`.
fn figures(metrics: &Map<String, Value>, labels: &[String]) -> Vec<(String, String)> {
    let figure = |(name, value): (&String, &Value)| {
        Some((metric_name(name, metrics, labels), format!("{:.4}", value.as_f64()?)))
    };
    metrics.iter().filter(|(name, _)| *name != "examples").filter_map(figure).take(9).collect()
}

fn charts(report: &mut Report, log: &[Value], metric: &str) {
    let steps = |name: &str| points(log, |record| record[name].as_f64());
    let evals = |name: &str| points(log, |record| record["eval"][name].as_f64());
    let mut loss = Chart::new("Loss", "step", "loss").smoothed().series("training", steps("loss"));
    if !evals("loss").is_empty() {
        loss = loss.series("held out", evals("loss"));
    }
    report.chart(loss);
    if evals(metric).len() > 1 {
        let chart = Chart::new("Metric on held-out examples", "step", metric).series(metric, evals(metric));
        report.chart(match metric {
            "mcc" | "pearson" | "spearman" => chart.bounded(-1.0, 1.0),
            _ => chart.bounded(0.0, 1.0),
        });
    }
    report.optimizer_charts(log);
}

/// Adds the confusion matrix, the scores per class, and the worst mistakes.
fn details(report: &mut Report, evaluation: &EvaluationRecord, labels: &[String]) {
    let metrics = &evaluation.metrics;
    let confusion: Vec<Vec<u64>> =
        metrics.get("confusion").and_then(|counts| serde_json::from_value(counts.clone()).ok()).unwrap_or_default();
    if confusion.len() == labels.len() && labels.len() > 1 {
        report.matrix("Confusion matrix", labels, &confusion);
    }
    let by_number = metrics.get("per_class").or(metrics.get("per_label")).and_then(Value::as_array);
    let by_number = by_number
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, scores)| (labels.get(index).cloned().unwrap_or_else(|| index.to_string()), scores));
    let by_type = metrics.get("per_type").and_then(Value::as_object);
    let by_type = by_type.into_iter().flatten().map(|(name, scores)| (name.clone(), scores));
    let row = |(name, scores): (String, &Value)| {
        let number = |key: &str| Cell::from(scores[key].as_f64().unwrap_or(f64::NAN));
        let support = Cell::from(scores["support"].as_u64().unwrap_or_default());
        vec![Cell::from(name), number("precision"), number("recall"), number("f1"), support]
    };
    let rows: Vec<Vec<Cell>> = by_number.chain(by_type).map(row).collect();
    if !rows.is_empty() {
        report.table("Classes", &["class", "precision", "recall", "F1", "examples"], rows);
    }
    let (mut labeled, mut marked) = (Vec::new(), Vec::new());
    for mistake in &evaluation.mistakes {
        match mistake {
            Mistake::Label { text, parts, expected, predicted, probability } => {
                let mut example = ReportExample::new(text, expected, predicted);
                if let Some(probability) = probability {
                    example = example.probability(*probability);
                }
                labeled.push(parts.iter().fold(example, |example, (name, text)| example.part(name, text)));
            }
            Mistake::Spans { lead, text, spans } => {
                let text = lead.iter().fold(MarkedText::new(text), |text, lead| text.lead(lead));
                let add = |text: MarkedText, (start, end, label, mark): &(usize, usize, String, Mark)| {
                    text.span(*start, *end, label, *mark)
                };
                marked.push(spans.iter().fold(text, add));
            }
        }
    }
    if !labeled.is_empty() {
        report.examples("Worst mistakes", &labeled);
    }
    if !marked.is_empty() {
        report.marked("Worst mistakes", &marked);
    }
}
