//! Splits a long text into parts that can be tokenized separately, since the `tokenizers` crate needs over a hundred
//! bytes for each character that it processes at once.

/// Maximum length of a part in bytes.
const LONGEST: usize = 1 << 14;

/// Splits a text into parts of at most 16 KiB, in order; a short text is one part. A part ends before whitespace or, if
/// there is none, after a character of a script without spaces, or else anywhere.
pub fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, after) = text.split_at(end_of_part(text));
        rest = (!after.is_empty()).then_some(after);
        Some(part)
    })
}

fn end_of_part(text: &str) -> usize {
    if text.len() <= LONGEST {
        return text.len();
    }
    let limit = text.floor_char_boundary(LONGEST);
    let beginning = &text[..limit];
    let is_space = |character: char| matches!(character, ' ' | '\t' | '\n' | '\r');
    let before_space = beginning.rfind(is_space).filter(|end| *end > 0);
    let after_ideograph = || beginning.char_indices().rfind(|(_, c)| is_ideograph(*c)).map(|(at, c)| at + c.len_utf8());
    before_space.or_else(after_ideograph).unwrap_or(limit)
}

/// Whether BERT's tokenizer isolates the character, so that the text can be cut after it.
fn is_ideograph(character: char) -> bool {
    matches!(character, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '。' | '、')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tokenizer;
    use crate::text::tokenizer::{Normalization, SPECIAL_TOKENS};

    #[test]
    fn parts_are_short_and_are_the_text() {
        for text in ["", "short", &"word ".repeat(9000), &"語。".repeat(9000), &"é".repeat(50_000)] {
            let parts: Vec<&str> = parts(text).collect();
            assert_eq!(parts.concat(), text);
            assert!(parts.iter().all(|part| part.len() <= LONGEST) && parts.len() <= text.len() / 8000 + 1);
        }
    }

    #[test]
    fn a_long_text_has_the_pieces_that_it_has_at_once() {
        let words = ["the", "##re", "cafe", "語", ",", "."];
        let vocabulary: Vec<String> = SPECIAL_TOKENS.iter().chain(&words).map(|piece| piece.to_string()).collect();
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary, Normalization::new(true)).unwrap();
        for sample in ["There, the Caf\u{e9}\tcafe\u{301}. [MASK] ", "語the語, ", "語", "unknown the\n"] {
            let text = sample.repeat(9000);
            let whole = tokenizer.inner.encode_fast(text.as_str(), false).unwrap();
            assert_eq!(tokenizer.pieces(&text).unwrap(), whole.get_ids(), "{sample}");
        }
    }
}
