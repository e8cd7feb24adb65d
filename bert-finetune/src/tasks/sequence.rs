//! One text or a pair (paper, section 4.1): a class, any number of labels, or a value, read off the pooled `[CLS]`.

use std::path::Path;

use bert_model::model::loss::{binary_cross_entropy, cross_entropy, squared_error};
use bert_model::text::{Sequence, collate};
use bert_model::{BertForSequenceClassification, Error, ProblemType, Result, Tokenizer};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Map, Value, json};

use super::{Asked, Examples, Task};
use crate::data::input::read_inputs;
use crate::data::table::{Row, TableOptions, read_table};
use crate::metrics::classification::classification;
use crate::metrics::multi_label::multi_label;
use crate::metrics::regression::regression;

/// Classification, multi-label classification or regression of texts and pairs.
#[derive(Debug, Clone)]
pub struct SequenceTask {
    /// Which of the three.
    pub kind: ProblemType,
    /// Where a table has what.
    pub columns: TableOptions,
    /// Names of the classes in the order of their numbers; one name for a value.
    pub labels: Vec<String>,
    /// Cuts at the longest sequence.
    pub tokenizer: Tokenizer,
    /// The metric that decides.
    pub main_metric: &'static str,
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

/// A tokenised example.
#[derive(Debug, Clone)]
pub struct SequenceInput {
    sequence: Sequence,
    target: Target,
}

impl SequenceTask {
    /// The example that a row is.
    ///
    /// # Errors
    /// A label that is none of the task's, named with its line.
    pub fn example(&self, path: &Path, row: Row) -> Result<SequenceExample> {
        let unknown = |label: &str| {
            Error::line(path, row.line, format!("the label {label:?}"), format!("one of {}", self.labels.join(", ")))
        };
        let number = |label: &String| self.labels.iter().position(|known| known == label).ok_or_else(|| unknown(label));
        let target = match (self.kind, &row.labels[..]) {
            (ProblemType::MultiLabelClassification, labels) => {
                let mut flags = vec![0.0; self.labels.len()];
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

    /// The head's scores, `[N, C]`.
    fn logits(&self, model: &BertForSequenceClassification, inputs: &[&SequenceInput], device: &Device) -> Tensor<2> {
        let sequences: Vec<&Sequence> = inputs.iter().map(|input| &input.sequence).collect();
        model.forward(collate(&sequences, self.tokenizer.special().pad, device))
    }
}

/// The classes of a data file in a stable order: numbers by value, else names by their letters.
pub fn label_names(rows: &[Row]) -> Vec<String> {
    let mut labels: Vec<String> = rows.iter().flat_map(|row| row.labels.iter().cloned()).collect();
    labels.sort_by(|a, b| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    });
    labels.dedup();
    labels
}

impl Task for SequenceTask {
    type Model = BertForSequenceClassification;
    type Example = SequenceExample;
    type Input = SequenceInput;
    type Scores = Vec<f32>;

    fn read(&self, path: &Path) -> Result<Vec<SequenceExample>> {
        read_table(path, &self.columns)?.map(|row| self.example(path, row?)).collect()
    }

    fn questions(&self, path: &Path) -> Result<Examples<SequenceExample>> {
        let (task, place) = (self.clone(), path.to_path_buf());
        Ok(Box::new(read_inputs(path, &self.columns)?.map(move |row| task.example(&place, row?))))
    }

    fn question(&self, asked: &Asked) -> Result<SequenceExample> {
        let Asked { text, pair, .. } = asked.clone();
        Ok(SequenceExample { line: 1, text, pair, target: Target::None })
    }

    fn encode(&self, example: &SequenceExample) -> Result<Vec<SequenceInput>> {
        let encoding = self.tokenizer.encode(&example.text, example.pair.as_deref())?;
        Ok(vec![SequenceInput { sequence: Sequence::from(&encoding), target: example.target.clone() }])
    }

    fn sequence<'a>(&self, input: &'a SequenceInput) -> &'a Sequence {
        &input.sequence
    }

    fn terms(&self, _input: &SequenceInput) -> f64 {
        1.0
    }

    fn loss(&self, model: &BertForSequenceClassification, inputs: &[&SequenceInput], device: &Device) -> Tensor<1> {
        let logits = self.logits(model, inputs, device);
        match self.kind {
            ProblemType::SingleLabelClassification => {
                let class = |input: &&SequenceInput| match input.target {
                    Target::Class(class) => class as i32,
                    _ => 0,
                };
                let classes: Vec<i32> = inputs.iter().map(class).collect();
                cross_entropy(logits, Tensor::<1, Int>::from_data(&classes[..], device)).sum()
            }
            ProblemType::MultiLabelClassification => {
                let flags = |input: &&SequenceInput| match &input.target {
                    Target::Labels(flags) => flags.clone(),
                    _ => vec![0.0; self.labels.len()],
                };
                let flags: Vec<f32> = inputs.iter().flat_map(flags).collect();
                let flags = Tensor::from_data(TensorData::new(flags, [inputs.len(), self.labels.len()]), device);
                // The mean over the labels, as torch's BCEWithLogitsLoss takes it.
                binary_cross_entropy(logits, flags).sum() / self.labels.len() as f64
            }
            ProblemType::Regression => {
                let value = |input: &&SequenceInput| match input.target {
                    Target::Value(value) => value,
                    _ => 0.0,
                };
                let values: Vec<f32> = inputs.iter().map(value).collect();
                squared_error(logits.squeeze_dim(1), Tensor::from_data(&values[..], device)).sum()
            }
        }
    }

    fn scores(
        &self,
        model: &BertForSequenceClassification,
        inputs: &[&SequenceInput],
        device: &Device,
    ) -> Vec<Vec<f32>> {
        let logits = self.logits(model, inputs, device);
        let [_, classes] = logits.dims();
        let scores = match self.kind {
            ProblemType::SingleLabelClassification => softmax(logits, 1),
            ProblemType::MultiLabelClassification => sigmoid(logits),
            ProblemType::Regression => logits,
        };
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        scores.chunks(classes).map(<[f32]>::to_vec).collect()
    }

    fn answer(&self, _example: &SequenceExample, _inputs: &[SequenceInput], scores: &[Vec<f32>]) -> Value {
        let scores = &scores[0];
        let probabilities: Map<String, Value> =
            self.labels.iter().cloned().zip(scores.iter().map(|&p| Value::from(f64::from(p)))).collect();
        match self.kind {
            ProblemType::Regression => json!({"value": scores[0]}),
            ProblemType::SingleLabelClassification => {
                json!({"label": self.labels[best(scores)], "probabilities": probabilities})
            }
            ProblemType::MultiLabelClassification => {
                let labels: Vec<&String> =
                    self.labels.iter().zip(scores).filter(|(_, p)| **p > 0.5).map(|(l, _)| l).collect();
                json!({"labels": labels, "probabilities": probabilities})
            }
        }
    }

    fn metrics(
        &self,
        examples: &[SequenceExample],
        _inputs: &[Vec<SequenceInput>],
        scores: &[Vec<Vec<f32>>],
    ) -> Map<String, Value> {
        let scores = || scores.iter().map(|scores| &scores[0]);
        let metrics = match self.kind {
            ProblemType::SingleLabelClassification => {
                let gold: Vec<usize> = examples.iter().map(|example| class_of(&example.target)).collect();
                let predicted: Vec<usize> = scores().map(|scores| best(scores)).collect();
                let loss = -gold.iter().zip(scores()).map(|(&g, s)| f64::from(s[g].max(1e-30)).ln()).sum::<f64>();
                let metrics = classification(&gold, &predicted, self.labels.len());
                with(json!(metrics), [("loss", loss / gold.len() as f64)])
            }
            ProblemType::MultiLabelClassification => {
                let gold: Vec<Vec<bool>> = examples.iter().map(|example| flags_of(&example.target)).collect();
                let predicted: Vec<Vec<bool>> = scores().map(|s| s.iter().map(|&p| p > 0.5).collect()).collect();
                json!(multi_label(&gold, &predicted, self.labels.len()))
            }
            ProblemType::Regression => {
                let gold: Vec<f64> = examples.iter().map(|example| value_of(&example.target)).collect();
                let predicted: Vec<f64> = scores().map(|scores| f64::from(scores[0])).collect();
                let metrics = regression(&gold, &predicted);
                let loss = metrics.mse;
                with(json!(metrics), [("loss", loss)])
            }
        };
        match metrics {
            Value::Object(metrics) => metrics,
            _ => Map::new(),
        }
    }

    fn main_metric(&self) -> &'static str {
        self.main_metric
    }
}

/// Adds numbers to a JSON object.
fn with<const N: usize>(mut object: Value, numbers: [(&str, f64); N]) -> Value {
    for (name, number) in numbers {
        object[name] = number.into();
    }
    object
}

/// The index of the highest score; the first of equals.
pub fn best(scores: &[f32]) -> usize {
    let better = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
    (0..scores.len()).fold(0, better)
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
