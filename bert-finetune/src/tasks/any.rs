//! All tasks in one type: opens a model directory as the task that it was trained for.

use std::path::Path;

use bert_model::Result;
use bert_train::run_directory::check_has_model;

use super::embedding::EmbeddingTask;
use super::kind::TaskKind;
use super::multiple_choice::MultipleChoiceTask;
use super::question_answering::QuestionAnsweringTask;
use super::sequence::SequenceTask;
use super::tagging::TaggingTask;
use crate::description::Description;
use crate::model_directory::{config_of, tokenizer_of};

/// A task of any kind, with its labels and tokenizer.
#[derive(Debug, Clone)]
pub enum AnyTask {
    /// Classification, multi-label, regression.
    Sequence(SequenceTask),
    /// Tagging of words.
    Tagging(TaggingTask),
    /// Question answering.
    QuestionAnswering(QuestionAnsweringTask),
    /// Multiple choice.
    MultipleChoice(MultipleChoiceTask),
    /// Sentence embeddings.
    Embedding(EmbeddingTask),
}

/// Evaluates the same generic code for a task of any kind.
#[macro_export]
macro_rules! for_task {
    ($any:expr, $task:ident => $body:expr) => {
        match $any {
            $crate::tasks::any::AnyTask::Sequence($task) => $body,
            $crate::tasks::any::AnyTask::Tagging($task) => $body,
            $crate::tasks::any::AnyTask::QuestionAnswering($task) => $body,
            $crate::tasks::any::AnyTask::MultipleChoice($task) => $body,
            $crate::tasks::any::AnyTask::Embedding($task) => $body,
        }
    };
}

/// Opens the task of a fine-tuned model directory.
///
/// # Errors
/// If the directory is not a fine-tuned model.
pub fn open_task(directory: &Path) -> Result<AnyTask> {
    open_task_for(directory, None, |description| description)
}

/// Like [`open_task`], for files whose columns may differ from those of the training file. `task` is used for a model
/// whose configuration does not specify one.
///
/// # Errors
/// As for [`open_task`], or if the model was trained for a different task.
pub fn open_task_for(
    directory: &Path,
    task: Option<TaskKind>,
    change: impl FnOnce(Description) -> Description,
) -> Result<AnyTask> {
    check_has_model(directory)?;
    let config = config_of(directory)?;
    let description = change(Description::read(directory, &config, task)?);
    let tokenizer = tokenizer_of(directory)?;
    description.check_fits(&config, &tokenizer)?;
    (description.task.open)(&description, config.label_names()?, &tokenizer)
}
