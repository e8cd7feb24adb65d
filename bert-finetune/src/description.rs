//! `finetune.json`: what a head needs to be used again — the task, the columns of its files, the longest sequence — so
//! that `evaluate` and `predict` need no flags. A directory from elsewhere is understood by its `config.json`.

use std::fmt;
use std::path::Path;

use bert_model::pretrained::replace_file;
use bert_model::{
    BertConfig, BertForMultipleChoice, BertForQuestionAnswering, BertForSequenceClassification,
    BertForTokenClassification, Error, Pretrained, ProblemType, Result, Tokenizer,
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::args::ColumnArgs;
use crate::data::choices::ChoiceOptions;
use crate::data::conll::{ConllColumns, TagColumn};
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
    /// Column (or columns, with commas) of the label; `None` reads texts alone.
    pub label: Option<String>,
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
        let is_answering = task == TaskName::QuestionAnswering;
        Self {
            task,
            text: if is_answering { "question".into() } else { "text".into() },
            text_pair: is_answering.then(|| "context".into()),
            label: Some("label".into()),
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
            TaskName::Tagging => self.conll().map(drop),
            TaskName::MultipleChoice => self.choice_columns().map(drop),
            TaskName::Classification | TaskName::MultiLabel | TaskName::Regression => self.table().map(drop),
        }
    }

    fn choice_columns(&self) -> Result<ChoiceOptions> {
        Ok(ChoiceOptions {
            text: self.column(&self.text)?,
            text_pair: self.text_pair.as_deref().map(|name| self.column(name)).transpose()?,
            choices: self.choices.iter().map(|name| self.column(name)).collect::<Result<_>>()?,
            label: self.label.as_deref().map(|name| self.column(name)).transpose()?,
            header: self.header,
        })
    }

    /// Where a table has what.
    fn table(&self) -> Result<TableOptions> {
        let label = |name: &str| match self.task {
            TaskName::MultiLabel => LabelColumns::parse_multi(name, self.header),
            _ => Ok(LabelColumns::One(self.column(name)?)),
        };
        Ok(TableOptions {
            text: self.column(&self.text)?,
            text_pair: self.text_pair.as_deref().map(|name| self.column(name)).transpose()?,
            label: self.label.as_deref().map(label).transpose()?,
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

    /// Where a CoNLL file has what.
    fn conll(&self) -> Result<ConllColumns> {
        let parse = |column: &Option<String>| column.as_deref().map(TagColumn::parse).transpose();
        Ok(ConllColumns { token: parse(&self.token_column)?, tag: parse(&self.tag_column)? })
    }

    /// Where a table has texts, or questions with theirs, and nothing else.
    fn inputs(&self) -> Result<TableOptions> {
        Self { label: None, ..self.clone() }.table()
    }

    /// The same with other columns.
    ///
    /// A name means that there is a header, whatever the training file had.
    pub fn with_columns(self, columns: &ColumnArgs, label: Option<&str>) -> Self {
        let ColumnArgs { text, text_pair, choices, no_header } = columns.clone();
        let named = [text.as_deref(), text_pair.as_deref(), label]
            .into_iter()
            .flatten()
            .chain(choices.iter().map(String::as_str));
        let is_named = named.flat_map(|columns| columns.split(',')).any(|column| column.parse::<usize>().is_err());
        Self {
            header: !no_header && (self.header || is_named),
            text: text.unwrap_or(self.text),
            text_pair: text_pair.or(self.text_pair),
            label: label.map(str::to_string).or(self.label),
            choices: if choices.is_empty() { self.choices } else { choices },
            ..self
        }
    }

    /// The same with another threshold of "no answer", if there is one.
    pub fn with_threshold(self, threshold: Option<f64>) -> Self {
        Self { no_answer_threshold: threshold.or(self.no_answer_threshold), ..self }
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
                let table = self.table()?;
                let rows: Vec<Row> = read_table(training, &table)?.collect::<Result<_>>()?;
                let found = label_names(&rows);
                match table.label {
                    // A column by its name is a label, though no training text may have it.
                    Some(LabelColumns::Indicators(columns)) => {
                        let names: Vec<String> = columns.iter().map(Column::to_string).collect();
                        if found.iter().all(|label| names.contains(label)) { names } else { found }
                    }
                    _ => found,
                }
            }
            TaskName::Tagging => {
                let mut sentences = TaggingTask::sentences(self.conll()?, training)?;
                let (labels, scheme) = learned_tags(&mut sentences);
                if labels.iter().all(|label| label.parse::<f64>().is_ok()) {
                    let file = training.display();
                    eprintln!("warning: {file}: the tags are numbers, which mark no entities: `f1` is the accuracy");
                }
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
                columns: self.conll()?,
                texts: self.inputs()?,
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
                columns: self.inputs()?,
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

/// The task of a fine-tuned model directory.
///
/// # Errors
/// If it is not one.
pub fn open_task(directory: &Path) -> Result<AnyTask> {
    open_task_for(directory, |description| description)
}

/// As [`open_task`], for files that may have other columns than the training file had.
///
/// # Errors
/// If it is not one.
pub fn open_task_for(directory: &Path, change: impl FnOnce(Description) -> Description) -> Result<AnyTask> {
    let config = bert_model::pretrained::load_config(directory)?;
    let description = change(Description::read(directory, &config)?);
    let numbered = || (0..config.num_labels()).map(|id| format!("LABEL_{id}")).collect();
    let labels = config.labels()?.unwrap_or_else(numbered);
    let tokenizer = Tokenizer::load(directory)?;
    description.check_fits(&config, &tokenizer)?;
    description.task(labels, &tokenizer)
}
