//! Tests of what a model directory says about its head.

use bert_model::ProblemType;
use tempfile::TempDir;

use super::*;
use crate::tasks::multiple_choice::MULTIPLE_CHOICE;
use crate::tasks::question_answering::QUESTION_ANSWERING;
use crate::tasks::sequence::{CLASSIFICATION, MULTI_LABEL, REGRESSION};
use crate::tasks::tagging::TAGGING;

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
        ..Description::usual(TaskKind(&CLASSIFICATION), 64)
    };
    saved.save(directory.path()).unwrap();
    let read = Description::read(directory.path(), &BertConfig::default(), None).unwrap();
    assert_eq!(read, Description { source: ColumnSource::Remembered, ..saved });
}

#[test]
fn a_directory_from_elsewhere_is_understood_by_its_configuration() {
    let directory = TempDir::new().unwrap();
    let conclude = |config: &BertConfig| Description::read(directory.path(), config, None);
    for (config, task) in [
        (config("BertForSequenceClassification").with_labels(&["a", "b"]), TaskKind(&CLASSIFICATION)),
        (config("BertForSequenceClassification").with_labels(&["a"]), TaskKind(&REGRESSION)),
        (
            BertConfig {
                problem_type: Some(ProblemType::MultiLabelClassification),
                ..config("BertForSequenceClassification").with_labels(&["a", "b"])
            },
            TaskKind(&MULTI_LABEL),
        ),
        (config("BertForTokenClassification").with_labels(&["O", "B-X", "I-X"]), TaskKind(&TAGGING)),
        (config("BertForQuestionAnswering"), TaskKind(&QUESTION_ANSWERING)),
        (config("BertForMultipleChoice"), TaskKind(&MULTIPLE_CHOICE)),
    ] {
        let found = conclude(&config).unwrap();
        assert_eq!((found.task, found.max_seq_len), (task, config.max_position_embeddings));
    }
    let message = conclude(&config("BertForPreTraining")).unwrap_err().to_string();
    assert!(message.contains("architecture BertForPreTraining"), "{message}");
}

#[test]
fn a_task_may_be_named_where_the_directory_does_not_tell_it() {
    let directory = TempDir::new().unwrap();
    let [classification, multi_label, tagging] = [&CLASSIFICATION, &MULTI_LABEL, &TAGGING].map(TaskKind);
    let read = |config: &BertConfig, task| Description::read(directory.path(), config, Some(task));
    let nameless = BertConfig::default().with_labels(&["a", "b"]);
    assert_eq!(read(&nameless, tagging).unwrap().task, tagging);
    let sequence = config("BertForSequenceClassification").with_labels(&["a", "b"]);
    assert_eq!(read(&sequence, multi_label).unwrap().task, multi_label, "config.json has no problem_type");
    let told = BertConfig { problem_type: Some(ProblemType::SingleLabelClassification), ..sequence.clone() };
    assert_eq!(read(&told, classification).unwrap().task, classification);
    let refused = |config: &BertConfig, task| read(config, task).unwrap_err().to_string();
    assert!(refused(&told, multi_label).contains("config.json says that the model is for classification"));
    assert!(refused(&sequence, tagging).starts_with("--task tagging:"));
    Description::usual(classification, 64).save(directory.path()).unwrap();
    assert!(refused(&nameless, tagging).contains("finetune.json says that the model is for classification"));
}

#[test]
fn what_cannot_be_is_refused_with_the_file() {
    let directory = TempDir::new().unwrap();
    let usual = serde_json::json!(Description::usual(TaskKind(&CLASSIFICATION), 64));
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
        let message = Description::read(directory.path(), &BertConfig::default(), None).unwrap_err().to_string();
        assert!(message.contains(FILE) && message.contains(expected), "{key}: {message}");
    }
}

#[test]
fn a_metric_of_another_task_gives_way_to_the_tasks_own() {
    let description = Description { metric: "mcc".into(), ..Description::usual(TaskKind(&CLASSIFICATION), 64) };
    assert_eq!(description.main_metric(), "mcc");
    assert_eq!(Description { task: TaskKind(&REGRESSION), ..description }.main_metric(), "pearson");
}

#[test]
fn a_threshold_is_kept_unless_another_one_is_given() {
    let threshold = |threshold| {
        let usual = Description::usual(TaskKind(&QUESTION_ANSWERING), 64);
        Description { no_answer_threshold: Some(1.0), ..usual }.with_threshold(threshold).no_answer_threshold
    };
    assert_eq!((threshold(None), threshold(Some(-2.0))), (Some(1.0), Some(-2.0)));
}
