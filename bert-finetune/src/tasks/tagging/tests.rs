//! Tests of the tags in files, their indices, and answers as JSON.

use std::path::Path;

use bert_cli::input::columns::Column;
use bert_model::pipeline::Processor;
use bert_model::pipeline::tags::TagScheme;
use bert_model::text::tokenizer::Normalization;

use super::*;
use crate::tasks::kind::TaskKind;

fn task(max_seq_len: usize) -> TaggingTask {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "."].map(str::to_string);
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
    let labels = ["O", "B-X", "I-X"].map(str::to_string).to_vec();
    TaggingTask {
        columns: ConllColumns::default(),
        texts: TableOptions::texts(Column::Name("text".into())),
        processor: TaggingProcessor::new(tokenizer, labels, TagScheme::Iob2, max_seq_len).unwrap(),
        tag_weights: Vec::new(),
    }
}

#[test]
fn every_tag_of_a_long_sentence_is_learned_once() {
    let task = task(10);
    for count in [0, 1, 8, 9, 30, 100] {
        let words: Vec<String> = (0..count).map(|i| ["a", "bb", "."][i % 3].to_string()).collect();
        let sentence = TaggedSentence::of_words(words, (0..count).map(|i| GoldTag::Known(i % 3)).collect());
        let windows = task.processor.preprocess(&task.request(&sentence)).unwrap();
        assert_eq!(task.targets(&sentence, &windows).concat(), (0..count).map(|i| Some(i % 3)).collect::<Vec<_>>());
    }
}

/// Reported bug: tags were learned that occur in no file.
#[test]
fn the_tags_are_those_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let learn = |training: &str, evaluation: &str| {
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("a.conll"), training).unwrap();
        std::fs::write(path("b.conll"), evaluation).unwrap();
        let files = Files { training: path("a.conll"), evaluation: Some(path("b.conll")), test: None };
        let mut description = Description::usual(TaskKind(&TAGGING), 64);
        let labels = learn_labels(&mut description, &files).unwrap();
        (labels.join(" "), description.tag_scheme)
    };
    for (training, evaluation, labels, scheme) in [
        ("a I-X\nb I-X\nc B-X\nd O\n", "a I-Y\n", "B-X I-X I-Y O", TagScheme::Iob1),
        ("a B-X\nb M-X\nc E-X\nd O\n", "a S-X\n", "B-X E-X M-X O S-X", TagScheme::Bmes),
        ("a X_B\nb O\n", "a X_I\n", "O X_B X_I", TagScheme::Iob2),
        ("a NOUN\nb VERB\n", "a NOUN\n", "NOUN VERB", TagScheme::Plain),
    ] {
        assert_eq!(learn(training, evaluation), (labels.to_string(), scheme), "{training}");
    }
}

#[test]
fn a_tag_that_was_not_learned_counts_if_its_type_was() {
    let task = task(10);
    let sentence = |tag: &str| Sentence { words: vec!["a".into()], tags: vec![tag.into()], lines: vec![3] };
    let tagged = |tag: &str| task.tagged(sentence(tag), Path::new("x.conll"));
    assert_eq!(tagged("I-X").unwrap().tags, [GoldTag::Known(2)]);
    assert_eq!(tagged("1").unwrap().tags, [GoldTag::Known(1)], "by its number");
    assert_eq!(tagged("S-X").unwrap().tags, [GoldTag::Unknown("S-X".into())]);
    let message = tagged("B-Y").unwrap_err().to_string();
    assert_eq!(message, "x.conll:3: found the tag \"B-Y\", expected one of O, B-X, I-X");
}

#[test]
fn an_answer_is_printed_with_its_entities() {
    let task = task(10);
    let sentence = task.words_of("é a  b.").unwrap();
    let request = task.request(&sentence);
    let windows = task.processor.preprocess(&request).unwrap();
    let certain = |tag: usize| (0..3).map(|other| if other == tag { 0.8 } else { 0.1 }).collect::<Vec<f32>>();
    let tags = WindowTags::new([0, 1, 2, 0].map(certain).to_vec());
    let answer = json!(task.json(&task.processor.postprocess(&request, &windows, &[tags])));
    assert_eq!(answer["tags"], json!(["O", "B-X", "I-X", "O"]));
    let entity = &answer["entities"][0];
    assert_eq!((&entity["type"], &entity["text"]), (&json!("X"), &json!("a  b")));
    assert_eq!((&entity["start"], &entity["end"]), (&json!(2), &json!(6)));
    assert!((entity["score"].as_f64().unwrap() - 0.8).abs() < 1e-6);
}
