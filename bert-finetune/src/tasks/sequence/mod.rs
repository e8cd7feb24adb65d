//! Tasks on one text or a pair (Devlin et al. 2018, §4.1): a class, any number of labels, or a value, computed from the
//! pooled `[CLS]`.

mod scores;
mod specs;

use std::path::Path;

use bert_cli::input::read_inputs;
use bert_cli::input::source::Input;
use bert_cli::input::table::{Row, TableOptions, read_table};
use bert_cli::warning::warn_once;
use bert_model::model::loss::{binary_cross_entropy, cross_entropy, squared_error};
use bert_model::pipeline::{Classification, ClassificationProcessor};
use bert_model::text::Sequence;
use bert_model::{BertForSequenceClassification, Error, ProblemType, Result};
use burn::tensor::{Int, Tensor, TensorData};
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::scores::Scored;
pub use self::specs::{CLASSIFICATION, MULTI_LABEL, REGRESSION};
use super::labels::label_index;
use super::{Defect, Examples, Query, Task, balanced, weight_of, weighted_sum};
use crate::data::is_unlabeled;
use crate::report::Mistake;

/// Classification, multi-label classification or regression of texts and pairs.
#[derive(Debug, Clone)]
pub struct SequenceTask {
    /// Which of the three tasks, and the labels in the order of the head's outputs; a single label for a value.
    pub processor: ClassificationProcessor,
    /// The columns of a table.
    pub columns: TableOptions,
    /// The metric that selects the best epoch.
    pub main_metric: &'static str,
    /// The weight of each class; empty if all are 1.
    pub class_weights: Vec<f32>,
}

/// The expected output of the head.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Unknown.
    None,
    /// The index of a class.
    Class(usize),
    /// For each label, 1 or 0.
    Labels(Vec<f32>),
    /// A number.
    Value(f32),
}

/// A text or a pair, with its expected output.
#[derive(Debug, Clone)]
pub struct SequenceExample {
    /// Line in its file, from 1.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The expected output.
    pub target: Target,
}

impl SequenceTask {
    fn labels(&self) -> &[String] {
        self.processor.labels()
    }

    /// Converts a row to an example.
    ///
    /// # Errors
    /// If the label is not one of the task's; the error names the line.
    pub fn example(&self, path: &Path, row: Row) -> Result<SequenceExample> {
        let unknown = |label: &str| {
            Error::line(path, row.line, format!("the label {label:?}"), format!("one of {}", self.labels().join(", ")))
        };
        let number = |label: &String| label_index(label, self.labels()).ok_or_else(|| unknown(label));
        // A mark for unlabeled rows may be a proper label of another model.
        let is_missing = |label: &String| is_unlabeled(label) && label_index(label, self.labels()).is_none();
        let target = match (self.processor.problem(), &row.labels[..]) {
            (ProblemType::Regression, [label]) if label == "-" => Target::None,
            (ProblemType::SingleLabelClassification | ProblemType::MultiLabelClassification, [label])
                if is_missing(label) =>
            {
                Target::None
            }
            (ProblemType::MultiLabelClassification, labels) => {
                let mut flags = vec![0.0; self.labels().len()];
                for label in labels {
                    flags[number(label)?] = 1.0;
                }
                Target::Labels(flags)
            }
            (ProblemType::SingleLabelClassification, [label]) => Target::Class(number(label)?),
            (ProblemType::Regression, [_]) if self.labels().len() > 1 => {
                let found = format!("one label for a model with {} values", self.labels().len());
                let expected = "a model with one value; for this one, only use its predictions";
                return Err(Error::line(path, row.line, found, expected));
            }
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

    fn processor(&self) -> &ClassificationProcessor {
        &self.processor
    }

    fn read(&self, input: &Input) -> Result<Vec<SequenceExample>> {
        let (mut rows, path) = (read_table(input, &self.columns)?, input.name());
        let examples = rows.by_ref().map(|row| self.example(&path, row?)).collect();
        if rows.skipped() > 0 {
            warn_once(format!("{}: {} row(s) with too few fields skipped", path.display(), rows.skipped()));
        }
        examples
    }

    fn defect(&self, example: &SequenceExample) -> Option<Defect> {
        (example.target == Target::None).then_some(Defect::Unlabeled)
    }

    fn unlabeled(&self, input: &Input) -> Result<Examples<SequenceExample>> {
        let (task, place) = (self.clone(), input.path.clone());
        Ok(Box::new(read_inputs(input, &self.columns)?.map(move |row| task.example(&place, row?))))
    }

    fn example_of(&self, query: &Query) -> Result<SequenceExample> {
        let Query { text, pair, .. } = query.clone();
        if self.columns.text_pair.is_some() && pair.is_none() {
            return Err(Error::Usage("this model takes pairs: pass the second text with --pair TEXT".into()));
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
            return Err(Error::Usage("--class-weights: only single-label classes can be weighted".into()));
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
                // The mean over the labels, like torch's BCEWithLogitsLoss.
                binary_cross_entropy(logits, flags).sum() / self.labels().len() as f64
            }
            ProblemType::Regression => {
                let values: Vec<f32> = targets.iter().map(|target| value_of(target) as f32).collect();
                squared_error(logits.squeeze_dim(1), Tensor::from_data(&values[..], &device)).sum()
            }
        }
    }

    fn json<'a>(&'a self, answer: &'a Classification) -> impl Serialize + 'a {
        let scores = &answer.scores;
        let probabilities: Map<String, Value> =
            self.labels().iter().cloned().zip(scores.iter().map(|&p| Value::from(f64::from(p)))).collect();
        match self.processor.problem() {
            // If a head has several values, none of them is the answer.
            ProblemType::Regression if scores.len() > 1 => json!({"values": scores}),
            ProblemType::Regression => json!({"value": scores.first()}),
            ProblemType::SingleLabelClassification => json!({"label": answer.label, "probabilities": probabilities}),
            ProblemType::MultiLabelClassification => {
                let labels: Vec<&String> =
                    self.labels().iter().zip(scores).filter(|(_, p)| **p > 0.5).map(|(l, _)| l).collect();
                json!({"labels": labels, "probabilities": probabilities})
            }
        }
    }

    fn labeled(&self, example: &SequenceExample) -> Map<String, Value> {
        let SequenceExample { text, pair, target, .. } = example;
        let mut map = Map::from_iter([("text".into(), text.as_str().into())]);
        map.extend(pair.as_deref().map(|pair| ("text_pair".into(), pair.into())));
        let expected = match target {
            Target::None => Value::Null,
            Target::Class(class) => self.labels()[*class].as_str().into(),
            Target::Labels(flags) => {
                let named = self.labels().iter().zip(flags).filter(|(_, flag)| **flag > 0.5);
                named.map(|(label, _)| label.as_str()).collect()
            }
            // As written in the file, with the digits of an `f32`.
            Target::Value(value) => value.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        };
        map.insert("expected".into(), expected);
        map
    }

    fn metrics(
        &self,
        examples: &[SequenceExample],
        _inputs: &[Vec<Sequence>],
        scores: &[Vec<Vec<f32>>],
    ) -> Map<String, Value> {
        scores::metrics(self.processor.problem(), self.labels(), &labeled(examples, scores))
    }

    fn mistakes(
        &self,
        examples: &[SequenceExample],
        _inputs: &[Vec<Sequence>],
        scores: &[Vec<Vec<f32>>],
    ) -> Vec<Mistake> {
        scores::mistakes(self.processor.problem(), self.labels(), &labeled(examples, scores))
    }

    fn main_metric(&self) -> &'static str {
        self.main_metric
    }
}

/// Pairs the labeled examples with their scores.
fn labeled<'a>(examples: &'a [SequenceExample], scores: &'a [Vec<Vec<f32>>]) -> Vec<Scored<'a>> {
    let all = examples.iter().zip(scores).map(|(example, scores)| (example, scores[0].as_slice()));
    all.filter(|(example, _)| example.target != Target::None).collect()
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
