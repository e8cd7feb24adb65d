//! `finetune.json`: what a head needs to be used again — the task, the columns of its files, the longest sequence — so
//! that `evaluate` and `predict` need no flags. A directory from elsewhere is understood by its `config.json`.

use std::path::Path;

use bert_cli::input::columns::Column;
use bert_cli::input::table::{LabelColumns, TableOptions};
use bert_model::file::replace_file;
use bert_model::pipeline::tags::TagScheme;
use bert_model::{BertConfig, Error, ProblemType, Result, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::data::choices::ChoiceOptions;
use crate::data::conll::{ConllColumns, TagColumn};
use crate::tasks::kind::TaskName;

const FILE: &str = "finetune.json";

/// Tokens that a sequence must have room for: special tokens, and some of every text of a pair.
pub const SHORTEST_SEQUENCE: usize = 8;

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

    pub(crate) fn choice_columns(&self) -> Result<ChoiceOptions> {
        Ok(ChoiceOptions {
            text: self.column(&self.text)?,
            text_pair: self.text_pair.as_deref().map(|name| self.column(name)).transpose()?,
            choices: self.choices.iter().map(|name| self.column(name)).collect::<Result<_>>()?,
            label: self.label.as_deref().map(|name| self.column(name)).transpose()?,
            header: self.header,
        })
    }

    /// Where a table has what.
    pub(crate) fn table(&self) -> Result<TableOptions> {
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
    pub(crate) fn main_metric(&self) -> &'static str {
        let named = self.task.metrics().iter().find(|name| **name == self.metric);
        named.copied().unwrap_or(self.task.default_metric())
    }

    fn column(&self, name: &str) -> Result<Column> {
        Column::parse(name, self.header)
    }

    /// Where a CoNLL file has what.
    pub(crate) fn conll(&self) -> Result<ConllColumns> {
        let parse = |column: &Option<String>| column.as_deref().map(TagColumn::parse).transpose();
        Ok(ConllColumns { token: parse(&self.token_column)?, tag: parse(&self.tag_column)? })
    }

    /// Where a table has texts, or questions with theirs, and nothing else.
    pub(crate) fn inputs(&self) -> Result<TableOptions> {
        Self { label: None, ..self.clone() }.table()
    }

    /// The same with another threshold of "no answer", if there is one.
    pub fn with_threshold(self, threshold: Option<f64>) -> Self {
        Self { no_answer_threshold: threshold.or(self.no_answer_threshold), ..self }
    }
}
