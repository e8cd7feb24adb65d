//! Counts the words of a corpus, from which a vocabulary is learned.
//!
//! Words are those of BERT's tokenizer: text is cleaned, CJK characters are isolated, uncased text is lowercased and
//! stripped of accents, and the result is split on whitespace and punctuation, by the same code as in tokenization. The
//! table is bounded, so a corpus of any size can be counted; see [`MAX_DISTINCT_WORDS`].

use std::collections::HashMap;

use bert_model::{Error, Result};
use rayon::prelude::*;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// Maximum length of a word in characters. The tokenizer maps longer words to [UNK] without
/// splitting them, so they are not counted.
const MAX_WORD_CHARS: usize = 100;

/// Maximum number of distinct words. When a table exceeds it, all words with at most the median
/// count are dropped, which in natural text is 1 for a long time; they could hardly have become
/// pieces. From then on the counts depend on the order of the text and its batches, but never on
/// threads or hashing.
pub const MAX_DISTINCT_WORDS: usize = 4_000_000;

/// Maximum length in bytes of a text without spaces that is processed at once.
const LONGEST_PART: usize = 1 << 14;

/// Word counts, accumulated incrementally.
#[derive(Debug, Clone)]
pub struct WordCounts {
    normalizer: BertNormalizer,
    counts: HashMap<String, u64>,
    capacity: usize,
}

impl WordCounts {
    /// An empty table. `lowercase` selects an uncased vocabulary, which also strips accents.
    pub fn new(lowercase: bool) -> Self {
        Self::with_capacity(lowercase, MAX_DISTINCT_WORDS)
    }

    fn with_capacity(lowercase: bool, capacity: usize) -> Self {
        // `None` strips accents if and only if text is lowercased, as in Hugging Face's
        // BertTokenizer.
        let normalizer = BertNormalizer::new(true, true, None, lowercase);
        Self { normalizer, counts: HashMap::new(), capacity }
    }

    /// Counts the words of a text.
    ///
    /// # Errors
    /// If the tokenizer's normalizer fails, which cannot happen on text.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let found = count_words(&self.normalizer, [text])?;
        self.sum(found);
        self.prune();
        Ok(())
    }

    /// Counts the words of many lines on all cores, with the same result as [`add`](Self::add).
    /// Best called with batches of several megabytes.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_batch(&mut self, lines: &[String]) -> Result<()> {
        let share = lines.len().div_ceil(rayon::current_num_threads()).max(1);
        let found: Vec<HashMap<String, u64>> = lines
            .par_chunks(share)
            .map(|chunk| count_words(&self.normalizer, chunk.iter().map(String::as_str)))
            .collect::<Result<_>>()?;
        found.into_iter().for_each(|counts| self.sum(counts));
        self.prune();
        Ok(())
    }

    /// Whether no words have been counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of distinct words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// All words with their counts, sorted by the words' bytes.
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let mut words: Vec<_> = self.counts.iter().map(|(word, &count)| (word.as_str(), count)).collect();
        words.sort_unstable();
        words
    }

    fn sum(&mut self, found: HashMap<String, u64>) {
        for (word, count) in found {
            *self.counts.entry(word).or_default() += count;
        }
    }

    /// Drops rare words from a full table; see [`MAX_DISTINCT_WORDS`].
    fn prune(&mut self) {
        if self.counts.len() <= self.capacity {
            return;
        }
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let (_, &mut median, _) = counts.select_nth_unstable(middle);
        self.counts.retain(|_, count| *count > median);
    }
}

/// Counts the words of some lines. Most substrings between spaces ("the", "it,") recur, so each
/// distinct one is normalized only once. The normalizer turns spaces, tabs and line ends into
/// spaces regardless of context, so splitting there first does not change the result.
fn count_words<'a>(
    normalizer: &BertNormalizer,
    lines: impl IntoIterator<Item = &'a str>,
) -> Result<HashMap<String, u64>> {
    let mut stretches: HashMap<&str, u64> = HashMap::new();
    let split = lines.into_iter().flat_map(|line| line.split([' ', '\t', '\n', '\r']));
    for stretch in split.flat_map(parts) {
        *stretches.entry(stretch).or_default() += 1;
    }
    let mut words = HashMap::new();
    for (stretch, count) in stretches {
        add_words(normalizer, stretch, count, &mut words).map_err(|error| Error::Setting(error.to_string()))?;
    }
    Ok(words)
}

/// Splits a text without spaces into parts of at most [`LONGEST_PART`] bytes, in order: the normalizer needs over a
/// hundred bytes for each character that it processes at once. A part ends at a [divider](is_divider). A longer run of
/// ASCII letters and digits is a single word that does not count, and is left out; any other run without dividers is
/// cut at the limit, so that the ends of its parts may count as words.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let (part, after) = rest.split_at(end_of_part(rest));
            rest = after;
            if part.len() <= LONGEST_PART {
                return Some(part);
            }
        }
    })
}

/// The length of the first part, which exceeds [`LONGEST_PART`] only if it is a single word.
fn end_of_part(text: &str) -> usize {
    if text.len() <= LONGEST_PART {
        return text.len();
    }
    let limit = text.floor_char_boundary(LONGEST_PART);
    match text[..limit].char_indices().rfind(|&(_, character)| is_divider(character)) {
        Some((0, divider)) => divider.len_utf8(),
        Some((at, _)) => at,
        None => {
            let run = text[limit..].find(is_divider).map_or(text.len(), |after| limit + after);
            if text.as_bytes()[..run].iter().all(u8::is_ascii_alphanumeric) { run } else { limit }
        }
    }
}

/// Whether the tokenizer makes a word of its own of the character, so that a text can be cut before and after it.
fn is_divider(character: char) -> bool {
    character.is_ascii_punctuation()
        || matches!(character, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '。' | '、')
}

/// Adds `count` for each word of a substring.
fn add_words(
    normalizer: &BertNormalizer,
    stretch: &str,
    count: u64,
    words: &mut HashMap<String, u64>,
) -> tokenizers::Result<()> {
    let mut normalized = NormalizedString::from(stretch);
    normalizer.normalize(&mut normalized)?;
    let mut split = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut split)?;
    for (word, ..) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
        if word.chars().nth(MAX_WORD_CHARS).is_some() {
            continue;
        }
        match words.get_mut(word) {
            Some(sum) => *sum += count,
            None => drop(words.insert(word.to_string(), count)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lowercase: bool, text: &str) -> Vec<(String, u64)> {
        let mut counts = WordCounts::new(lowercase);
        counts.add(text).unwrap();
        counts.sorted().into_iter().map(|(word, count)| (word.to_string(), count)).collect()
    }

    fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected.iter().map(|&(word, count)| (word.to_string(), count)).collect()
    }

    #[test]
    fn words_are_those_of_the_uncased_tokenizer() {
        let text = "The café, the CAFÉ\tthe\u{0} cafe\u{301}! 東京";
        assert_eq!(counted(true, text), pairs(&[("!", 1), (",", 1), ("cafe", 3), ("the", 3), ("京", 1), ("東", 1)]));
    }

    #[test]
    fn cased_words_keep_case_and_accents() {
        assert_eq!(counted(false, "Café café"), pairs(&[("Café", 1), ("café", 1)]));
    }

    /// Splitting at plain spaces must not change how the normalizer treats rarer whitespace and
    /// control characters.
    #[test]
    fn stretches_count_as_the_whole_text_does() {
        let text = "a\u{b}b c\u{85}d \u{2028}e f\u{301} \u{301}g\u{a0}h x\u{ad}y\r\nİi ß\u{feff} o'k--z \u{fffd}";
        let mut whole = HashMap::new();
        add_words(&BertNormalizer::new(true, true, None, true), text, 1, &mut whole).unwrap();
        let mut whole: Vec<_> = whole.into_iter().collect();
        whole.sort_unstable();
        assert_eq!(counted(true, text), whole);
    }

    #[test]
    fn a_long_text_without_spaces_counts_as_the_whole_text_does() {
        for sample in ["語。", "語the", "some-thing,", "é/", "under_score|", "!", &format!("{},", "a".repeat(101))]
        {
            let text = sample.repeat(40_000 / sample.len());
            assert!(parts(&text).all(|part| part.len() <= LONGEST_PART), "{sample}");
            assert_eq!(parts(&text).collect::<String>(), text, "{sample}");
            let mut whole = HashMap::new();
            add_words(&BertNormalizer::new(true, true, None, true), &text, 1, &mut whole).unwrap();
            let mut whole: Vec<_> = whole.into_iter().collect();
            whole.sort_unstable();
            assert_eq!(counted(true, &text), whole, "{sample}");
        }
        let endless = "a".repeat(LONGEST_PART + 50);
        assert_eq!(counted(true, &format!("{endless},b")), pairs(&[(",", 1), ("b", 1)]));
        assert_eq!(counted(true, &format!(",{endless}")), pairs(&[(",", 1)]));
        assert_eq!(parts(&"é".repeat(50_000)).collect::<String>(), "é".repeat(50_000));
    }

    #[test]
    fn words_of_over_a_hundred_characters_do_not_count() {
        let text = format!("{} {}", "é".repeat(100), "é".repeat(101));
        assert_eq!(counted(false, &text), [("é".repeat(100), 1)]);
    }

    #[test]
    fn a_batch_counts_as_its_lines_do() {
        let lines: Vec<String> = (0..100).map(|line| format!("w{} common, text", line % 7)).collect();
        let (mut batch, mut single) = (WordCounts::new(true), WordCounts::new(true));
        batch.add_batch(&lines).unwrap();
        batch.add_batch(&[]).unwrap();
        lines.iter().for_each(|line| single.add(line).unwrap());
        assert_eq!(batch.sorted(), single.sorted());
        assert!(!batch.is_empty() && batch.len() == 10);
    }

    #[test]
    fn a_full_table_keeps_its_frequent_words() {
        let mut counts = WordCounts::with_capacity(true, 4);
        counts.add("a a a b b c d").unwrap();
        assert_eq!(counts.len(), 4);
        counts.add("e").unwrap();
        assert_eq!(counts.sorted(), [("a", 3), ("b", 2)]);
    }
}
