//! What a model directory says of its head.

use bert_cli::input::columns::Column;
use tempfile::TempDir;

use super::*;

fn config(architecture: &str) -> BertConfig {
    BertConfig { architectures: Some(vec![architecture.into()]), ..BertConfig::default() }
}

#[test]
fn what_is_saved_is_read_again() {
    let directory = TempDir::new().unwrap();
    let saved = Description {
        text_pair: Some("b".into()),
        tag_scheme: TagScheme::Iobes,
        no_answer_threshold: Some(-1.5),
        ..Description::usual(TaskName::Classification, 64)
    };
    saved.save(directory.path()).unwrap();
    assert_eq!(Description::read(directory.path(), &BertConfig::default()).unwrap(), saved);
}

#[test]
fn a_directory_from_elsewhere_is_understood_by_its_configuration() {
    let directory = TempDir::new().unwrap();
    let conclude = |config: &BertConfig| Description::read(directory.path(), config);
    for (config, task) in [
        (config("BertForSequenceClassification").with_labels(&["a", "b"]), TaskName::Classification),
        (config("BertForSequenceClassification").with_labels(&["a"]), TaskName::Regression),
        (
            BertConfig {
                problem_type: Some(ProblemType::MultiLabelClassification),
                ..config("BertForSequenceClassification").with_labels(&["a", "b"])
            },
            TaskName::MultiLabel,
        ),
        (config("BertForTokenClassification").with_labels(&["O", "B-X", "I-X"]), TaskName::Tagging),
        (config("BertForQuestionAnswering"), TaskName::QuestionAnswering),
        (config("BertForMultipleChoice"), TaskName::MultipleChoice),
    ] {
        let found = conclude(&config).unwrap();
        assert_eq!((found.task, found.max_seq_len), (task, config.max_position_embeddings));
    }
    let message = conclude(&config("BertForPreTraining")).unwrap_err().to_string();
    assert!(message.contains("architecture BertForPreTraining"), "{message}");
}

#[test]
fn what_cannot_be_is_refused_with_the_file() {
    let directory = TempDir::new().unwrap();
    let usual = serde_json::json!(Description::usual(TaskName::Classification, 64));
    for (key, value, expected) in [
        ("max_seq_len", serde_json::json!(7), "max_seq_len"),
        ("max_seq_len", serde_json::json!(513), "max_seq_len"),
        ("doc_stride", serde_json::json!(0), "doc_stride"),
        ("task", serde_json::json!("poetry"), "poetry"),
        ("surprise", serde_json::json!(1), "surprise"),
        ("header", serde_json::json!(false), "--no-header"),
    ] {
        let mut description = usual.clone();
        description[key] = value;
        std::fs::write(directory.path().join(FILE), description.to_string()).unwrap();
        let message = Description::read(directory.path(), &BertConfig::default()).unwrap_err().to_string();
        assert!(message.contains(FILE) && message.contains(expected), "{key}: {message}");
    }
}

#[test]
fn columns_are_named_by_the_header_or_numbered() {
    let named = Description { text_pair: Some("b".into()), ..Description::usual(TaskName::MultiLabel, 64) };
    let columns = Description { label: Some("x,y".into()), ..named.clone() }.table().unwrap();
    assert_eq!((columns.text, columns.text_pair), (Column::Name("text".into()), Some(Column::Name("b".into()))));
    let both = vec![Column::Name("x".into()), Column::Name("y".into())];
    assert_eq!(columns.label, Some(LabelColumns::Indicators(both)));
    assert_eq!(named.inputs().unwrap().label, None);
    let numbered = Description {
        header: false,
        text: "2".into(),
        label: Some("1".into()),
        ..Description::usual(TaskName::Regression, 64)
    };
    assert_eq!(numbered.table().unwrap().text, Column::Number(2));
}

#[test]
fn a_metric_of_another_task_gives_way_to_the_tasks_own() {
    let description = Description { metric: "mcc".into(), ..Description::usual(TaskName::Classification, 64) };
    assert_eq!(description.main_metric(), "mcc");
    assert_eq!(Description { task: TaskName::Regression, ..description }.main_metric(), "pearson");
}

#[test]
fn a_threshold_is_kept_unless_another_one_is_given() {
    let threshold = |threshold| {
        let usual = Description::usual(TaskName::QuestionAnswering, 64);
        Description { no_answer_threshold: Some(1.0), ..usual }.with_threshold(threshold).no_answer_threshold
    };
    assert_eq!((threshold(None), threshold(Some(-2.0))), (Some(1.0), Some(-2.0)));
}
