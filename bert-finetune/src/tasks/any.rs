//! All tasks in one place: from the description of a head to the task that it is for.

use std::path::Path;

use bert_cli::input::columns::Column;
use bert_cli::input::table::{LabelColumns, Row, read_table};
use bert_model::pipeline::{ChoiceProcessor, ClassificationProcessor, QuestionProcessor, TaggingProcessor};
use bert_model::{Error, ProblemType, Result, Tokenizer};

use super::kind::TaskName;
use super::multiple_choice::MultipleChoiceTask;
use super::question_answering::QuestionAnsweringTask;
use super::sequence::{SequenceTask, label_names};
use super::tagging::{TaggingTask, learned_tags};
use crate::data::squad::read_squad;
use crate::description::Description;

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
            $crate::tasks::any::AnyTask::Sequence($task) => $body,
            $crate::tasks::any::AnyTask::Tagging($task) => $body,
            $crate::tasks::any::AnyTask::QuestionAnswering($task) => $body,
            $crate::tasks::any::AnyTask::MultipleChoice($task) => $body,
        }
    };
}

impl Description {
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
                processor: ClassificationProcessor::new(
                    self.task.problem_type().unwrap_or(ProblemType::SingleLabelClassification),
                    labels,
                    tokenizer.truncating(self.max_seq_len)?,
                ),
                columns: self.table()?,
                main_metric: self.main_metric(),
                class_weights: Vec::new(),
            }),
            TaskName::Tagging => AnyTask::Tagging(TaggingTask {
                columns: self.conll()?,
                texts: self.inputs()?,
                processor: TaggingProcessor::new(tokenizer.clone(), labels, self.tag_scheme, self.max_seq_len)?,
                tag_weights: Vec::new(),
            }),
            TaskName::QuestionAnswering => AnyTask::QuestionAnswering(QuestionAnsweringTask {
                columns: self.inputs()?,
                processor: QuestionProcessor::new(tokenizer.clone(), self.max_seq_len, self.doc_stride)
                    .with_no_answer_threshold(self.no_answer_threshold),
            }),
            TaskName::MultipleChoice => AnyTask::MultipleChoice(MultipleChoiceTask {
                columns: self.choice_columns()?,
                processor: ChoiceProcessor::new(tokenizer.truncating(self.max_seq_len)?),
            }),
        })
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
    let tokenizer = Tokenizer::load(directory)?;
    description.check_fits(&config, &tokenizer)?;
    description.task(config.label_names()?, &tokenizer)
}
