//! A pseudorandom permutation of 0..n in constant memory: each value is computed independently.
//!
//! A Feistel network permutes all numbers of an even number of bits; a result of n or more is
//! permuted again until it is below n ("cycle walking", Black and Rogaway 2002). This shuffles a
//! corpus of any size as a whole.

use bert_model::ops::hash;
use serde::{Deserialize, Serialize};

/// Four rounds give a pseudorandom permutation (Luby and Rackoff 1988); a few more cost nothing here.
const ROUNDS: u64 = 6;

/// A keyed pseudorandom permutation of 0..n.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    key: u64,
}

impl Permutation {
    /// The permutation of 0..`n` selected by `key`.
    pub fn new(n: u64, key: u64) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), key }
    }

    /// The value at `index`, which must be below n.
    pub fn apply(&self, index: u64) -> u64 {
        let mut place = self.permute(index);
        while place >= self.n {
            place = self.permute(place);
        }
        place
    }

    fn permute(&self, index: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (index >> self.half_bits, index & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (mix(&[self.key, round, right]) & mask));
        }
        left << self.half_bits | right
    }
}

/// Mixes several numbers into one: SplitMix64's finalizer over each in turn.
pub fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9E37_79B9_7F4A_7C15, |state, part| hash::mix(state ^ part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once() {
        for n in [1, 2, 3, 10, 255, 256, 257, 5000] {
            let permutation = Permutation::new(n, 42);
            let mut places: Vec<_> = (0..n).map(|index| permutation.apply(index)).collect();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..n), "n = {n}");
        }
    }

    #[test]
    fn near_numbers_in_different_places_are_mixed_differently() {
        let seeds_of_steps =
            (0..8).flat_map(|seed| (0..8).flat_map(move |step| (0..8).map(move |part| [seed, step, part])));
        let mixed: std::collections::HashSet<_> = seeds_of_steps.map(|parts| mix(&parts)).collect();
        assert_eq!(mixed.len(), 8 * 8 * 8);
    }

    #[test]
    fn neighbors_are_far_apart_and_keys_differ() {
        let (a, b) = (Permutation::new(10_000, 1), Permutation::new(10_000, 2));
        let distance: u64 = (0..9_999).map(|i| a.apply(i).abs_diff(a.apply(i + 1))).sum();
        // Two positions drawn at random are n/3 apart on average.
        assert!((distance as f64 / 9_999.0 - 3_333.0).abs() < 150.0, "{distance}");
        assert!((0..10_000).filter(|&i| a.apply(i) == b.apply(i)).count() < 20);
    }
}
