//! `finetune.json`: the task, columns and sequence length of a fine-tuned model, so that `evaluate` and `predict` need
//! no options. For a model directory without it, they are derived from `config.json`.

use std::path::Path;

use bert_cli::input::columns::Column;
use bert_cli::input::header::ColumnSource;
use bert_cli::input::table::TableOptions;
use bert_model::file::{read_json, write_json};
use bert_model::pipeline::SentenceTransformer;
use bert_model::pipeline::tags::{TagReader, TagScheme};
use bert_model::{BertConfig, Error, Result, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::tasks::embedding::EmbeddingSettings;
use crate::tasks::kind::TaskKind;

const FILE: &str = "finetune.json";

/// Minimum sequence length in tokens: room for the special tokens, and for part of each text of a pair.
pub const SHORTEST_SEQUENCE: usize = 8;

/// The contents of `finetune.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The task of the model.
    pub task: TaskKind,
    /// Column of the text.
    pub text: String,
    /// Column of the second text of a pair.
    pub text_pair: Option<String>,
    /// Column (or columns, separated by commas) of the label; `None` reads texts only.
    pub label: Option<String>,
    /// Columns of the choices.
    pub choices: Vec<String>,
    /// Whether tables begin with a header.
    pub header: bool,
    /// Where the column names come from.
    #[serde(skip)]
    pub source: ColumnSource,
    /// Whether rows with too few fields are skipped, as GLUE's own readers do for QQP.
    #[serde(default)]
    pub skip_short_rows: bool,
    /// Whether the classes are numbered from 0, as in GLUE's data sets, where −1 marks an unlabeled row.
    #[serde(default)]
    pub numbered_classes: bool,
    /// Column of the word in a CoNLL file; `None` for the default.
    pub token_column: Option<String>,
    /// Column of the tag in a CoNLL file; `None` for the default.
    pub tag_column: Option<String>,
    /// The tagging scheme.
    pub tag_scheme: TagScheme,
    /// Maximum sequence length in tokens.
    pub max_seq_len: usize,
    /// Distance in WordPieces between the starts of two windows over a long text.
    pub doc_stride: usize,
    /// Threshold of the no-answer score; `None` if every question has an answer.
    pub no_answer_threshold: Option<f64>,
    /// The metric that selects the best epoch.
    pub metric: String,
    /// How embeddings are learned.
    #[serde(default)]
    pub embedding: EmbeddingSettings,
}

impl Description {
    /// Reads the description of the model in `directory`, or derives one from its `config.json`. `task` is given by the
    /// user for a model that does not specify the task of its head.
    ///
    /// # Errors
    /// If nothing specifies the task of the head, or if the directory contradicts `task`.
    pub fn read(directory: &Path, config: &BertConfig, task: Option<TaskKind>) -> Result<Self> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Self::conclude(directory, config, task);
        }
        let description: Self = read_json(&path, "a description of a head")?;
        if let Some(asked) = task.filter(|asked| *asked != description.task) {
            return Err(contradicted(asked, &path, description.task));
        }
        let description = Self { source: ColumnSource::Remembered, ..description }.of_model(directory);
        let positions = config.max_position_embeddings;
        let length = description.max_seq_len;
        let check = |good: bool, key: &str, found: usize, expected: String| match good {
            true => Ok(()),
            false => Err(Error::config(path.display().to_string(), key, found.to_string(), expected)),
        };
        let lengths = format!("from {SHORTEST_SEQUENCE} to the model's {positions}");
        check((SHORTEST_SEQUENCE..=positions).contains(&length), "max_seq_len", length, lengths)?;
        check(description.doc_stride > 0, "doc_stride", description.doc_stride, "at least 1".into())?;
        (description.task.check_columns)(&description)
            .map_err(|error| Error::file(&path, error.to_string(), "the columns of a table"))?;
        Ok(description)
    }

    fn conclude(directory: &Path, config: &BertConfig, asked: Option<TaskKind>) -> Result<Self> {
        let path = directory.join("config.json");
        let told = TaskKind::of_head(config);
        let task = match (told, asked) {
            (Some(told), Some(asked)) if told != asked => {
                // A head can serve several tasks if `problem_type` is not set.
                if told.architecture != asked.architecture || config.problem_type.is_some() {
                    return Err(contradicted(asked, &path, told));
                }
                asked
            }
            (told, asked) => asked.or(told).ok_or_else(|| {
                let architecture = config.architectures.iter().flatten().next().map_or("none", String::as_str);
                let expected = "a fine-tuned model; train one with `bert-finetune train`, or specify the task of this \
                                one with --task";
                Error::file(&path, format!("architecture {architecture}"), expected)
            })?,
        };
        let labels = config.labels()?.unwrap_or_default();
        let length = match SentenceTransformer::read(directory)? {
            Some(how) if !task.joins_pairs() => how.max_length.unwrap_or(config.max_position_embeddings),
            _ => config.max_position_embeddings,
        };
        let usual = Self::usual(task, length.min(config.max_position_embeddings));
        let tag_scheme = TagReader::of_labels(&labels).scheme();
        Ok(Self { tag_scheme, ..usual }.of_model(directory))
    }

    /// Sets the model directory, which configures how texts are embedded.
    pub fn of_model(mut self, directory: &Path) -> Self {
        if !self.task.joins_pairs() {
            self.embedding.model = directory.into();
        }
        self
    }

    /// The default description of a task.
    pub fn usual(task: TaskKind, max_seq_len: usize) -> Self {
        let (text, text_pair) = task.columns;
        Self {
            task,
            text: text.into(),
            text_pair: text_pair.map(Into::into),
            label: task.label.map(Into::into),
            choices: Vec::new(),
            header: true,
            source: ColumnSource::Usual,
            skip_short_rows: false,
            numbered_classes: false,
            token_column: None,
            tag_column: None,
            tag_scheme: TagScheme::Iob2,
            max_seq_len,
            doc_stride: 128,
            no_answer_threshold: None,
            metric: task.main_metric.into(),
            embedding: EmbeddingSettings::default(),
        }
    }

    /// Writes `finetune.json` to the model directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        write_json(directory.join(FILE), self)
    }

    /// Checks, before any text is read, that the model accepts the input of the task and the tokenizer.
    ///
    /// # Errors
    /// Those of [`Tokenizer::check_fits`] and [`Tokenizer::check_fits_pairs`].
    pub fn check_fits(&self, config: &BertConfig, tokenizer: &Tokenizer) -> Result<()> {
        match self.task.reads_pairs || self.text_pair.is_some() && self.task.joins_pairs() {
            true => tokenizer.check_fits_pairs(config),
            false => tokenizer.check_fits(config),
        }
    }

    /// The metric that selects the best epoch; the task's default if the named metric belongs to another task.
    pub(crate) fn main_metric(&self) -> &'static str {
        let named = self.task.metrics.iter().find(|name| **name == self.metric);
        named.copied().unwrap_or(self.task.usual_metric(self.label.is_some()))
    }

    /// Parses a column name or number.
    pub(crate) fn column(&self, name: &str) -> Result<Column> {
        Column::parse(name, self.header)
    }

    /// The column of the second text of a pair, if set.
    pub(crate) fn pair_column(&self) -> Result<Option<Column>> {
        self.text_pair.as_deref().map(|name| self.column(name)).transpose()
    }

    /// The columns of texts, or of questions and contexts, without labels.
    pub(crate) fn inputs(&self) -> Result<TableOptions> {
        Ok(TableOptions {
            text: self.column(&self.text)?,
            text_pair: self.pair_column()?,
            label: None,
            header: self.header,
            skip_short_rows: self.skip_short_rows,
            source: self.source,
        })
    }

    /// Replaces the no-answer threshold, if one is given.
    pub fn with_threshold(self, threshold: Option<f64>) -> Self {
        Self { no_answer_threshold: threshold.or(self.no_answer_threshold), ..self }
    }
}

fn contradicted(asked: TaskKind, path: &Path, told: TaskKind) -> Error {
    Error::Usage(format!("--task {asked}: {} says that the model is for {told}", path.display()))
}

#[cfg(test)]
mod tests;
