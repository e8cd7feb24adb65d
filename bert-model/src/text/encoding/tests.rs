//! Tests that a long text tokenized in parts gives the same result as the whole text.

use super::*;
use crate::text::tokenizer::Normalization;

fn tokenizer() -> Tokenizer {
    tokenizer_of(true)
}

/// A tokenizer with some words.
fn tokenizer_of(lowercase: bool) -> Tokenizer {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "漢", "字", ".", "é", "e"];
    let pieces: Vec<String> = words.map(str::to_string).into();
    Tokenizer::from_vocabulary(&pieces, Normalization::new(lowercase)).unwrap()
}

/// Texts that can be cut at spaces, punctuation or CJK characters, or not at all.
fn long_texts() -> Vec<String> {
    let count = LONG + LONG / 4;
    let repeated = |part: &str| part.repeat(count / part.len());
    vec![
        repeated("the cats é [MASK] "),
        repeated("the\u{301}\t\u{301}cat  e\u{301} x\u{200b}y \r\n"),
        repeated("漢字cat"),
        repeated("cat.cats."),
        repeated("cat[MASK]cat[SEP]"),
        repeated("\u{301}"),
        repeated("a"),
        format!("the cat {} cats", repeated("a1B2")),
        repeated(" "),
        format!("{}cat", repeated("\u{a0}")),
        // Words without end: of letters that are decomposed, with marks, with removed characters, in many scripts.
        repeated("한국어문장은길다"),
        repeated("ภาษาไทยไม่มีช่องว่าง"),
        format!("the cat\u{a0}{} cats", repeated("é")),
        format!(".{}. cats", repeated("a\u{301}")),
        format!("\u{301}\u{200d}{}\u{301}\u{fe0f}", repeated("👩\u{200d}🚀क्षि")),
        repeated("のはたとえば。カタカナ、"),
        repeated("cat«cats»\u{2003}the—cat"),
        format!("{}.{}", repeated("_"), repeated("Σİß")),
    ]
}

#[test]
fn long_texts_have_the_same_pieces_words_and_offsets() {
    for lowercase in [true, false] {
        same_pieces_words_and_offsets(lowercase);
    }
}

fn same_pieces_words_and_offsets(lowercase: bool) {
    let tokenizer = tokenizer_of(lowercase);
    let mut whole = tokenizer.clone();
    whole.cuts = None;
    for text in long_texts() {
        let shown: String = text.chars().take(20).collect();
        assert_eq!(tokenizer.pieces(&text).unwrap(), whole.pieces(&text).unwrap(), "{shown:?}");
        assert!(
            tokenizer.pieces_with_offsets(&text).unwrap() == whole.pieces_with_offsets(&text).unwrap(),
            "{shown:?}"
        );
        assert!(tokenizer.word_offsets(&text).unwrap() == whole.word_offsets(&text).unwrap(), "{shown:?}");
    }
}

#[test]
fn long_texts_are_the_same_sequences_truncated_or_not() {
    let tokenizer = tokenizer();
    let truncating = tokenizer.truncating(17).unwrap();
    let texts: Vec<String> = long_texts().into_iter().step_by(3).collect();
    for (text, other) in texts.iter().zip(texts.iter().cycle().skip(1)) {
        let shown: String = text.chars().take(20).collect();
        for pair in [None, Some(other.as_str()), Some("the cat")] {
            let expected = Sequence::from(&truncating.encode(text, pair).unwrap());
            assert_eq!(truncating.sequence(text, pair).unwrap(), expected, "{shown:?}");
        }
        let count = tokenizer.pieces(text).unwrap().len() + 2;
        for pair in [None, Some(other.as_str())] {
            let whole = Sequence::from(&tokenizer.encode(text, pair).unwrap());
            assert!(tokenizer.sequence(text, pair).unwrap() == whole, "{shown:?}");
        }
        let limit = count - 1;
        let error = tokenizer.whole_sequence(text, None, limit).unwrap_err();
        assert!(
            matches!(error, Error::TooLong { tokens, limit: found } if (tokens, found) == (count, limit)),
            "{error}"
        );
    }
    let texts = 3 * texts.len() as u64;
    assert!(truncating.truncated_count() > texts, "each text counts once in `encode` and once in `sequence`");
}

#[test]
fn parts_cover_a_text_and_are_small() {
    let tokenizer = tokenizer();
    let cuts = tokenizer.cuts.as_ref().unwrap();
    let text = "the cats 漢字 ".repeat(LONG / 8);
    let mut end = 0;
    for part in cuts.parts(&text) {
        assert_eq!(part.range.start, end);
        assert!(part.range.len() <= 1 << 15);
        end = part.range.end;
    }
    assert_eq!(end, text.len());
    assert_eq!(cuts.parts("").count(), 0);
}
