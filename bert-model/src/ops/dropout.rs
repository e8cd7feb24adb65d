//! Which elements dropout zeroes: a function of the seed of the step, the place in the model, the number of the sequence
//! within the batch, and the index within the sequence.
//!
//! Nothing is stored for the backward pass, nothing has to be saved with a checkpoint, and every backend, on any number
//! of cores, zeroes the same elements. The random numbers are a hash of the index (the finalizer of MurmurHash3, keyed at
//! both ends), which the compiler turns into vector instructions.

use std::cell::Cell;

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Tensor};

use super::hash::{mix, scramble};

/// Where this thread's masks stand: the seed of the step, the number of the first sequence of this thread's part within
/// the batch, and how many times dropout was applied since the seed was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub seed: u64,
    pub first_sequence: u32,
    pub site: u32,
}

thread_local! {
    static STREAM: Cell<Stream> = const { Cell::new(Stream { seed: 0, first_sequence: 0, site: 0 }) };
}

/// Begins new masks on this thread, whose inputs are the sequences of a batch from number `first_sequence` on. The
/// trainer does so before every part of a micro-batch; the same seed and sequence have the same masks wherever the batch
/// was cut.
pub fn seed(seed: u64, first_sequence: usize) {
    resume(Stream { seed, first_sequence: first_sequence as u32, site: 0 });
}

/// Where this thread's masks stand.
pub(crate) fn stream() -> Stream {
    STREAM.get()
}

/// Returns to an earlier place, to draw the same masks again.
pub(crate) fn resume(stream: Stream) {
    STREAM.set(stream);
}

/// One application of dropout: which elements it zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// Of the step and of the place in the model.
    pub(super) key: u64,
    /// Number of the input's first sequence within the batch.
    pub(super) first_sequence: u32,
    /// Probability in units of 2⁻³²; 0 for no dropout.
    pub(super) p: u32,
}

impl Mask {
    /// Zeroes nothing.
    pub(super) const NONE: Self = Self { key: 0, first_sequence: 0, p: 0 };

    /// The next mask of this thread's stream.
    pub(super) fn next(p: f64) -> Self {
        let stream = next_site();
        Self { key: site_key(stream.seed, stream.site), first_sequence: stream.first_sequence, p: threshold(p) }
    }

    /// The key of a sequence of the input, by its number there; of one attention head where `groups` heads share it.
    #[inline(always)]
    pub(super) fn key_of(&self, sequence: usize, group: usize, groups: usize) -> u64 {
        let sequence = self.first_sequence.wrapping_add(sequence as u32);
        sequence_key(self.key, sequence.wrapping_mul(groups as u32).wrapping_add(group as u32))
    }

    /// 1 / (1 − p).
    #[inline(always)]
    pub(super) fn scale(&self) -> f32 {
        scale(self.p)
    }
}

/// Where the next application of dropout on this thread stands.
pub(super) fn next_site() -> Stream {
    let stream = STREAM.get();
    STREAM.set(Stream { site: stream.site + 1, ..stream });
    stream
}

/// The key of one application of dropout.
pub(super) fn site_key(seed: u64, site: u32) -> u64 {
    mix(seed ^ mix(u64::from(site)))
}

/// The key of one sequence. All of it is 32-bit arithmetic, which GPUs have.
#[inline(always)]
pub(super) fn sequence_key(key: u64, number: u32) -> u64 {
    let low = scramble(number.wrapping_mul(0x9E37_79B9) ^ key as u32);
    let high = scramble(low ^ (key >> 32) as u32);
    u64::from(high) << 32 | u64::from(low)
}

/// A probability in units of 2⁻³².
pub(super) fn threshold(p: f64) -> u32 {
    (p * f64::from(u32::MAX)) as u32
}

/// 32 random bits for element `index` of a sequence.
#[inline(always)]
pub(super) fn bits(key: u64, index: u32) -> u32 {
    let mut x = index.wrapping_mul(0x9E37_79B9) ^ key as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35) ^ (key >> 32) as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x ^ (x >> 15)
}

/// What element `index` of a sequence is multiplied by: 0, or 1 / (1 − p).
#[inline(always)]
pub(super) fn factor(key: u64, index: u32, p: u32, scale: f32) -> f32 {
    if bits(key, index) < p { 0.0 } else { scale }
}

/// 1 / (1 − p).
#[inline(always)]
pub(super) fn scale(p: u32) -> f32 {
    (1.0 / (1.0 - f64::from(p) / f64::from(u32::MAX))) as f32
}

/// The index of an attention probability within the mask of its head; at most 65,536 tokens have places of their own.
#[inline(always)]
pub(super) fn attention_index(from: usize, to: usize) -> u32 {
    (from as u32) << 16 | to as u32 & 0xFFFF
}

/// Dropout as a layer: at work on a training device, else nothing.
#[derive(Module, Debug)]
pub struct Dropout {
    /// Probability of zeroing an element, at least 0 and below 1.
    pub probability: f64,
    /// Cleared when a part of the model is frozen.
    pub training: Param<Flag>,
}

impl Dropout {
    /// With the given probability.
    pub fn new(probability: f64) -> Self {
        Self { probability, training: Param::from_bool(true) }
    }

    /// Output: the shape of the input.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.active(&x.device()) {
            Some(p) => super::dropout(x, p),
            None => x,
        }
    }

    /// The probability, if there is to be dropout on this device.
    pub fn active(&self, device: &Device) -> Option<f64> {
        let is_active = self.training.is_enabled() && device.is_autodiff() && self.probability > 0.0;
        is_active.then_some(self.probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_share_is_zeroed_and_the_mean_stays() {
        let (key, p) = (mix(7), threshold(0.1));
        let factors: Vec<f64> = (0..1_000_000).map(|index| f64::from(factor(key, index, p, scale(p)))).collect();
        let zeroed = factors.iter().filter(|factor| **factor == 0.0).count() as f64 / 1e6;
        // Four standard deviations of a share of a million draws are 0.12 %.
        assert!((zeroed - 0.1).abs() < 0.0012, "{zeroed}");
        assert!((factors.iter().sum::<f64>() / 1e6 - 1.0).abs() < 0.0014);
    }

    #[test]
    fn neighbors_keys_and_sequences_are_independent() {
        let p = threshold(0.5);
        let zeroed = |site, sequence, index| bits(sequence_key(site_key(9, site), sequence), index) < p;
        let agree = |other: &dyn Fn(u32) -> bool| (0..100_000).filter(|&i| zeroed(1, 3, i) == other(i)).count();
        let others: [&dyn Fn(u32) -> bool; 5] =
            [&|i| zeroed(1, 3, i + 1), &|i| zeroed(1, 3, i + 128), &|i| zeroed(2, 3, i), &|i| zeroed(1, 4, i), &|i| {
                zeroed(1, 3 + (1 << 16), i)
            }];
        for count in others.map(agree) {
            assert!((49_300..50_700).contains(&count), "{count}");
        }
        // The same element over many sequences.
        let ones = (0..100_000).filter(|&sequence| zeroed(1, sequence, 5) == zeroed(1, sequence + 1, 5)).count();
        assert!((49_300..50_700).contains(&ones), "{ones}");
    }

    #[test]
    fn a_part_of_a_batch_has_the_masks_of_its_sequences() {
        seed(5, 0);
        let whole = Mask::next(0.1);
        seed(5, 3);
        let part = Mask::next(0.1);
        assert_eq!(whole.key_of(4, 1, 2), part.key_of(1, 1, 2));
        assert_ne!(whole.key_of(4, 1, 2), part.key_of(1, 0, 2));
    }

    #[test]
    fn a_seed_repeats_its_masks() {
        let keys = || std::iter::repeat_with(|| Mask::next(0.1).key).take(3).collect::<Vec<_>>();
        seed(5, 0);
        let first = keys();
        seed(5, 0);
        assert_eq!(first, keys());
        assert_ne!(first[0], first[1]);
    }
}
