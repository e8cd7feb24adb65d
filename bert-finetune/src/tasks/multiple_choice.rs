//! The best of several continuations (paper, section 4.4): each is paired with the text and scored, softmax over them.

use std::path::Path;

use bert_cli::input::kind::Input;
use bert_model::text::Sequence;
use bert_model::{BertForMultipleChoice, BertModel, Error, Result, Tokenizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value, json};

use super::sequence::argmax;
use super::{Examples, Query, Task};
use crate::data::choices::{ChoiceOptions, ChoiceRow, read_choices};
use crate::metrics::classification::classification;
use crate::report::{Mistake, worst};

/// Choosing among texts.
#[derive(Debug, Clone)]
pub struct MultipleChoiceTask {
    /// Where a table has what.
    pub columns: ChoiceOptions,
    /// Cuts at the longest sequence.
    pub tokenizer: Tokenizer,
}

/// All pairs of one question.
#[derive(Debug, Clone)]
pub struct ChoiceInput {
    sequences: Vec<Sequence>,
    label: usize,
}

impl MultipleChoiceTask {
    /// Log-probabilities of the choices of each question.
    fn log_probabilities(
        &self,
        model: &BertForMultipleChoice,
        hidden: Tensor<3>,
        inputs: &[&ChoiceInput],
    ) -> Vec<Tensor<2>> {
        let scores = model.head(hidden);
        let mut start = 0;
        let question = |input: &&ChoiceInput| {
            let choices = input.sequences.len();
            start += choices;
            log_softmax(scores.clone().slice_dim(0, start - choices..start).reshape([1, choices]), 1)
        };
        inputs.iter().map(question).collect()
    }
}

impl Task for MultipleChoiceTask {
    type Model = BertForMultipleChoice;
    type Example = ChoiceRow;
    type Input = ChoiceInput;
    type Scores = Vec<f32>;

    const READS_CLS_ALONE: bool = true;
    const OPTIONS: &'static [&'static str] = &["--pair", "--choice"];

    fn read(&self, path: &Path) -> Result<Vec<ChoiceRow>> {
        read_choices(path, &self.columns)?.collect()
    }

    fn questions(&self, input: &Input) -> Result<Examples<ChoiceRow>> {
        Ok(read_choices(input, &ChoiceOptions { label: None, ..self.columns.clone() })?)
    }

    fn question(&self, query: &Query) -> Result<ChoiceRow> {
        let Query { text, pair, choices, .. } = query.clone();
        match choices.len() {
            0 | 1 => {
                Err(Error::Setting("this model chooses: give each choice with --choice TEXT, at least two".into()))
            }
            _ => Ok(ChoiceRow { line: 1, text, pair, choices, label: None }),
        }
    }

    fn encode(&self, row: &ChoiceRow) -> Result<Vec<ChoiceInput>> {
        let text = match &row.pair {
            Some(pair) => format!("{} {pair}", row.text),
            None => row.text.clone(),
        };
        let pair = |choice: &String| Ok(Sequence::from(&self.tokenizer.encode(&text, Some(choice))?));
        let sequences = row.choices.iter().map(pair).collect::<Result<_>>()?;
        Ok(vec![ChoiceInput { sequences, label: row.label.unwrap_or(0) }])
    }

    fn sequences<'a>(&self, input: &'a ChoiceInput) -> Vec<&'a Sequence> {
        input.sequences.iter().collect()
    }

    fn truncated_count(&self) -> u64 {
        self.tokenizer.truncated_count()
    }

    fn pad_id(&self) -> u32 {
        self.tokenizer.special().pad
    }

    fn bert<'a>(&self, model: &'a BertForMultipleChoice) -> &'a BertModel {
        &model.bert
    }

    fn terms(&self, _input: &ChoiceInput) -> f64 {
        1.0
    }

    fn loss(&self, model: &BertForMultipleChoice, hidden: Tensor<3>, inputs: &[&ChoiceInput]) -> Tensor<1> {
        let log_probabilities = self.log_probabilities(model, hidden, inputs);
        let right = log_probabilities.into_iter().zip(inputs).map(|(log_probabilities, input)| {
            let label = Tensor::<2, Int>::from_data([[input.label as i32]], &log_probabilities.device());
            log_probabilities.gather(1, label).reshape([1])
        });
        Tensor::cat(right.collect(), 0).sum().neg()
    }

    fn scores(&self, model: &BertForMultipleChoice, hidden: Tensor<3>, inputs: &[&ChoiceInput]) -> Vec<Vec<f32>> {
        let log_probabilities = self.log_probabilities(model, hidden, inputs);
        log_probabilities.into_iter().map(|row| row.exp().into_data().iter::<f32>().collect()).collect()
    }

    fn answer(&self, _row: &ChoiceRow, _inputs: &[ChoiceInput], scores: &[Vec<f32>]) -> Value {
        json!({"choice": argmax(&scores[0]), "probabilities": scores[0]})
    }

    fn metrics(
        &self,
        rows: &[ChoiceRow],
        _inputs: &[Vec<ChoiceInput>],
        scores: &[Vec<Vec<f32>>],
    ) -> Map<String, Value> {
        let gold: Vec<usize> = rows.iter().map(|row| row.label.unwrap_or(0)).collect();
        let predicted: Vec<usize> = scores.iter().map(|scores| argmax(&scores[0])).collect();
        let choices = rows.iter().map(|row| row.choices.len()).max().unwrap_or(0);
        let loss = gold.iter().zip(scores).map(|(&g, s)| -f64::from(s[0][g].max(1e-30)).ln()).sum::<f64>();
        let mut metrics = json!(classification(&gold, &predicted, choices));
        metrics["loss"] = (loss / gold.len().max(1) as f64).into();
        metrics.as_object().cloned().unwrap_or_default()
    }

    fn mistakes(&self, rows: &[ChoiceRow], _inputs: &[Vec<ChoiceInput>], scores: &[Vec<Vec<f32>>]) -> Vec<Mistake> {
        let mistake = |(row, scores): (&ChoiceRow, &Vec<Vec<f32>>)| {
            let (gold, found) = (row.label.unwrap_or(0), argmax(&scores[0]));
            let probability = f64::from(scores[0][found]);
            let mistake = Mistake::Label {
                text: row.text.clone(),
                parts: row.pair.iter().map(|pair| ("second text".to_string(), pair.clone())).collect(),
                expected: row.choices[gold].clone(),
                predicted: row.choices[found].clone(),
                probability: Some(probability),
            };
            (gold != found).then_some((probability, mistake))
        };
        worst(rows.iter().zip(scores).filter_map(mistake).collect())
    }

    fn main_metric(&self) -> &'static str {
        "accuracy"
    }
}
