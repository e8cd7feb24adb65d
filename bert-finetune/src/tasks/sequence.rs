//! One text or a pair (paper, section 4.1): a class, any number of labels, or a value, read off the pooled `[CLS]`.

use std::path::Path;

use bert_cli::input::kind::Input;
use bert_cli::input::read_inputs;
use bert_cli::input::table::{LabelColumns, Row, TableOptions, read_table};
use bert_model::model::loss::{binary_cross_entropy, cross_entropy, squared_error};
use bert_model::pipeline::{Classification, ClassificationProcessor, highest};
use bert_model::text::Sequence;
use bert_model::{BertForSequenceClassification, Error, Pretrained, ProblemType, Result, Tokenizer};
use burn::tensor::{Int, Tensor, TensorData};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::any::AnyTask;
use super::kind::Facts;
use super::labels::{at_least, classes, label_index};
use super::{Examples, Query, Task, balanced, weight_of, weighted_sum};
use crate::description::Description;
use crate::metrics::classification::classification;
use crate::metrics::multi_label::multi_label;
use crate::metrics::regression::regression;
use crate::report::{Mistake, worst};

/// One class for a text or a pair.
pub const CLASSIFICATION: Facts = Facts {
    name: "classification",
    about: "One class for a text or a pair",
    architecture: BertForSequenceClassification::ARCHITECTURE,
    problem_type: Some(ProblemType::SingleLabelClassification),
    main_metric: "accuracy",
    labeled_metric: None,
    metrics: &["accuracy", "f1", "macro_f1", "weighted_f1", "mcc"],
    max_seq_len: 128,
    columns: ("text", None),
    label: Some("label"),
    reads_pairs: false,
    check_columns: |description| columns(description).map(drop),
    learn_labels: |description, training| at_least(2, classes(&columns(description)?, training)?, training),
    open,
};

/// Any number of labels.
pub const MULTI_LABEL: Facts = Facts {
    name: "multi-label",
    about: "Any number of labels",
    problem_type: Some(ProblemType::MultiLabelClassification),
    main_metric: "f1",
    metrics: &["accuracy", "f1", "micro_f1", "macro_f1", "weighted_f1"],
    learn_labels: |description, training| at_least(1, classes(&columns(description)?, training)?, training),
    ..CLASSIFICATION
};

/// A value.
pub const REGRESSION: Facts = Facts {
    name: "regression",
    about: "A value",
    problem_type: Some(ProblemType::Regression),
    main_metric: "pearson",
    metrics: &["pearson", "spearman"],
    learn_labels: |_, _| Ok(vec!["value".into()]),
    ..CLASSIFICATION
};

fn open(description: &Description, labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let problem = description.task.problem_type.unwrap_or(ProblemType::SingleLabelClassification);
    let tokenizer = tokenizer.truncating(description.max_seq_len)?;
    Ok(AnyTask::Sequence(SequenceTask {
        processor: ClassificationProcessor::new(problem, labels, tokenizer),
        columns: columns(description)?,
        main_metric: description.main_metric(),
        class_weights: Vec::new(),
    }))
}

/// Where a table has what.
fn columns(description: &Description) -> Result<TableOptions> {
    let label = |name: &str| match description.task.problem_type {
        Some(ProblemType::MultiLabelClassification) => LabelColumns::parse_multi(name, description.header),
        _ => Ok(LabelColumns::One(description.column(name)?)),
    };
    let label = description.label.as_deref().map(label).transpose()?;
    Ok(TableOptions { label, ..description.inputs()? })
}

/// Classification, multi-label classification or regression of texts and pairs.
#[derive(Debug, Clone)]
pub struct SequenceTask {
    /// Which of the three, and the names of the classes in the order of their numbers; one name for a value.
    pub processor: ClassificationProcessor,
    /// Where a table has what.
    pub columns: TableOptions,
    /// The metric that decides.
    pub main_metric: &'static str,
    /// Of each class; empty if all count alike.
    pub class_weights: Vec<f32>,
}

/// What the head should say.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Nothing is known.
    None,
    /// The number of a class.
    Class(usize),
    /// For each label 1 or 0.
    Labels(Vec<f32>),
    /// A number.
    Value(f32),
}

/// A text or a pair, and what is to be said of it.
#[derive(Debug, Clone)]
pub struct SequenceExample {
    /// Line in its file, from 1.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// What should be said.
    pub target: Target,
}

impl SequenceTask {
    fn labels(&self) -> &[String] {
        self.processor.labels()
    }

    /// The example that a row is.
    ///
    /// # Errors
    /// A label that is none of the task's, named with its line.
    pub fn example(&self, path: &Path, row: Row) -> Result<SequenceExample> {
        let unknown = |label: &str| {
            Error::line(path, row.line, format!("the label {label:?}"), format!("one of {}", self.labels().join(", ")))
        };
        let number = |label: &String| label_index(label, self.labels()).ok_or_else(|| unknown(label));
        let target = match (self.processor.problem(), &row.labels[..]) {
            (ProblemType::MultiLabelClassification, labels) => {
                let mut flags = vec![0.0; self.labels().len()];
                for label in labels {
                    flags[number(label)?] = 1.0;
                }
                Target::Labels(flags)
            }
            (ProblemType::SingleLabelClassification, [label]) => Target::Class(number(label)?),
            (ProblemType::Regression, [label]) => {
                let value = label.parse().ok().filter(|value: &f32| value.is_finite());
                Target::Value(value.ok_or_else(|| Error::line(path, row.line, format!("{label:?}"), "a number"))?)
            }
            _ => Target::None,
        };
        Ok(SequenceExample { line: row.line, text: row.text, pair: row.pair, target })
    }
}

impl Task for SequenceTask {
    type Processor = ClassificationProcessor;
    type Example = SequenceExample;
    type Target = Target;

    const OPTIONS: &'static [&'static str] = &["--pair"];

    fn processor(&self) -> &ClassificationProcessor {
        &self.processor
    }

    fn read(&self, path: &Path) -> Result<Vec<SequenceExample>> {
        let mut rows = read_table(path, &self.columns)?;
        let examples = rows.by_ref().map(|row| self.example(path, row?)).collect();
        if rows.skipped() > 0 {
            eprintln!("warning: {}: {} row(s) with too few fields passed over", path.display(), rows.skipped());
        }
        examples
    }

    fn questions(&self, input: &Input) -> Result<Examples<SequenceExample>> {
        let (task, place) = (self.clone(), input.path.clone());
        Ok(Box::new(read_inputs(input, &self.columns)?.map(move |row| task.example(&place, row?))))
    }

    fn question(&self, query: &Query) -> Result<SequenceExample> {
        let Query { text, pair, .. } = query.clone();
        if self.columns.text_pair.is_some() && pair.is_none() {
            return Err(Error::Usage("this model judges pairs: give the second text with --pair TEXT".into()));
        }
        Ok(SequenceExample { line: 1, text, pair, target: Target::None })
    }

    fn request<'a>(&self, example: &'a SequenceExample) -> (&'a str, Option<&'a str>) {
        (&example.text, example.pair.as_deref())
    }

    fn targets(&self, example: &SequenceExample, _inputs: &[Sequence]) -> Vec<Target> {
        vec![example.target.clone()]
    }

    fn balance(&mut self, examples: &[SequenceExample]) -> Result<()> {
        if self.processor.problem() != ProblemType::SingleLabelClassification {
            return Err(Error::Usage("--class-weights: only one-label classes can be weighed".into()));
        }
        let classes = examples.iter().map(|example| class_of(&example.target));
        self.class_weights = balanced(classes, self.labels().len());
        Ok(())
    }

    fn terms(&self, target: &Target) -> f64 {
        f64::from(weight_of(&self.class_weights, class_of(target)))
    }

    fn loss(
        &self,
        model: &BertForSequenceClassification,
        hidden: Tensor<3>,
        _inputs: &[&Sequence],
        targets: &[&Target],
    ) -> Tensor<1> {
        let logits = model.head(hidden);
        let device = logits.device();
        match self.processor.problem() {
            ProblemType::SingleLabelClassification => {
                let classes: Vec<i32> = targets.iter().map(|target| class_of(target) as i32).collect();
                let losses = cross_entropy(logits, Tensor::<1, Int>::from_data(&classes[..], &device));
                weighted_sum(losses, &self.class_weights, &classes)
            }
            ProblemType::MultiLabelClassification => {
                let flags = |target: &&Target| match target {
                    Target::Labels(flags) => flags.clone(),
                    _ => vec![0.0; self.labels().len()],
                };
                let flags: Vec<f32> = targets.iter().flat_map(flags).collect();
                let flags = Tensor::from_data(TensorData::new(flags, [targets.len(), self.labels().len()]), &device);
                // The mean over the labels, as torch's BCEWithLogitsLoss takes it.
                binary_cross_entropy(logits, flags).sum() / self.labels().len() as f64
            }
            ProblemType::Regression => {
                let values: Vec<f32> = targets.iter().map(|target| value_of(target) as f32).collect();
                squared_error(logits.squeeze_dim(1), Tensor::from_data(&values[..], &device)).sum()
            }
        }
    }

    fn json(&self, answer: &Classification) -> Value {
        let scores = &answer.scores;
        let probabilities: Map<String, Value> =
            self.labels().iter().cloned().zip(scores.iter().map(|&p| Value::from(f64::from(p)))).collect();
        match self.processor.problem() {
            ProblemType::Regression => json!({"value": scores.first()}),
            ProblemType::SingleLabelClassification => json!({"label": answer.label, "probabilities": probabilities}),
            ProblemType::MultiLabelClassification => {
                let labels: Vec<&String> =
                    self.labels().iter().zip(scores).filter(|(_, p)| **p > 0.5).map(|(l, _)| l).collect();
                json!({"labels": labels, "probabilities": probabilities})
            }
        }
    }

    fn metrics(
        &self,
        examples: &[SequenceExample],
        _inputs: &[Vec<Sequence>],
        scores: &[Vec<Vec<f32>>],
    ) -> Map<String, Value> {
        let scores = || scores.iter().map(|scores| &scores[0]);
        match self.processor.problem() {
            ProblemType::SingleLabelClassification => {
                let gold: Vec<usize> = examples.iter().map(|example| class_of(&example.target)).collect();
                let predicted: Vec<usize> = scores().map(|scores| highest(scores)).collect();
                let loss = -gold.iter().zip(scores()).map(|(&g, s)| f64::from(s[g].max(1e-30)).ln()).sum::<f64>();
                with_loss(classification(&gold, &predicted, self.labels().len()), loss / gold.len() as f64)
            }
            ProblemType::MultiLabelClassification => {
                let gold: Vec<Vec<bool>> = examples.iter().map(|example| flags_of(&example.target)).collect();
                let predicted: Vec<Vec<bool>> = scores().map(|s| s.iter().map(|&p| p > 0.5).collect()).collect();
                let cost =
                    |(&is_gold, &p): (&bool, &f32)| -f64::from(if is_gold { p } else { 1.0 - p }.max(1e-30)).ln();
                let loss = gold.iter().zip(scores()).flat_map(|(gold, scores)| gold.iter().zip(scores).map(cost));
                let loss = loss.sum::<f64>() / (gold.len() * self.labels().len()) as f64;
                with_loss(multi_label(&gold, &predicted, self.labels().len()), loss)
            }
            ProblemType::Regression => {
                let gold: Vec<f64> = examples.iter().map(|example| value_of(&example.target)).collect();
                let predicted: Vec<f64> = scores().map(|scores| f64::from(scores[0])).collect();
                let metrics = regression(&gold, &predicted);
                with_loss(&metrics, metrics.mse)
            }
        }
    }

    fn mistakes(
        &self,
        examples: &[SequenceExample],
        _inputs: &[Vec<Sequence>],
        scores: &[Vec<Vec<f32>>],
    ) -> Vec<Mistake> {
        let mistake = |(example, scores): (&SequenceExample, &Vec<Vec<f32>>)| {
            let scores = &scores[0];
            let names = |flags: &[bool]| {
                let names: Vec<&str> =
                    self.labels().iter().zip(flags).filter(|(_, flag)| **flag).map(|(name, _)| name.as_str()).collect();
                if names.is_empty() { "none".to_string() } else { names.join(", ") }
            };
            let (expected, predicted, weight, probability) = match self.processor.problem() {
                ProblemType::SingleLabelClassification => {
                    let (gold, found) = (class_of(&example.target), highest(scores));
                    let probability = f64::from(scores[found]);
                    (self.labels()[gold].clone(), self.labels()[found].clone(), probability, Some(probability))
                }
                ProblemType::MultiLabelClassification => {
                    let gold = flags_of(&example.target);
                    let found: Vec<bool> = scores.iter().map(|&p| p > 0.5).collect();
                    let off = |(&gold, &p): (&bool, &f32)| f64::from((f32::from(u8::from(gold)) - p).abs());
                    let weight = gold.iter().zip(scores).map(off).fold(0.0, f64::max);
                    (names(&gold), names(&found), weight, None)
                }
                ProblemType::Regression => {
                    let (gold, found) = (value_of(&example.target), f64::from(scores[0]));
                    (format!("{gold:.2}"), format!("{found:.2}"), (gold - found).abs(), None)
                }
            };
            let parts = example.pair.iter().map(|pair| ("second text".to_string(), pair.clone())).collect();
            let text = example.text.clone();
            (expected != predicted)
                .then_some((weight, Mistake::Label { text, parts, expected, predicted, probability }))
        };
        worst(examples.iter().zip(scores).filter_map(mistake).collect())
    }

    fn main_metric(&self) -> &'static str {
        self.main_metric
    }
}

/// Metrics by their names, and the loss.
fn with_loss(metrics: impl Serialize, loss: f64) -> Map<String, Value> {
    let mut metrics = json!(metrics);
    metrics["loss"] = loss.into();
    metrics.as_object().cloned().unwrap_or_default()
}

fn class_of(target: &Target) -> usize {
    if let Target::Class(class) = target { *class } else { 0 }
}

fn value_of(target: &Target) -> f64 {
    if let Target::Value(value) = target { f64::from(*value) } else { 0.0 }
}

fn flags_of(target: &Target) -> Vec<bool> {
    if let Target::Labels(flags) = target { flags.iter().map(|&flag| flag > 0.5).collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use bert_cli::input::columns::Column;

    use super::*;
    use crate::tasks::kind::TaskKind;

    #[test]
    fn columns_are_named_by_the_header_or_numbered() {
        let usual = Description::usual(TaskKind(&MULTI_LABEL), 64);
        let named = Description { text_pair: Some("b".into()), label: Some("x,y".into()), ..usual };
        let table = columns(&named).unwrap();
        assert_eq!((table.text, table.text_pair), (Column::Name("text".into()), Some(Column::Name("b".into()))));
        let both = vec![Column::Name("x".into()), Column::Name("y".into())];
        assert_eq!(table.label, Some(LabelColumns::Indicators(both)));
        assert_eq!(named.inputs().unwrap().label, None);
        let usual = Description::usual(TaskKind(&REGRESSION), 64);
        let numbered = Description { header: false, text: "2".into(), label: Some("1".into()), ..usual };
        assert_eq!(columns(&numbered).unwrap().text, Column::Number(2));
    }
}
