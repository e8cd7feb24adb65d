//! Multiple choice (Devlin et al. 2018, §4.4): each of several continuations is paired with the text and scored,
//! followed by a softmax over the scores.

use std::borrow::Cow;

use bert_cli::input::source::Input;
use bert_model::ops::upcast;
use bert_model::pipeline::{Choice, ChoiceInput, ChoiceProcessor, argmax};
use bert_model::{BertForMultipleChoice, Error, Pretrained, Result, Tokenizer};
use burn::tensor::{Int, Tensor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::any::AnyTask;
use super::kind::TaskSpec;
use super::{Defect, Examples, Query, Task};
use crate::data::choices::{ChoiceOptions, ChoiceRow, read_choices};
use crate::description::Description;
use crate::metrics::classification::classification;
use crate::report::{Mistake, worst};

/// The description of the multiple-choice task.
pub const MULTIPLE_CHOICE: TaskSpec = TaskSpec {
    name: "multiple-choice",
    about: "The best of several continuations",
    architecture: BertForMultipleChoice::ARCHITECTURE,
    problem_type: None,
    main_metric: "accuracy",
    labeled_metric: None,
    metrics: &["accuracy"],
    max_seq_len: 128,
    columns: ("text", None),
    label: Some("label"),
    reads_pairs: true,
    reads_tables: true,
    options: &["text-pair", "choices", "pair", "choice"],
    check_columns: |description| columns(description).map(drop),
    learn_labels: |_, _| Ok(Vec::new()),
    open,
};

fn open(description: &Description, _labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let processor = ChoiceProcessor::new(tokenizer.truncating(description.max_seq_len)?);
    Ok(AnyTask::MultipleChoice(MultipleChoiceTask { columns: columns(description)?, processor }))
}

/// The columns of a table.
fn columns(description: &Description) -> Result<ChoiceOptions> {
    Ok(ChoiceOptions {
        text: description.column(&description.text)?,
        text_pair: description.pair_column()?,
        choices: description.choices.iter().map(|name| description.column(name)).collect::<Result<_>>()?,
        label: description.label.as_deref().map(|name| description.column(name)).transpose()?,
        header: description.header,
        source: description.source,
    })
}

/// The multiple-choice task.
#[derive(Debug, Clone)]
pub struct MultipleChoiceTask {
    /// The columns of a table.
    pub columns: ChoiceOptions,
    /// Pairs a text with its choices.
    pub processor: ChoiceProcessor,
}

impl Task for MultipleChoiceTask {
    type Processor = ChoiceProcessor;
    type Example = ChoiceRow;
    /// The index of the correct choice.
    type Target = usize;

    fn processor(&self) -> &ChoiceProcessor {
        &self.processor
    }

    fn read(&self, input: &Input) -> Result<Vec<ChoiceRow>> {
        read_choices(input, &self.columns)?.collect()
    }

    fn defect(&self, row: &ChoiceRow) -> Option<Defect> {
        row.label.is_none().then_some(Defect::Unlabeled)
    }

    fn unlabeled(&self, input: &Input) -> Result<Examples<ChoiceRow>> {
        read_choices(input, &ChoiceOptions { label: None, ..self.columns.clone() })
    }

    fn example_of(&self, query: &Query) -> Result<ChoiceRow> {
        let Query { text, pair, choices, .. } = query.clone();
        match choices.len() {
            0 | 1 => {
                Err(Error::Usage("this model chooses among texts: pass at least two, each with --choice TEXT".into()))
            }
            _ => Ok(ChoiceRow { line: 1, text, pair, choices, label: None }),
        }
    }

    fn request<'a>(&self, row: &'a ChoiceRow) -> (Cow<'a, str>, &'a [String]) {
        let text = match &row.pair {
            Some(pair) => format!("{} {pair}", row.text).into(),
            None => Cow::from(&row.text),
        };
        (text, &row.choices)
    }

    fn targets(&self, row: &ChoiceRow, _inputs: &[ChoiceInput]) -> Vec<usize> {
        vec![row.label.unwrap_or(0)]
    }

    fn loss(
        &self,
        model: &BertForMultipleChoice,
        hidden: Tensor<3>,
        inputs: &[&ChoiceInput],
        targets: &[&usize],
    ) -> Tensor<1> {
        let log_probabilities = self.processor.log_probabilities(model, hidden, inputs);
        let right = log_probabilities.into_iter().zip(targets).map(|(log_probabilities, label)| {
            let label = Tensor::<2, Int>::from_data([[**label as i32]], &log_probabilities.device());
            log_probabilities.gather(1, label).reshape([1])
        });
        upcast(Tensor::cat(right.collect(), 0)).sum().neg()
    }

    fn json<'a>(&'a self, choice: &'a Choice) -> impl Serialize + 'a {
        json!({"choice": choice.index, "probabilities": choice.probabilities})
    }

    fn labeled(&self, row: &ChoiceRow) -> Map<String, Value> {
        let ChoiceRow { text, pair, choices, label, .. } = row;
        let mut map = Map::from_iter([("text".into(), text.as_str().into())]);
        map.extend(pair.as_deref().map(|pair| ("text_pair".into(), pair.into())));
        map.insert("choices".into(), choices.clone().into());
        map.insert("expected".into(), (*label).into());
        map
    }

    fn metrics(
        &self,
        rows: &[ChoiceRow],
        _inputs: &[Vec<ChoiceInput>],
        scores: &[Vec<Vec<f32>>],
    ) -> Map<String, Value> {
        let labeled = || rows.iter().zip(scores).filter_map(|(row, scores)| Some((row.label?, &scores[0])));
        let (gold, predicted): (Vec<usize>, Vec<usize>) =
            labeled().map(|(gold, scores)| (gold, argmax(scores))).unzip();
        let choices = rows.iter().map(|row| row.choices.len()).max().unwrap_or(0);
        let loss = labeled().map(|(gold, scores)| -f64::from(scores[gold].max(1e-30)).ln()).sum::<f64>();
        let mut metrics = json!(classification(&gold, &predicted, choices));
        metrics["loss"] = (loss / gold.len().max(1) as f64).into();
        metrics.as_object().cloned().unwrap_or_default()
    }

    fn mistakes(&self, rows: &[ChoiceRow], _inputs: &[Vec<ChoiceInput>], scores: &[Vec<Vec<f32>>]) -> Vec<Mistake> {
        let mistake = |(row, scores): (&ChoiceRow, &Vec<Vec<f32>>)| {
            let (gold, found) = (row.label?, argmax(&scores[0]));
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
