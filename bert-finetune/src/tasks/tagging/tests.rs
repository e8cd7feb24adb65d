//! Words to windows and back.

use bert_cli::input::columns::Column;
use bert_model::text::tokenizer::Normalization;

use super::*;

fn task(max_seq_len: usize) -> TaggingTask {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "."].map(str::to_string);
    TaggingTask {
        columns: ConllColumns::default(),
        texts: TableOptions::texts(Column::Name("text".into())),
        labels: ["O", "B-X", "I-X"].map(str::to_string).to_vec(),
        scheme: TagScheme::Iob2,
        max_seq_len,
        tokenizer: Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap(),
        tag_weights: Vec::new(),
    }
}

#[test]
fn every_word_of_a_long_sentence_is_read_once_and_with_context() {
    let task = task(10);
    for count in [0, 1, 8, 9, 30, 100] {
        let words: Vec<String> = (0..count).map(|i| ["a", "bb", "."][i % 3].to_string()).collect();
        let tags: Vec<usize> = (0..count).map(|i| i % 3).collect();
        let sentence = TaggedSentence::of_words(words, tags);
        let windows = task.encode(&sentence).unwrap();
        assert!(windows.iter().all(|window| window.sequence.len() <= 10));
        let read: Vec<usize> = windows.iter().flat_map(|window| window.words.iter().map(|(_, word)| *word)).collect();
        assert_eq!(read, (0..count).collect::<Vec<_>>());
        let tags: Vec<usize> = windows.iter().flat_map(|window| window.tags.clone()).collect();
        assert_eq!(tags, sentence.tags);
        for window in &windows {
            for &(position, word) in &window.words {
                let first = task.tokenizer.pieces(&sentence.words[word]).unwrap()[0];
                assert_eq!(window.sequence.ids[position], first, "the first piece of word {word}");
            }
        }
    }
}

#[test]
fn a_word_of_no_piece_is_unknown_and_a_long_one_is_cut() {
    let task = task(10);
    let sentence = TaggedSentence::of_words(vec!["\u{1}".into(), "b".repeat(50)], Vec::new());
    let windows = task.encode(&sentence).unwrap();
    assert_eq!(windows[0].sequence.ids[1], task.tokenizer.special().unk);
    assert!(windows.iter().all(|window| window.sequence.len() <= 10));
}

#[test]
fn words_of_a_text_know_their_places() {
    let sentence = task(10).words_of("é a  b.").unwrap();
    assert_eq!(sentence.words, ["é", "a", "b", "."]);
    assert_eq!(sentence.places, [(0, 1), (2, 3), (5, 6), (6, 7)]);
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
fn an_answer_names_what_stands_in_the_text() {
    let task = task(10);
    let sentence = task.words_of("é a  b.").unwrap();
    let windows = task.encode(&sentence).unwrap();
    let certain = |tag: usize| (0..3).map(|other| if other == tag { 0.8 } else { 0.1 }).collect::<Vec<f32>>();
    let scores = vec![[0, 1, 2, 0].map(certain).to_vec()];
    let answer = task.answer(&sentence, &windows, &scores);
    assert_eq!(answer["tags"], json!(["O", "B-X", "I-X", "O"]));
    let entity = &answer["entities"][0];
    assert_eq!((&entity["type"], &entity["text"]), (&json!("X"), &json!("a  b")));
    assert_eq!((&entity["start"], &entity["end"]), (&json!(2), &json!(6)));
    assert!((entity["score"].as_f64().unwrap() - 0.8).abs() < 1e-6);
}
