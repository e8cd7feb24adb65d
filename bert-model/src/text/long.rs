//! Splits long texts: the tokenizers library needs hundreds of bytes for each character that it processes at once, so a
//! text of megabytes is cut where BERT's tokenizer would split it anyway.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper,
};

/// Texts with more bytes than this are cut.
pub(super) const LONG: usize = 1 << 16;

/// Maximum number of bytes in a part, unless there is no place to cut.
const PART: usize = 1 << 15;

/// Determines where texts can be cut without changing a WordPiece.
#[derive(Debug, Clone)]
pub(super) struct Cuts {
    normalizer: BertNormalizer,
    pre_tokenizer: BertPreTokenizer,
    /// Added tokens, which must not be cut.
    added: Vec<String>,
    /// Whether texts can only be cut at white space, because an added token depends on its neighbors or matches other
    /// spellings.
    only_at_spaces: bool,
    /// Maximum length of a word in characters; a longer one is unknown.
    longest_word: usize,
}

/// What the tokenizer does to a character within a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Divides the word, and is no part of any.
    Space,
    /// Divides the word, and is a word of its own.
    Alone,
    /// Belongs to the word, and becomes this many characters of it; none if it is removed.
    Inside(usize),
}

/// The roles of the characters that were looked at so far.
type Roles = RefCell<HashMap<char, Role>>;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The byte range in the text.
    pub range: Range<usize>,
    /// If the part is a single unknown word, longer than the tokenizer's maximum: that word.
    pub unknown_word: Option<UnknownWord>,
}

/// Where an unknown word is in its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownWord {
    /// Start and end in code points.
    pub place: (usize, usize),
    /// The number of bytes of the part's beginning that are an unknown word already.
    enough: usize,
}

impl Cuts {
    /// The cuts for BERT's own pipeline; `None` for any other, whose texts are never cut.
    pub fn of(inner: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::WordPiece(model) = inner.get_model() else { return None };
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = inner.get_normalizer() else { return None };
        let Some(PreTokenizerWrapper::BertPreTokenizer(pre_tokenizer)) = inner.get_pre_tokenizer() else { return None };
        let tokens = inner.get_added_tokens_decoder();
        let added: Vec<String> = tokens.values().map(|token| token.content.clone()).collect();
        if added.iter().any(|token| token.contains(char::is_whitespace)) {
            return None;
        }
        let is_word = |token: &String| token.chars().all(char::is_alphanumeric);
        let only_at_spaces =
            tokens.values().any(|token| token.normalized || token.single_word) || added.iter().any(is_word);
        Some(Self {
            normalizer: *normalizer,
            pre_tokenizer: *pre_tokenizer,
            added,
            only_at_spaces,
            longest_word: model.max_input_chars_per_word,
        })
    }

    /// Iterates over the parts of a text, in order and without gaps.
    pub fn parts<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Part> + 'a {
        let (mut start, roles) = (0, Roles::default());
        std::iter::from_fn(move || {
            if start == text.len() {
                return None;
            }
            let end = self.next_cut(text, start, &roles);
            let range = start..end;
            start = end;
            Some(Part { unknown_word: self.unknown_word(&text[range.clone()], &roles), range })
        })
    }

    /// The end of the part that starts at `start`: the last place to cut within the maximum size or, if there is none,
    /// the first one after it.
    fn next_cut(&self, text: &str, start: usize, roles: &Roles) -> usize {
        let middle = text.floor_char_boundary(start + PART);
        let is_cut = |&(at, character): &(usize, char)| at > start && self.can_cut_before(text, at, character, roles);
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

    fn can_cut_before(&self, text: &str, at: usize, character: char, roles: &Roles) -> bool {
        if matches!(character, ' ' | '\t' | '\n' | '\r') {
            return true;
        }
        let before = || text[..at].chars().next_back().map(|before| self.role(before, roles));
        let divides = match self.role(character, roles) {
            Role::Inside(_) => before() == Some(Role::Alone),
            _ => true,
        };
        divides && !self.only_at_spaces && !self.added.iter().any(|token| is_inside(text, at, token))
    }

    /// What the tokenizer does to a character within a word, by asking it.
    fn role(&self, character: char, roles: &Roles) -> Role {
        if character.is_ascii_alphanumeric() {
            return Role::Inside(1);
        }
        *roles.borrow_mut().entry(character).or_insert_with(|| self.find_role(character).unwrap_or(Role::Inside(0)))
    }

    fn find_role(&self, character: char) -> tokenizers::Result<Role> {
        let mut normalized = NormalizedString::from(format!("a{character}a"));
        self.normalizer.normalize(&mut normalized)?;
        let count = normalized.get().chars().count();
        let mut words = PreTokenizedString::from(normalized);
        self.pre_tokenizer.pre_tokenize(&mut words)?;
        Ok(match words.get_splits(OffsetReferential::Normalized, OffsetType::Byte).len() {
            1 => Role::Inside(count.saturating_sub(2)),
            2 => Role::Space,
            _ => Role::Alone,
        })
    }

    /// A text with the same WordPieces as the part: an unknown word is shortened to just enough characters to remain
    /// one.
    pub fn shortened<'a>(&self, text: &'a str, part: &Part) -> &'a str {
        let content = &text[part.range.clone()];
        part.unknown_word.as_ref().map_or(content, |word| &content[..word.enough])
    }

    /// The only word of a part that is too long to be known, with white space before it.
    fn unknown_word(&self, part: &str, roles: &Roles) -> Option<UnknownWord> {
        if self.only_at_spaces || part.len() <= LONG {
            return None;
        }
        let (mut place, mut count, mut enough) = (None, 0, None);
        for (index, (at, character)) in part.char_indices().enumerate() {
            match self.role(character, roles) {
                Role::Inside(0) => {}
                Role::Inside(characters) => {
                    place = Some((place.map_or(index, |(start, _)| start), index + 1));
                    count += characters;
                    if count > self.longest_word && enough.is_none() {
                        enough = Some(at + character.len_utf8());
                    }
                }
                Role::Space if place.is_none() => {}
                Role::Space | Role::Alone => return None,
            }
        }
        Some(UnknownWord { place: place?, enough: enough? })
    }
}

/// Whether an occurrence of `token` in the text spans the position `at`.
fn is_inside(text: &str, at: usize, token: &str) -> bool {
    let bytes = text.as_bytes();
    let start = at.saturating_sub(token.len().saturating_sub(1));
    let end = (at + token.len().saturating_sub(1)).min(bytes.len());
    token.len() > 1 && bytes[start..end].windows(token.len()).any(|window| window == token.as_bytes())
}
