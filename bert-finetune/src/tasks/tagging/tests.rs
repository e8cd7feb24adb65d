//! Tags of files, their numbers, and answers as JSON.

use bert_cli::input::columns::Column;
use bert_model::pipeline::Processor;
use bert_model::text::tokenizer::Normalization;

use super::*;

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
        let sentence = TaggedSentence::of_words(words, (0..count).map(|i| i % 3).collect());
        let windows = task.processor.preprocess(&task.request(&sentence)).unwrap();
        assert_eq!(task.targets(&sentence, &windows).concat(), sentence.tags);
    }
}

#[test]
fn tags_are_learned_as_iob2() {
    let sentence = |tags: &[&str]| Sentence {
        words: vec!["a".into(); tags.len()],
        tags: tags.iter().map(|tag| tag.to_string()).collect(),
        lines: vec![1; tags.len()],
    };
    let mut sentences = [sentence(&["I-X", "I-X", "B-X", "O"])];
    let (labels, scheme) = learned_tags(&mut sentences);
    assert_eq!(sentences[0].tags, ["B-X", "I-X", "B-X", "O"]);
    assert_eq!((scheme, labels.contains(&"I-X".to_string())), (TagScheme::Iob2, true));
    let mut plain = [sentence(&["NOUN", "VERB"])];
    assert_eq!(learned_tags(&mut plain), (vec!["NOUN".to_string(), "VERB".to_string()], TagScheme::Plain));
}

#[test]
fn an_answer_is_printed_with_its_entities() {
    let task = task(10);
    let sentence = task.words_of("é a  b.").unwrap();
    let request = task.request(&sentence);
    let windows = task.processor.preprocess(&request).unwrap();
    let certain = |tag: usize| (0..3).map(|other| if other == tag { 0.8 } else { 0.1 }).collect::<Vec<f32>>();
    let scores = [[0, 1, 2, 0].map(certain).to_vec()];
    let answer = task.json(&task.processor.postprocess(&request, &windows, &scores));
    assert_eq!(answer["tags"], json!(["O", "B-X", "I-X", "O"]));
    let entity = &answer["entities"][0];
    assert_eq!((&entity["type"], &entity["text"]), (&json!("X"), &json!("a  b")));
    assert_eq!((&entity["start"], &entity["end"]), (&json!(2), &json!(6)));
    assert!((entity["score"].as_f64().unwrap() - 0.8).abs() < 1e-6);
}
