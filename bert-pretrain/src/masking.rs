//! Masked LM (Devlin et al. 2018, §3.1, task 1): 15 % of the tokens are chosen; of these, 80 % become
//! `[MASK]`, 10 % a random token, and 10 % stay unchanged, so that the model cannot tell from its
//! input which tokens it has to predict.

use bert_model::text::SpecialTokens;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// The fraction of tokens that the paper masks.
pub const MASK_PROB: f64 = 0.15;

/// How tokens are chosen for masking.
#[derive(Debug, Clone)]
pub struct Masking {
    /// Fraction of the tokens of a sequence to mask.
    pub probability: f64,
    /// Maximum number of masked tokens per sequence.
    pub max_predictions: usize,
    /// For whole-word masking: for each id, whether the WordPiece continues a word. Empty for masking WordPieces
    /// independently.
    pub continuations: Vec<bool>,
    /// Ids of the special tokens; `[CLS]`, `[SEP]` and `[PAD]` are never masked.
    pub special: SpecialTokens,
    /// Id of `[MASK]`.
    pub mask: u32,
    /// Vocabulary size. Random tokens are drawn from the whole vocabulary, as in Google's code.
    pub vocab_size: u32,
}

/// A masked token, which the model must predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskedToken {
    /// Position in the sequence.
    pub position: usize,
    /// The original id.
    pub id: u32,
}

impl Masking {
    /// Masks tokens of `ids` in place and returns the originals, in order of position.
    pub fn apply(&self, ids: &mut [u32], rng: &mut impl Rng) -> Vec<MaskedToken> {
        let budget = self.prediction_count(ids.len());
        let mut words = self.words(ids);
        words.shuffle(rng);
        let mut chosen: Vec<MaskedToken> = Vec::with_capacity(budget);
        for word in words {
            if chosen.len() == budget {
                break;
            }
            // Skip a whole word that exceeds the budget; a shorter one may still fit.
            if chosen.len() + word.len() <= budget {
                chosen.extend(word.map(|position| MaskedToken { position, id: ids[position] }));
            }
        }
        chosen.sort_unstable_by_key(|token| token.position);
        for token in &chosen {
            ids[token.position] = self.replacement(token.id, rng);
        }
        chosen
    }

    /// Number of tokens to mask in a sequence of `length` tokens, special tokens included (as in
    /// Google's code).
    fn prediction_count(&self, length: usize) -> usize {
        let share = (length as f64 * self.probability).round_ties_even() as usize;
        share.max(1).min(self.max_predictions)
    }

    /// The candidates for masking, as ranges of positions: WordPieces or whole words.
    fn words(&self, ids: &[u32]) -> Vec<std::ops::Range<usize>> {
        let is_special = |id: u32| id == self.special.cls || id == self.special.sep || id == self.special.pad;
        let mut words: Vec<std::ops::Range<usize>> = Vec::with_capacity(ids.len());
        for (position, &id) in ids.iter().enumerate() {
            if is_special(id) {
                continue;
            }
            let continues = self.continuations.get(id as usize).copied().unwrap_or(false);
            match words.last_mut() {
                Some(word) if continues && word.end == position => word.end += 1,
                _ => words.push(position..position + 1),
            }
        }
        words
    }

    fn replacement(&self, id: u32, rng: &mut impl Rng) -> u32 {
        match rng.random_range(0..10) {
            0..8 => self.mask,
            8 => id,
            _ => rng.random_range(0..self.vocab_size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const SPECIAL: SpecialTokens = SpecialTokens { pad: 0, unk: 1, cls: 2, sep: 3 };
    const MASK: u32 = 4;

    fn masking() -> Masking {
        Masking {
            probability: 0.15,
            max_predictions: 20,
            continuations: vec![],
            special: SPECIAL,
            mask: MASK,
            vocab_size: 1000,
        }
    }

    /// `[CLS] … [SEP] … [SEP]` of `length` tokens, with ids from 500 up.
    fn sequence(length: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..length as u32).map(|i| 500 + i).collect();
        (ids[0], ids[length / 2], ids[length - 1]) = (SPECIAL.cls, SPECIAL.sep, SPECIAL.sep);
        ids
    }

    #[test]
    fn shares_are_fifteen_percent_and_80_10_10() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut chosen, mut masked, mut kept, rounds) = (0, 0, 0, 5_000);
        for _ in 0..rounds {
            let original = sequence(128);
            let mut ids = original.clone();
            let tokens = masking().apply(&mut ids, &mut rng);
            for token in &tokens {
                assert_eq!(token.id, original[token.position]);
                assert!(token.id >= 500, "a special token was chosen");
                masked += usize::from(ids[token.position] == MASK);
                kept += usize::from(ids[token.position] == token.id);
            }
            let changed = ids.iter().zip(&original).filter(|(a, b)| a != b).count();
            assert!(changed <= tokens.len(), "a token that was not chosen changed");
            chosen += tokens.len();
        }
        assert_eq!(chosen, 19 * rounds, "round(0.15 · 128) of each");
        // Four standard deviations of a fraction over 95,000 draws are 0.5 %.
        let share = |count: usize| count as f64 / chosen as f64;
        assert!((share(masked) - 0.8).abs() < 0.006, "{}", share(masked));
        assert!((share(kept) - 0.1).abs() < 0.005, "{}", share(kept));
    }

    #[test]
    fn at_least_one_and_at_most_the_maximum() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        assert_eq!(masking().apply(&mut sequence(4), &mut rng).len(), 1);
        assert_eq!(masking().apply(&mut sequence(512), &mut rng).len(), 20);
    }

    #[test]
    fn the_number_of_predictions_rounds_half_to_even() {
        assert_eq!(masking().prediction_count(10), 2, "1.5 rounds to 2");
        assert_eq!(masking().prediction_count(30), 4, "4.5 rounds to 4");
    }

    #[test]
    fn whole_words_are_masked_whole() {
        // Every odd id continues the word of the even id before it.
        let continuations = (0..2000).map(|id| id >= 500 && id % 2 == 1).collect();
        let masking = Masking { continuations, ..masking() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..500 {
            let original: Vec<u32> = [SPECIAL.cls].into_iter().chain(500..620).chain([SPECIAL.sep]).collect();
            let tokens = masking.apply(&mut original.clone(), &mut rng);
            let positions: Vec<_> = tokens.iter().map(|token| token.position).collect();
            assert!(tokens.len() <= 18 && tokens.len() >= 17);
            for pair in positions.chunks(2) {
                assert_eq!(pair[1], pair[0] + 1, "a word was torn apart");
                assert_eq!(pair[0] % 2, 1);
            }
        }
    }

    #[test]
    fn every_position_is_as_likely_as_every_other() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut counts = [0_u32; 64];
        for _ in 0..12_000 {
            masking().apply(&mut sequence(64), &mut rng).iter().for_each(|token| counts[token.position] += 1);
        }
        // 10 of 61 candidates each time: 1,967 expected, standard deviation 40.
        let candidates = (1..63).filter(|&position| position != 32);
        assert!(candidates.map(|position| counts[position]).all(|count| (count as f64 - 1967.0).abs() < 200.0));
        assert_eq!((counts[0], counts[32], counts[63]), (0, 0, 0));
    }
}
