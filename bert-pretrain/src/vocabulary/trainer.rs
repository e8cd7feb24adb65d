//! Learns a WordPiece vocabulary from word counts: the list of pieces that `vocab.txt` contains.
//!
//! The trainer of BERT's own vocabularies is unpublished; this one follows Hugging Face's (byte
//! pair encoding, Sennrich et al. 2016). Every word starts as its characters, all but the first
//! marked `##`. The most frequent pair of adjacent pieces in the corpus is merged everywhere into a
//! new piece; this repeats until the vocabulary is full or no pair is frequent enough.
//!
//! The result depends only on the counts: ties are broken by the ids of the pieces. Each pair
//! records the words it occurs in, so that a merge visits only those.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use bert_model::file::replace_file;
use bert_model::text::tokenizer::SPECIAL_TOKENS;
use bert_model::{Error, Result};

use super::word_counts::WordCounts;

/// Prefix of a piece that continues a word.
const CONTINUATION: &str = "##";

/// Two adjacent pieces of a word, by id.
type Pair = (u32, u32);

/// Options for learning a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordPieceTrainer {
    /// Number of pieces to learn, including special tokens.
    pub vocab_size: usize,
    /// Minimum number of occurrences for a pair to become a piece.
    pub min_frequency: u64,
    /// Maximum number of distinct characters with a piece, unless merged pieces leave room for more; words with a rarer
    /// one become `[UNK]`.
    pub alphabet_limit: usize,
}

impl WordPieceTrainer {
    /// Hugging Face's defaults: at least two occurrences, at most 1000 distinct characters.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, min_frequency: 2, alphabet_limit: 1000 }
    }

    /// Learns the vocabulary, in id order: special tokens, characters, `##` characters, then merged pieces in the order
    /// in which they are learned. It is smaller than `vocab_size` if the corpus runs out of frequent pairs.
    ///
    /// # Errors
    /// If `vocab_size` is too small even for the single characters.
    pub fn train(&self, counts: &WordCounts) -> Result<Vec<String>> {
        let (mut pieces, mut is_limited) = self.train_once(self.alphabet_limit, counts)?;
        let mut limit = self.alphabet_limit;
        while pieces.len() < self.vocab_size && is_limited {
            // As in Chinese, where most words are single characters. Each takes up to two pieces, or a few more.
            limit += (self.vocab_size - pieces.len()).div_ceil(2);
            match self.train_once(limit, counts) {
                Ok(more) => (pieces, is_limited) = more,
                Err(_) => break,
            }
        }
        Ok(pieces)
    }

    /// The vocabulary with at most `limit` characters, and whether there are more.
    fn train_once(&self, limit: usize, counts: &WordCounts) -> Result<(Vec<String>, bool)> {
        let mut words = counts.sorted();
        let (alphabet, is_limited) = alphabet(&words, limit);
        // One character without a piece turns the whole word into [UNK], so do not count its other
        // characters.
        words.retain(|(word, _)| word.chars().all(|character| alphabet.binary_search(&character).is_ok()));

        let mut vocabulary = Vocabulary::with_characters(&alphabet, &words);
        if vocabulary.pieces.len() > self.vocab_size {
            return Err(self.too_small(vocabulary.pieces.len()));
        }
        let words = words.iter().map(|&(word, count)| Word { pieces: vocabulary.spell(word), count }).collect();
        let mut merges = Merges::new(words);
        while vocabulary.pieces.len() < self.vocab_size
            && let Some(pair) = merges.most_frequent(self.min_frequency)
        {
            merges.apply(pair, vocabulary.join(pair));
        }
        Ok((vocabulary.pieces, is_limited))
    }

    fn too_small(&self, needed: usize) -> Error {
        let (size, special) = (self.vocab_size, SPECIAL_TOKENS.len());
        let characters = needed - special;
        Error::Setting(format!(
            "a vocabulary of {size} pieces is too small: {special} special tokens and the corpus's {characters} single \
             characters (at the start of a word or inside) need {needed}; request at least that many"
        ))
    }
}

/// The `limit` most frequent characters, sorted by code point, and whether there are more.
fn alphabet(words: &[(&str, u64)], limit: usize) -> (Vec<char>, bool) {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, count) in words {
        word.chars().for_each(|character| *counts.entry(character).or_default() += count);
    }
    let is_limited = counts.len() > limit;
    let mut alphabet: Vec<(Reverse<u64>, char)> =
        counts.into_iter().map(|(character, count)| (Reverse(count), character)).collect();
    alphabet.sort_unstable();
    alphabet.truncate(limit);
    let mut alphabet: Vec<char> = alphabet.into_iter().map(|(_, character)| character).collect();
    alphabet.sort_unstable();
    (alphabet, is_limited)
}

/// Writes a vocabulary as `vocab.txt`: one piece per line, in id order. Creates the directory if it does not exist.
///
/// # Errors
/// If the file cannot be written.
pub fn write_vocab(path: impl AsRef<Path>, vocabulary: &[String]) -> Result<()> {
    let path = path.as_ref();
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(Error::io(directory, "create the directory"))?;
    }
    let text: String = vocabulary.iter().flat_map(|piece| [piece, "\n"]).collect();
    replace_file(path, text.as_bytes())
}

/// The pieces learned so far, with their ids.
struct Vocabulary {
    pieces: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// The special tokens, then all characters, then those that occur inside words with `##`.
    fn with_characters(alphabet: &[char], words: &[(&str, u64)]) -> Self {
        let inside: HashSet<char> = words.iter().flat_map(|(word, _)| word.chars().skip(1)).collect();
        let mut vocabulary = Self { pieces: Vec::new(), ids: HashMap::new() };
        for token in SPECIAL_TOKENS {
            vocabulary.id(token.to_string());
        }
        for character in alphabet {
            vocabulary.id(character.to_string());
        }
        for character in alphabet.iter().filter(|character| inside.contains(character)) {
            vocabulary.id(format!("{CONTINUATION}{character}"));
        }
        vocabulary
    }

    /// The id of a piece, which is added if it is new.
    fn id(&mut self, piece: String) -> u32 {
        let Self { pieces, ids } = self;
        *ids.entry(piece).or_insert_with_key(|piece| {
            pieces.push(piece.clone());
            (pieces.len() - 1) as u32
        })
    }

    /// Splits a word into the ids of its characters.
    fn spell(&mut self, word: &str) -> Vec<u32> {
        let mark = |index| if index == 0 { "" } else { CONTINUATION };
        word.chars().enumerate().map(|(index, character)| self.id(format!("{}{character}", mark(index)))).collect()
    }

    /// The id of the concatenation of two pieces. It need not be new: "abc" is "ab" + "##c" as well
    /// as "a" + "##bc".
    fn join(&mut self, (first, second): Pair) -> u32 {
        let second = &self.pieces[second as usize];
        let rest = second.strip_prefix(CONTINUATION).unwrap_or(second);
        let joined = format!("{}{rest}", self.pieces[first as usize]);
        self.id(joined)
    }
}

/// A word of the corpus, split by the merges so far.
#[derive(Clone)]
struct Word {
    pieces: Vec<u32>,
    count: u64,
}

impl Word {
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.pieces.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Replaces each occurrence of the pair by `joined`, from left to right.
    fn merge(&mut self, pair: Pair, joined: u32) {
        let mut kept = 0;
        let mut next = 0;
        while next < self.pieces.len() {
            let found = self.pieces[next] == pair.0 && self.pieces.get(next + 1) == Some(&pair.1);
            self.pieces[kept] = if found { joined } else { self.pieces[next] };
            next += if found { 2 } else { 1 };
            kept += 1;
        }
        self.pieces.truncate(kept);
    }
}

/// Number of occurrences of a pair in the corpus, and the words it occurs in (some may no longer
/// contain it).
#[derive(Default)]
struct Occurrences {
    count: u64,
    words: Vec<u32>,
}

/// The words of the corpus and the pairs of pieces in them.
struct Merges {
    words: Vec<Word>,
    pairs: HashMap<Pair, Occurrences>,
    /// All pairs with their current or an earlier, higher count; entries are checked when popped.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Merges {
    fn new(words: Vec<Word>) -> Self {
        let mut pairs: HashMap<Pair, Occurrences> = HashMap::new();
        for (index, word) in words.iter().enumerate() {
            for pair in word.pairs() {
                let occurrences = pairs.entry(pair).or_default();
                occurrences.count += word.count;
                occurrences.words.push(index as u32);
            }
        }
        let queue = pairs.iter().map(|(&pair, occurrences)| (occurrences.count, Reverse(pair))).collect();
        Self { words, pairs, queue }
    }

    /// Removes the most frequent pair, breaking ties by the lowest ids; `None` if it is too rare.
    fn most_frequent(&mut self, min_frequency: u64) -> Option<Pair> {
        while let Some((claimed, Reverse(pair))) = self.queue.pop() {
            let count = self.pairs.get(&pair).map_or(0, |occurrences| occurrences.count);
            if claimed > count {
                self.queue.push((count, Reverse(pair)));
            } else if claimed == count {
                return (count >= min_frequency.max(1)).then_some(pair);
            }
        }
        None
    }

    /// Merges a pair wherever it occurs, and updates the counts of adjacent pairs.
    fn apply(&mut self, pair: Pair, joined: u32) {
        let places = self.pairs.get_mut(&pair).map(|occurrences| std::mem::take(&mut occurrences.words));
        let mut changes: HashMap<Pair, i64> = HashMap::new();
        for index in places.unwrap_or_default() {
            let word = &mut self.words[index as usize];
            word.pairs().for_each(|pair| *changes.entry(pair).or_default() -= word.count as i64);
            word.merge(pair, joined);
            for pair in word.pairs() {
                *changes.entry(pair).or_default() += word.count as i64;
                if pair.0 == joined || pair.1 == joined {
                    self.pairs.entry(pair).or_default().words.push(index);
                }
            }
        }
        changes.into_iter().for_each(|(pair, change)| self.adjust(pair, change));
    }

    /// Adjusts the count of a pair. Only an increase needs a new queue entry: after a decrease, an
    /// entry with a higher count is still queued.
    fn adjust(&mut self, pair: Pair, change: i64) {
        let occurrences = self.pairs.entry(pair).or_default();
        occurrences.count = occurrences.count.saturating_add_signed(change);
        if occurrences.count == 0 {
            self.pairs.remove(&pair);
        } else if change > 0 {
            self.queue.push((occurrences.count, Reverse(pair)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Model;
    use tokenizers::models::wordpiece::WordPiece;

    const TEXT: &str = "the thin singer sings a song, the song of songs; thinking of nothing, thinking things thin";

    fn counted(text: &str) -> WordCounts {
        let mut counts = WordCounts::new(true);
        counts.add(text).unwrap();
        counts
    }

    fn trained(size: usize, text: &str) -> Vec<String> {
        WordPieceTrainer::new(size).train(&counted(text)).unwrap()
    }

    /// (a, ##b) occurs 5 times, then (ab, ##c) 3 times; (x, ##y) occurs once, which is too rare.
    #[test]
    fn a_small_vocabulary_is_as_found_by_hand() {
        let vocabulary = trained(100, "abc abc abc ab ab xy");
        assert_eq!(vocabulary[..5], SPECIAL_TOKENS);
        assert_eq!(vocabulary[5..], ["a", "b", "c", "x", "y", "##b", "##c", "##y", "ab", "abc"]);
    }

    #[test]
    fn of_equal_pairs_the_one_with_lower_ids_comes_first() {
        assert_eq!(trained(100, "cd cd ab ab")[5..], ["a", "b", "c", "d", "##b", "##d", "ab", "cd"]);
    }

    /// A reference implementation, which recounts all pairs for each merge.
    fn trained_slowly(size: usize, counts: &WordCounts) -> Vec<String> {
        let words = counts.sorted();
        let alphabet = alphabet(&words, 1000).0;
        let mut vocabulary = Vocabulary::with_characters(&alphabet, &words);
        let mut words: Vec<Word> =
            words.iter().map(|&(word, count)| Word { pieces: vocabulary.spell(word), count }).collect();
        while vocabulary.pieces.len() < size
            && let Some(pair) = Merges::new(words.clone()).most_frequent(2)
        {
            let joined = vocabulary.join(pair);
            words.iter_mut().for_each(|word| word.merge(pair, joined));
        }
        vocabulary.pieces
    }

    #[test]
    fn merges_agree_with_counting_anew_each_time() {
        let binary: String = (0..400u32).map(|number| format!("{:b} ", number * number % 509)).collect();
        for text in [TEXT, "aaaa aaa aa aaaaaaa baab abaaba", &binary] {
            for size in [50, 60, 1000] {
                assert_eq!(trained(size, text), trained_slowly(size, &counted(text)));
            }
        }
    }

    #[test]
    fn order_of_the_text_does_not_matter() {
        let mut words: Vec<&str> = TEXT.split(' ').collect();
        let first = trained(120, TEXT);
        for _ in 0..5 {
            words.rotate_left(7);
            words.reverse();
            assert_eq!(trained(120, &words.join(" ")), first);
        }
    }

    #[test]
    fn every_word_can_be_tokenized_with_what_it_taught() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_vocab(file.path(), &trained(70, TEXT)).unwrap();
        let model = WordPiece::from_file(file.path().to_str().unwrap()).build().unwrap();
        for (word, _) in counted(TEXT).sorted() {
            let pieces = model.tokenize(word).unwrap();
            let joined: String = pieces.iter().map(|piece| piece.value.trim_start_matches(CONTINUATION)).collect();
            assert_eq!(joined, word);
        }
    }

    #[test]
    fn rare_characters_get_no_piece_and_their_words_no_say() {
        let trained = |size| {
            let trainer = WordPieceTrainer { alphabet_limit: 2, ..WordPieceTrainer::new(size) };
            trainer.train(&counted("ab ab ab aabbz aabbz")).unwrap()
        };
        assert_eq!(trained(9)[5..], ["a", "b", "##b", "ab"]);
        // Three characters take 11 pieces.
        assert_eq!(trained(10), trained(9));
        // Unless there is room for them.
        assert!(trained(100).contains(&"##z".to_string()));
    }

    #[test]
    fn a_size_below_the_alphabet_is_refused() {
        let message = WordPieceTrainer::new(8).train(&counted("abc bca")).unwrap_err().to_string();
        assert!(message.contains("8 pieces is too small") && message.contains("need 11"), "{message}");
        assert_eq!(WordPieceTrainer::new(11).train(&counted("abc bca")).unwrap().len(), 11);
    }

    #[test]
    fn the_file_has_a_piece_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_vocab(file.path(), &trained(13, "ab ab")).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\nab\n");
    }
}
