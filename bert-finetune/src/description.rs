//! `finetune.json`: what a head needs to be used again — the task, the columns of its files, the longest sequence — so
//! that `evaluate` and `predict` need no flags. A directory from elsewhere is understood by its `config.json`.

use std::fmt;
use std::path::Path;

use bert_model::pretrained::replace_file;
use bert_model::{BertConfig, Error, ProblemType, Result, Tokenizer};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::args::ColumnArgs;
use crate::data::choices::ChoiceOptions;
use crate::data::conll::{ConllOptions, TagColumn};
use crate::data::squad::read_squad;
use crate::data::tags::TagScheme;
use crate::tasks::multiple_choice::MultipleChoiceTask;
use crate::tasks::question_answering::QuestionAnsweringTask;
use crate::tasks::sequence::{SequenceTask, label_names};
use crate::tasks::tagging::{TaggingTask, learned_tags};
use bert_pretrain::input::columns::Column;
use bert_pretrain::input::table::{LabelColumns, Row, TableOptions, read_table};

const FILE: &str = "finetune.json";

/// Tokens that a sequence must have room for: special tokens, and some of every text of a pair.
pub const SHORTEST_SEQUENCE: usize = 8;

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

/// What `finetune.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What the model is asked for.
    pub task: TaskName,
    /// Column of the text.
    pub text: String,
    /// Column of the second text of a pair.
    pub text_pair: Option<String>,
    /// Column (or columns, with commas) of the label.
    pub label: String,
    /// Columns of the choices.
    pub choices: Vec<String>,
    /// Whether tables begin with a header.
    pub header: bool,
    /// Whether rows with too few fields are passed over, as GLUE's own readers do for QQP.
    #[serde(default)]
    pub skip_short_rows: bool,
    /// Column of the word in a CoNLL file; none for the usual one.
    pub token_column: Option<String>,
    /// Column of the tag in a CoNLL file; none for the usual one.
    pub tag_column: Option<String>,
    /// What the prefixes of the tags mean, as learned.
    pub tag_scheme: TagScheme,
    /// Longest sequence in tokens.
    pub max_seq_len: usize,
    /// Pieces between the beginnings of two windows of a long text.
    pub doc_stride: usize,
    /// Whether a question may have no answer, and how much must speak for that.
    pub no_answer_threshold: Option<f64>,
    /// The metric that decides which epoch is best.
    pub metric: String,
}

/// One of the tasks, ready to be asked.
#[derive(Debug, Clone)]
pub enum AnyTask {
    /// Classification, multi-label, regression.
    Sequence(SequenceTask),
    /// Tags of words.
    Tagging(TaggingTask),
    /// Answers to questions.
    QuestionAnswering(QuestionAnsweringTask),
    /// Choices.
    MultipleChoice(MultipleChoiceTask),
}

/// Runs the same generic code on whichever task it is.
#[macro_export]
macro_rules! for_task {
    ($any:expr, $task:ident => $body:expr) => {
        match $any {
            $crate::description::AnyTask::Sequence($task) => $body,
            $crate::description::AnyTask::Tagging($task) => $body,
            $crate::description::AnyTask::QuestionAnswering($task) => $body,
            $crate::description::AnyTask::MultipleChoice($task) => $body,
        }
    };
}

impl Description {
    /// Of the model in `directory`: what was written there, else what its `config.json` lets one conclude.
    ///
    /// # Errors
    /// If the directory does not say for what its head was trained.
    pub fn read(directory: &Path, config: &BertConfig) -> Result<Self> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Self::conclude(directory, config);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let description: Self = serde_json::from_str(&text)
            .map_err(|error| Error::line(&path, error.line() as u64, error.to_string(), "a description of a head"))?;
        let positions = config.max_position_embeddings;
        let length = description.max_seq_len;
        let check = |good: bool, key: &str, found: usize, expected: String| match good {
            true => Ok(()),
            false => Err(Error::config(path.display().to_string(), key, found.to_string(), expected)),
        };
        let lengths = format!("from {SHORTEST_SEQUENCE} to the model's {positions}");
        check((SHORTEST_SEQUENCE..=positions).contains(&length), "max_seq_len", length, lengths)?;
        check(description.doc_stride > 0, "doc_stride", description.doc_stride, "at least 1".into())?;
        let columns = description.check_columns();
        columns.map_err(|error| Error::file(&path, error.to_string(), "the columns of a table"))?;
        Ok(description)
    }

    fn conclude(directory: &Path, config: &BertConfig) -> Result<Self> {
        let architecture = config.architectures.iter().flatten().next().map_or("none", String::as_str);
        let task = match (architecture, config.problem_type, config.num_labels()) {
            ("BertForSequenceClassification", Some(ProblemType::MultiLabelClassification), _) => TaskName::MultiLabel,
            ("BertForSequenceClassification", Some(ProblemType::Regression), _)
            | ("BertForSequenceClassification", None, 1) => TaskName::Regression,
            ("BertForSequenceClassification", ..) => TaskName::Classification,
            ("BertForTokenClassification", ..) => TaskName::Tagging,
            ("BertForQuestionAnswering", ..) => TaskName::QuestionAnswering,
            ("BertForMultipleChoice", ..) => TaskName::MultipleChoice,
            (other, ..) => {
                return Err(Error::file(
                    directory.join("config.json"),
                    format!("architecture {other}"),
                    "a fine-tuned model; train one with `bert-finetune train`",
                ));
            }
        };
        let labels = config.labels()?.unwrap_or_default();
        Ok(Self { tag_scheme: TagScheme::detect([&labels[..]]), ..Self::usual(task, config.max_position_embeddings) })
    }

    /// The usual columns.
    pub fn usual(task: TaskName, max_seq_len: usize) -> Self {
        Self {
            task,
            text: "text".into(),
            text_pair: None,
            label: "label".into(),
            choices: Vec::new(),
            header: true,
            skip_short_rows: false,
            token_column: None,
            tag_column: None,
            tag_scheme: TagScheme::Iob2,
            max_seq_len,
            doc_stride: 128,
            no_answer_threshold: None,
            metric: task.default_metric().into(),
        }
    }

    /// Writes it beside the model.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Setting(error.to_string()))?;
        replace_file(directory.join(FILE), (text + "\n").as_bytes())
    }

    /// Checks that a model can read what the task and the tokenizer give it.
    ///
    /// # Errors
    /// If the vocabulary is larger than the model's, or two texts are read by a model of one token type.
    pub fn check_fits(&self, config: &BertConfig, tokenizer: &Tokenizer) -> Result<()> {
        tokenizer.check_fits(config)?;
        let always = matches!(self.task, TaskName::QuestionAnswering | TaskName::MultipleChoice);
        if always || self.text_pair.is_some() { config.check_pairs() } else { Ok(()) }
    }

    /// Checks that the columns can be columns, whether or not a file has them.
    fn check_columns(&self) -> Result<()> {
        match self.task {
            TaskName::QuestionAnswering => Ok(()),
            TaskName::Tagging => self.conll(None).map(drop),
            TaskName::MultipleChoice => self.choice_columns().map(drop),
            TaskName::Classification | TaskName::MultiLabel | TaskName::Regression => self.table().map(drop),
        }
    }

    fn choice_columns(&self) -> Result<ChoiceOptions> {
        Ok(ChoiceOptions {
            text: self.column(&self.text)?,
            text_pair: self.text_pair.as_deref().map(|name| self.column(name)).transpose()?,
            choices: self.choices.iter().map(|name| self.column(name)).collect::<Result<_>>()?,
            label: Some(self.column(&self.label)?),
            header: self.header,
        })
    }

    /// Where a labelled table has what.
    fn table(&self) -> Result<TableOptions> {
        let label = match self.task {
            TaskName::MultiLabel => LabelColumns::parse_multi(&self.label, self.header)?,
            _ => LabelColumns::One(self.column(&self.label)?),
        };
        Ok(TableOptions {
            text: self.column(&self.text)?,
            text_pair: self.text_pair.as_deref().map(|name| self.column(name)).transpose()?,
            label: Some(label),
            header: self.header,
            skip_short_rows: self.skip_short_rows,
        })
    }

    /// The metric that decides; the task's own if the one that is named is of another.
    fn main_metric(&self) -> &'static str {
        let named = self.task.metrics().iter().find(|name| **name == self.metric);
        named.copied().unwrap_or(self.task.default_metric())
    }

    fn column(&self, name: &str) -> Result<Column> {
        Column::parse(name, self.header)
    }

    /// Where a CoNLL file has what; `None` for the usual places.
    fn conll(&self, path: Option<&Path>) -> Result<Option<ConllOptions>> {
        if self.token_column.is_none() && self.tag_column.is_none() {
            return Ok(None);
        }
        let usual = ConllOptions::usual(path.unwrap_or(Path::new("")));
        let parse = |column: &Option<String>| column.as_deref().map(TagColumn::parse).transpose();
        let (token, tag) = (parse(&self.token_column)?, parse(&self.tag_column)?);
        Ok(Some(ConllOptions { token: token.unwrap_or(usual.token), tag: tag.or(usual.tag) }))
    }

    /// Learns the labels of a training file; for tags what their prefixes mean, for questions whether some have no
    /// answer.
    ///
    /// # Errors
    /// What is wrong in the file, or if it leaves nothing to learn.
    pub fn learn_labels(&mut self, training: &Path) -> Result<Vec<String>> {
        let labels = match self.task {
            TaskName::Regression => return Ok(vec!["value".into()]),
            TaskName::QuestionAnswering => {
                let can_be_impossible = read_squad(training)?.iter().any(|question| question.is_impossible);
                self.no_answer_threshold = can_be_impossible.then_some(0.0);
                return Ok(Vec::new());
            }
            TaskName::MultipleChoice => return Ok(Vec::new()),
            TaskName::Classification | TaskName::MultiLabel => {
                let rows: Vec<Row> = read_table(training, &self.table()?)?.collect::<Result<_>>()?;
                label_names(&rows)
            }
            TaskName::Tagging => {
                let mut sentences = TaggingTask::sentences(self.conll(Some(training))?, training)?;
                let (labels, scheme) = learned_tags(&mut sentences);
                self.tag_scheme = scheme;
                labels
            }
        };
        let enough = if self.task == TaskName::MultiLabel { 1 } else { 2 };
        if labels.len() < enough {
            let found = format!("one label only, {:?}", labels.first().map_or("none", String::as_str));
            return Err(Error::file(training, found, "at least two classes to tell apart"));
        }
        Ok(labels)
    }

    /// The task with its labels.
    ///
    /// # Errors
    /// A column name where there is no header, or a `max_seq_len` that leaves no room for text.
    pub fn task(&self, labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
        Ok(match self.task {
            TaskName::Classification | TaskName::MultiLabel | TaskName::Regression => AnyTask::Sequence(SequenceTask {
                kind: self.task.problem_type().unwrap_or(ProblemType::SingleLabelClassification),
                columns: self.table()?,
                labels,
                tokenizer: tokenizer.truncating(self.max_seq_len)?,
                main_metric: self.main_metric(),
                class_weights: Vec::new(),
            }),
            TaskName::Tagging => AnyTask::Tagging(TaggingTask {
                columns: self.conll(None)?,
                labels,
                scheme: self.tag_scheme,
                max_seq_len: self.max_seq_len,
                tokenizer: tokenizer.clone(),
                tag_weights: Vec::new(),
            }),
            TaskName::QuestionAnswering => AnyTask::QuestionAnswering(QuestionAnsweringTask {
                max_seq_len: self.max_seq_len,
                doc_stride: self.doc_stride,
                threshold: self.no_answer_threshold,
                n_best: 0,
                tokenizer: tokenizer.clone(),
            }),
            TaskName::MultipleChoice => AnyTask::MultipleChoice(MultipleChoiceTask {
                columns: self.choice_columns()?,
                tokenizer: tokenizer.truncating(self.max_seq_len)?,
            }),
        })
    }
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

/// The task of a fine-tuned model directory.
///
/// # Errors
/// If it is not one.
pub fn open_task(directory: &Path) -> Result<AnyTask> {
    open_task_for(directory, &ColumnArgs::default(), None)
}

/// As [`open_task`], for tables that may have other columns than the training file had.
///
/// # Errors
/// If it is not one.
pub fn open_task_for(directory: &Path, columns: &ColumnArgs, label: Option<&str>) -> Result<AnyTask> {
    let config = bert_model::pretrained::load_config(directory)?;
    let mut description = Description::read(directory, &config)?;
    let ColumnArgs { text, text_pair, no_header } = columns.clone();
    description.text = text.unwrap_or(description.text);
    description.text_pair = text_pair.or(description.text_pair);
    description.label = label.map_or(description.label, str::to_string);
    description.header &= !no_header;
    let numbered = || (0..config.num_labels()).map(|id| format!("LABEL_{id}")).collect();
    let labels = config.labels()?.unwrap_or_else(numbered);
    let tokenizer = Tokenizer::load(directory)?;
    description.check_fits(&config, &tokenizer)?;
    description.task(labels, &tokenizer)
}
