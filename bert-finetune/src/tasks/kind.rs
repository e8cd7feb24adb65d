//! The kinds of tasks, and what is known about each without a file.
//!
//! To add a task, add a module next to this one, and a line to [`REGISTRY`]. A task with a type of its own also needs a
//! variant of [`AnyTask`] and an arm of `for_task!`, both in [`super::any`].

use std::fmt;
use std::ops::Deref;

use bert_model::{BertConfig, ProblemType, Result, Tokenizer};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::any::AnyTask;
use super::{embedding, multiple_choice, question_answering, sequence, tagging};
use crate::data::Files;
use crate::description::Description;

/// All kinds of tasks; the first one is the default.
pub static REGISTRY: &[TaskKind] = &[
    TaskKind(&sequence::CLASSIFICATION),
    TaskKind(&sequence::MULTI_LABEL),
    TaskKind(&sequence::REGRESSION),
    TaskKind(&tagging::TAGGING),
    TaskKind(&question_answering::QUESTION_ANSWERING),
    TaskKind(&multiple_choice::MULTIPLE_CHOICE),
    TaskKind(&embedding::EMBEDDING),
];

/// What is known about a task that does not depend on a file.
#[derive(Debug)]
pub struct TaskSpec {
    /// The task's name in `--task` and `finetune.json`.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// The transformers class with this head.
    pub architecture: &'static str,
    /// The head's `problem_type` in `config.json`, if it has one.
    pub problem_type: Option<ProblemType>,
    /// The default metric for selecting the best epoch.
    pub main_metric: &'static str,
    /// The metric that selects the best epoch if files have labels, if it differs from `main_metric`.
    pub labeled_metric: Option<&'static str>,
    /// The metrics that can select the best epoch; for all of them, higher is better.
    pub metrics: &'static [&'static str],
    /// The default maximum sequence length, in tokens.
    pub max_seq_len: usize,
    /// The default columns of the text and of a second text.
    pub columns: (&'static str, Option<&'static str>),
    /// The default column of the label; `None` if files have none.
    pub label: Option<&'static str>,
    /// Whether the model always reads two texts.
    pub reads_pairs: bool,
    /// Whether labeled files are tables whose columns can be named.
    pub reads_tables: bool,
    /// Long names of the options that apply to this task, among those that apply to some tasks only.
    pub options: &'static [&'static str],
    /// Checks that the column names are valid, whether or not a file has them.
    pub check_columns: fn(&Description) -> Result<()>,
    /// Learns the labels from a run's files; for tagging also the scheme, for question answering whether some questions
    /// have no answer.
    pub learn_labels: fn(&mut Description, &Files) -> Result<Vec<String>>,
    /// Creates the task, given its labels.
    pub open: fn(&Description, Vec<String>, &Tokenizer) -> Result<AnyTask>,
}

/// A task of the [`REGISTRY`], identified by its name.
#[derive(Clone, Copy)]
pub struct TaskKind(pub(crate) &'static TaskSpec);

impl TaskKind {
    /// The task of a model's head according to its configuration; `None` if there is no such task.
    pub fn of_head(config: &BertConfig) -> Option<Self> {
        let architecture = config.architectures.iter().flatten().next()?;
        let problem = config.head_problem();
        let is_kind = |kind: &&Self| {
            kind.architecture == architecture && kind.problem_type.is_none_or(|problem_type| problem_type == problem)
        };
        REGISTRY.iter().find(is_kind).copied()
    }
}

impl TaskKind {
    /// The metric that selects the best epoch by default.
    pub fn usual_metric(&self, is_labeled: bool) -> &'static str {
        self.labeled_metric.filter(|_| is_labeled).unwrap_or(self.main_metric)
    }

    /// Whether a pair of texts is encoded as one sequence, with a token type for each text.
    pub fn joins_pairs(&self) -> bool {
        *self != Self(&embedding::EMBEDDING)
    }
}

impl Default for TaskKind {
    fn default() -> Self {
        REGISTRY[0]
    }
}

impl Deref for TaskKind {
    type Target = TaskSpec;

    fn deref(&self) -> &TaskSpec {
        self.0
    }
}

impl PartialEq for TaskKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TaskKind {}

impl fmt::Debug for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl ValueEnum for TaskKind {
    fn value_variants<'a>() -> &'a [Self] {
        REGISTRY
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.about))
    }
}

impl Serialize for TaskKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for TaskKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const NAMES: [&str; REGISTRY.len()] = {
            let mut names = [""; REGISTRY.len()];
            let mut index = 0;
            while index < REGISTRY.len() {
                names[index] = REGISTRY[index].0.name;
                index += 1;
            }
            names
        };
        let name = String::deserialize(deserializer)?;
        let kind = REGISTRY.iter().find(|kind| kind.name == name).copied();
        kind.ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_found_by_its_name_and_can_be_decided() {
        for &kind in REGISTRY {
            assert_eq!(TaskKind::from_str(kind.name, false), Ok(kind));
            assert_eq!(serde_json::from_value::<TaskKind>(serde_json::json!(kind)).unwrap(), kind);
            assert!(kind.metrics.contains(&kind.main_metric), "{kind}");
        }
        let unknown = serde_json::from_str::<TaskKind>("\"chess\"").unwrap_err().to_string();
        assert!(unknown.starts_with("unknown variant `chess`, expected one of `classification`"), "{unknown}");
    }

    #[test]
    fn heads_from_elsewhere_are_understood() {
        let kind = |architecture: &str, problem_type, labels: &[&str]| {
            let config = BertConfig {
                architectures: Some(vec![architecture.into()]),
                problem_type,
                ..BertConfig::default().with_labels(labels)
            };
            TaskKind::of_head(&config).map(|kind| kind.name)
        };
        let sequence = "BertForSequenceClassification";
        assert_eq!(kind(sequence, None, &["a", "b"]), Some("classification"));
        assert_eq!(kind(sequence, None, &["a"]), Some("regression"));
        assert_eq!(kind(sequence, Some(ProblemType::SingleLabelClassification), &["a"]), Some("classification"));
        assert_eq!(kind(sequence, Some(ProblemType::MultiLabelClassification), &["a"]), Some("multi-label"));
        assert_eq!(kind("BertForTokenClassification", None, &["O"]), Some("tagging"));
        assert_eq!(kind("BertForPreTraining", None, &["a"]), None);
    }
}
