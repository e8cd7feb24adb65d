//! Tests of splitting words into windows and joining the results.

use super::*;
use crate::text::tokenizer::Normalization;

fn processor(max_length: usize) -> TaggingProcessor {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "."].map(str::to_string);
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
    let labels = ["O", "B-X", "I-X"].map(str::to_string).to_vec();
    TaggingProcessor::new(tokenizer, labels, TagScheme::Iob2, max_length).unwrap()
}

#[test]
fn every_word_of_a_long_sentence_is_read_once_and_with_context() {
    let processor = processor(10);
    for count in [0, 1, 8, 9, 30, 100] {
        let text = Words::new((0..count).map(|i| ["a", "bb", "."][i % 3].to_string()).collect());
        let windows = processor.preprocess(&&text).unwrap();
        assert!(windows.iter().all(|window| window.sequence.len() <= 10));
        let read: Vec<usize> = windows.iter().flat_map(|window| window.words()).collect();
        assert_eq!(read, (0..count).collect::<Vec<_>>());
        for window in &windows {
            for (word, &position) in window.words().zip(&window.positions) {
                let first = processor.tokenizer.pieces(text.iter().nth(word).unwrap()).unwrap()[0];
                assert_eq!(window.sequence.ids[position as usize], first, "the first piece of word {word}");
            }
        }
    }
}

#[test]
fn a_word_of_no_piece_is_unknown_and_a_long_one_is_cut() {
    let processor = processor(10);
    let windows = processor.preprocess(&&Words::new(vec!["\u{1}".into(), "b".repeat(50)])).unwrap();
    assert_eq!(windows[0].sequence.ids[1], processor.tokenizer.special().unk);
    assert!(windows.iter().all(|window| window.sequence.len() <= 10));
}

#[test]
fn words_of_a_text_know_their_places() {
    let text = processor(10).split("é a  b.").unwrap();
    assert_eq!(text.iter().collect::<Vec<_>>(), ["é", "a", "b", "."]);
    assert_eq!(text.places(), [(0, 1), (2, 3), (5, 6), (6, 7)]);
}

#[test]
fn an_answer_names_what_stands_in_the_text() {
    let processor = processor(10);
    let text = processor.split("é a  b.").unwrap();
    let windows = processor.preprocess(&&text).unwrap();
    let certain = |tag: usize| (0..3).map(|other| if other == tag { 0.8 } else { 0.1 }).collect::<Vec<f32>>();
    let tags = WindowTags::new([0, 1, 2, 0].map(certain).to_vec());
    let answer = processor.postprocess(&&text, &windows, &[tags]);
    assert_eq!(answer.tags.iter().collect::<Vec<_>>(), ["O", "B-X", "I-X", "O"]);
    let [entity] = &answer.entities[..] else { panic!("{answer:?}") };
    assert_eq!((&*entity.label, &*entity.text, entity.start, entity.end), ("X", "a  b", 2, 6));
    assert!((entity.score - 0.8).abs() < 1e-6);
}
