//! Splits long texts: the tokenizers library needs hundreds of bytes for each character that it processes at once, so a
//! text of megabytes is cut where BERT's tokenizer would split it anyway.

use std::ops::Range;

use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// Texts with more bytes than this are cut.
pub(super) const LONG: usize = 1 << 16;

/// Maximum number of bytes in a part, unless there is no place to cut.
const PART: usize = 1 << 15;

/// Determines where texts can be cut without changing a WordPiece.
#[derive(Debug, Clone)]
pub(super) struct Cuts {
    /// Whether CJK characters are words of their own.
    chinese_chars: bool,
    /// Added tokens, which must not be cut.
    added: Vec<String>,
    /// Whether texts can only be cut at white space, because an added token depends on its neighbors or matches other
    /// spellings.
    only_at_spaces: bool,
    /// Maximum length of a word in characters; a longer run of letters and digits is a single unknown word.
    longest_word: usize,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The byte range in the text.
    pub range: Range<usize>,
    /// Whether the part is a single unknown word, longer than the tokenizer's maximum.
    pub is_unknown_word: bool,
}

impl Cuts {
    /// The cuts for BERT's own pipeline; `None` for any other, whose texts are never cut.
    pub fn of(inner: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::WordPiece(model) = inner.get_model() else { return None };
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = inner.get_normalizer() else { return None };
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = inner.get_pre_tokenizer() else { return None };
        let tokens = inner.get_added_tokens_decoder();
        let added: Vec<String> = tokens.values().map(|token| token.content.clone()).collect();
        if added.iter().any(|token| token.contains(char::is_whitespace)) {
            return None;
        }
        let is_word = |token: &String| token.chars().all(char::is_alphanumeric);
        let only_at_spaces =
            tokens.values().any(|token| token.normalized || token.single_word) || added.iter().any(is_word);
        Some(Self {
            chinese_chars: normalizer.handle_chinese_chars,
            added,
            only_at_spaces,
            longest_word: model.max_input_chars_per_word,
        })
    }

    /// Iterates over the parts of a text, in order and without gaps.
    pub fn parts<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Part> + 'a {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start == text.len() {
                return None;
            }
            let end = self.next_cut(text, start);
            let range = start..end;
            start = end;
            Some(Part { is_unknown_word: self.is_unknown_word(&text[range.clone()]), range })
        })
    }

    /// The end of the part that starts at `start`: the last place to cut within the maximum size or, if there is none,
    /// the first one after it.
    fn next_cut(&self, text: &str, start: usize) -> usize {
        let middle = text.floor_char_boundary(start + PART);
        let is_cut = |&(at, character): &(usize, char)| at > start && self.can_cut_before(text, at, character);
        let places = |range: Range<usize>| {
            let offset = range.start;
            text[range].char_indices().map(move |(at, character)| (offset + at, character))
        };
        if middle == text.len() {
            return middle;
        }
        let cut = places(start..middle).rfind(is_cut).or_else(|| places(middle..text.len()).find(is_cut));
        cut.map_or(text.len(), |(at, _)| at)
    }

    fn can_cut_before(&self, text: &str, at: usize, character: char) -> bool {
        if matches!(character, ' ' | '\t' | '\n' | '\r') {
            return true;
        }
        let divides = character.is_ascii_punctuation() && character != '_' || self.chinese_chars && is_cjk(character);
        divides && !self.only_at_spaces && !self.added.iter().any(|token| is_inside(text, at, token))
    }

    /// A text with the same WordPieces as the part: an unknown word is shortened to just enough characters to remain
    /// one.
    pub fn shortened<'a>(&self, text: &'a str, part: &Part) -> &'a str {
        let content = &text[part.range.clone()];
        let spaces = content.len() - content.trim_ascii_start().len();
        if part.is_unknown_word { &content[..spaces + self.longest_word + 1] } else { content }
    }

    /// Whether a part consists of letters and digits only, and is too long to be anything but an unknown word.
    fn is_unknown_word(&self, part: &str) -> bool {
        !self.only_at_spaces
            && part.trim_ascii().len() > LONG.max(self.longest_word)
            && part.trim_ascii().bytes().all(|byte| byte.is_ascii_alphanumeric())
    }
}

/// Whether an occurrence of `token` in the text spans the position `at`.
fn is_inside(text: &str, at: usize, token: &str) -> bool {
    let bytes = text.as_bytes();
    let start = at.saturating_sub(token.len().saturating_sub(1));
    let end = (at + token.len().saturating_sub(1)).min(bytes.len());
    token.len() > 1 && bytes[start..end].windows(token.len()).any(|window| window == token.as_bytes())
}

/// Whether a character is an ideograph that BERT isolates and that no combining mark can precede.
fn is_cjk(character: char) -> bool {
    matches!(character, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{20000}'..='\u{2A6DF}')
}
