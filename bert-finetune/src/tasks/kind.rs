//! The kinds of tasks by their names, and what is known of each without a file.

use std::fmt;

use bert_model::{
    BertForMultipleChoice, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification,
    Pretrained, ProblemType,
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TaskName {
    /// One class for a text or a pair.
    Classification,
    /// Any number of labels.
    MultiLabel,
    /// A value.
    Regression,
    /// A tag for every word.
    Tagging,
    /// The span of a text that answers a question.
    QuestionAnswering,
    /// The best of several continuations.
    MultipleChoice,
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("task", |value| value.get_name()))
    }
}

impl TaskName {
    /// How `config.json` calls it, if it has a word for it.
    pub fn problem_type(self) -> Option<ProblemType> {
        match self {
            Self::Classification => Some(ProblemType::SingleLabelClassification),
            Self::MultiLabel => Some(ProblemType::MultiLabelClassification),
            Self::Regression => Some(ProblemType::Regression),
            _ => None,
        }
    }

    /// The class in transformers that has the head.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Classification | Self::MultiLabel | Self::Regression => BertForSequenceClassification::ARCHITECTURE,
            Self::Tagging => BertForTokenClassification::ARCHITECTURE,
            Self::QuestionAnswering => BertForQuestionAnswering::ARCHITECTURE,
            Self::MultipleChoice => BertForMultipleChoice::ARCHITECTURE,
        }
    }

    /// The metric that decides unless another one is named.
    pub fn default_metric(self) -> &'static str {
        match self {
            Self::Classification | Self::MultipleChoice => "accuracy",
            Self::MultiLabel | Self::Tagging | Self::QuestionAnswering => "f1",
            Self::Regression => "pearson",
        }
    }

    /// The metrics that can decide which epoch is kept, all of which are better when higher.
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::Classification => &["accuracy", "f1", "macro_f1", "weighted_f1", "mcc"],
            Self::MultiLabel => &["accuracy", "f1", "micro_f1", "macro_f1", "weighted_f1"],
            Self::Regression => &["pearson", "spearman"],
            Self::MultipleChoice => &["accuracy"],
            Self::Tagging | Self::QuestionAnswering => &["f1"],
        }
    }

    /// The longest sequence unless another one is named.
    pub fn default_length(self) -> usize {
        if self == Self::QuestionAnswering { 384 } else { 128 }
    }
}
