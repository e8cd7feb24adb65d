//! Dropout masks: which elements dropout zeroes, as a function of the step's seed, the site (which application of
//! dropout in the model), the sequence's number in the micro-batch, and the element's index in the sequence.
//!
//! So no mask is stored for the backward pass or in a checkpoint, and every backend on any number of cores zeroes the
//! same elements. The random bits are a hash of the index (the finalizer of MurmurHash3, keyed at both ends), which
//! compiles to vector instructions.

use std::cell::Cell;

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Tensor};

use super::hash::{mix, scramble};

/// The position in this thread's sequence of masks: the step's seed, the number in the micro-batch of the first
/// sequence of this thread's shard, and the site, the number of applications of dropout since the seed was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaskPosition {
    pub seed: u64,
    pub first_sequence: u32,
    pub site: u32,
}

thread_local! {
    /// The position of this thread.
    static POSITION: Cell<MaskPosition> = const { Cell::new(MaskPosition { seed: 0, first_sequence: 0, site: 0 }) };
}

/// Seeds this thread's masks, for a shard of the batch that starts with sequence number `first_sequence`.
///
/// The trainer calls this before every shard of a micro-batch, or every piece of one. A sequence has the same masks for
/// the same seed, however the batch is sharded.
pub fn seed(seed: u64, first_sequence: usize) {
    restore(MaskPosition { seed, first_sequence: first_sequence as u32, site: 0 });
}

/// The current position of this thread's masks.
pub(crate) fn position() -> MaskPosition {
    POSITION.get()
}

/// Restores an earlier position, so that the same masks are drawn again.
pub(crate) fn restore(position: MaskPosition) {
    POSITION.set(position);
}

/// The mask of one application of dropout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// Hash of the step's seed and the site.
    pub(super) key: u64,
    /// The number in the micro-batch of the input's first sequence.
    pub(super) first_sequence: u32,
    /// The probability in units of 2⁻³²; 0 for no dropout.
    pub(super) p: u32,
}

impl Mask {
    /// No dropout.
    pub(super) const NONE: Self = Self { key: 0, first_sequence: 0, p: 0 };

    /// The mask at this thread's next site, with probability `p`.
    pub(super) fn next(p: f64) -> Self {
        let position = next_site();
        Self { key: site_key(position.seed, position.site), first_sequence: position.first_sequence, p: threshold(p) }
    }

    /// The key of one sequence of the input; with several `groups` (attention heads) per sequence, that of one group.
    #[inline(always)]
    pub(super) fn key_of(&self, sequence: usize, group: usize, groups: usize) -> u64 {
        let sequence = self.first_sequence.wrapping_add(sequence as u32);
        sequence_key(self.key, sequence.wrapping_mul(groups as u32).wrapping_add(group as u32))
    }

    /// The factor of the elements that are kept, 1 / (1 − p).
    #[inline(always)]
    pub(super) fn scale(&self) -> f32 {
        scale(self.p)
    }
}

/// Returns the current position and moves to the next site.
pub(super) fn next_site() -> MaskPosition {
    let position = POSITION.get();
    POSITION.set(MaskPosition { site: position.site + 1, ..position });
    position
}

/// The key of a site.
pub(super) fn site_key(seed: u64, site: u32) -> u64 {
    mix(seed ^ mix(u64::from(site)))
}

/// The key of one sequence at the site of `key`. Uses 32-bit arithmetic only, for GPUs.
#[inline(always)]
pub(super) fn sequence_key(key: u64, number: u32) -> u64 {
    let low = scramble(number.wrapping_mul(0x9E37_79B9) ^ key as u32);
    let high = scramble(low ^ (key >> 32) as u32);
    u64::from(high) << 32 | u64::from(low)
}

/// The probability in units of 2⁻³².
pub(super) fn threshold(p: f64) -> u32 {
    (p * f64::from(u32::MAX)) as u32
}

/// The 32 random bits of element `index` of the sequence of `key`.
#[inline(always)]
pub(super) fn bits(key: u64, index: u32) -> u32 {
    let mut x = index.wrapping_mul(0x9E37_79B9) ^ key as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35) ^ (key >> 32) as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x ^ (x >> 15)
}

/// The factor of element `index` of the sequence of `key`: 0, or 1 / (1 − p).
#[inline(always)]
pub(super) fn factor(key: u64, index: u32, p: u32, scale: f32) -> f32 {
    if bits(key, index) < p { 0.0 } else { scale }
}

/// The factor of the elements that are kept, 1 / (1 − p).
#[inline(always)]
pub(super) fn scale(p: u32) -> f32 {
    (1.0 / (1.0 - f64::from(p) / f64::from(u32::MAX))) as f32
}

/// The index of an attention probability in the mask of its head. Unique for up to 65,536 tokens.
#[inline(always)]
pub(super) fn attention_index(from: usize, to: usize) -> u32 {
    (from as u32) << 16 | to as u32 & 0xFFFF
}

/// Dropout (Srivastava et al. 2014) as a layer: active on an autodiff device, else the identity.
///
/// Masks come from this thread's seed, which is 0 in a new thread: call [`seed`] before every forward pass that trains,
/// or all threads, and all steps of each, begin with the same masks.
#[derive(Module, Debug)]
pub struct Dropout {
    /// The probability of zeroing an element, at least 0 and below 1.
    pub probability: f64,
    /// Cleared when this part of the model is frozen.
    pub training: Param<Flag>,
}

impl Dropout {
    /// A layer with the given probability.
    pub fn new(probability: f64) -> Self {
        Self { probability, training: Param::from_bool(true) }
    }

    /// Applies dropout if it is active. The output has the shape of `x`, whose first dimension counts sequences.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.active(&x.device()) {
            Some(p) => super::dropout(x, p),
            None => x,
        }
    }

    /// The probability if dropout is active on this device, else `None`.
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
    fn a_shard_of_a_batch_has_the_masks_of_its_sequences() {
        seed(5, 0);
        let whole = Mask::next(0.1);
        seed(5, 3);
        let shard = Mask::next(0.1);
        assert_eq!(whole.key_of(4, 1, 2), shard.key_of(1, 1, 2));
        assert_ne!(whole.key_of(4, 1, 2), shard.key_of(1, 0, 2));
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
