//! The names, columns and metrics of the three tasks that share one head.

use bert_cli::input::table::{LabelColumns, TableOptions};
use bert_model::pipeline::ClassificationProcessor;
use bert_model::{BertForSequenceClassification, Pretrained, ProblemType, Result, Tokenizer};

use super::SequenceTask;
use crate::description::Description;
use crate::tasks::any::AnyTask;
use crate::tasks::kind::TaskSpec;
use crate::tasks::labels::{at_least, classes};

/// The description of single-label classification of texts or pairs.
pub const CLASSIFICATION: TaskSpec = TaskSpec {
    name: "classification",
    about: "One class for a text or a pair",
    architecture: BertForSequenceClassification::ARCHITECTURE,
    problem_type: Some(ProblemType::SingleLabelClassification),
    main_metric: "accuracy",
    labeled_metric: None,
    metrics: &["accuracy", "f1", "micro_f1", "macro_f1", "weighted_f1", "mcc"],
    max_seq_len: 128,
    columns: ("text", None),
    label: Some("label"),
    reads_pairs: false,
    reads_tables: true,
    options: &["text-pair", "pair", "class-weights"],
    check_columns: |description| columns(description).map(drop),
    learn_labels: |description, files| {
        at_least(2, classes(description, &columns(description)?, &files.training)?, &files.training)
    },
    open,
};

/// The description of multi-label classification.
pub const MULTI_LABEL: TaskSpec = TaskSpec {
    name: "multi-label",
    about: "Any number of labels",
    problem_type: Some(ProblemType::MultiLabelClassification),
    main_metric: "f1",
    metrics: &["accuracy", "f1", "micro_f1", "macro_f1", "weighted_f1"],
    options: &["text-pair", "pair"],
    learn_labels: |description, files| {
        at_least(1, classes(description, &columns(description)?, &files.training)?, &files.training)
    },
    ..CLASSIFICATION
};

/// The description of regression.
pub const REGRESSION: TaskSpec = TaskSpec {
    name: "regression",
    about: "A numeric value",
    problem_type: Some(ProblemType::Regression),
    main_metric: "pearson",
    metrics: &["pearson", "spearman"],
    options: &["text-pair", "pair"],
    learn_labels: |_, _| Ok(vec!["value".into()]),
    ..CLASSIFICATION
};

fn open(description: &Description, labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let problem = description.task.problem_type.unwrap_or(ProblemType::SingleLabelClassification);
    let tokenizer = tokenizer.truncating(description.max_seq_len)?;
    Ok(AnyTask::Sequence(SequenceTask {
        processor: ClassificationProcessor::new(problem, labels, tokenizer),
        columns: columns(description)?,
        main_metric: description.main_metric(),
        class_weights: Vec::new(),
    }))
}

/// The columns of a table.
fn columns(description: &Description) -> Result<TableOptions> {
    let label = |name: &str| match description.task.problem_type {
        Some(ProblemType::MultiLabelClassification) => LabelColumns::parse_multi(name, description.header),
        _ => Ok(LabelColumns::One(description.column(name)?)),
    };
    let label = description.label.as_deref().map(label).transpose()?;
    Ok(TableOptions { label, ..description.inputs()? })
}

#[cfg(test)]
mod tests {
    use bert_cli::input::columns::Column;

    use super::*;
    use crate::tasks::kind::TaskKind;

    #[test]
    fn columns_are_named_by_the_header_or_numbered() {
        let usual = Description::usual(TaskKind(&MULTI_LABEL), 64);
        let named = Description { text_pair: Some("b".into()), label: Some("x,y".into()), ..usual };
        let table = columns(&named).unwrap();
        assert_eq!((table.text, table.text_pair), (Column::Name("text".into()), Some(Column::Name("b".into()))));
        let both = vec![Column::Name("x".into()), Column::Name("y".into())];
        assert_eq!(table.label, Some(LabelColumns::Indicators(both)));
        assert_eq!(named.inputs().unwrap().label, None);
        let usual = Description::usual(TaskKind(&REGRESSION), 64);
        let numbered = Description { header: false, text: "2".into(), label: Some("1".into()), ..usual };
        assert_eq!(columns(&numbered).unwrap().text, Column::Number(2));
    }
}
