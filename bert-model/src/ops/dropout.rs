//! Which elements dropout zeroes: a function of the seed of the step, the place in the model, and the index.
//!
//! Nothing is stored for the backward pass, nothing has to be saved with a checkpoint, and every backend zeroes the same
//! elements. The random numbers are a hash of the index (the finisher of MurmurHash3, keyed at both ends), which the
//! compiler turns into vector instructions.

use std::cell::Cell;

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Tensor};

use super::hash::mix;

/// Where a sequence of masks stands: its seed, and how many times dropout was applied since.
pub(crate) type Stream = (u64, u64);

thread_local! {
    static STREAM: Cell<Stream> = const { Cell::new((0, 0)) };
}

/// Begins a new sequence of masks on this thread; the trainer does so before every part of a micro-batch.
pub fn seed(seed: u64) {
    resume((seed, 0));
}

/// Where this thread's sequence of masks stands.
pub(crate) fn stream() -> Stream {
    STREAM.get()
}

/// Goes back to a place in a sequence of masks.
pub(crate) fn resume(stream: Stream) {
    STREAM.set(stream);
}

/// The key of the next application of dropout on this thread.
pub(super) fn next_key() -> u64 {
    let (seed, site) = STREAM.get();
    STREAM.set((seed, site + 1));
    mix(seed ^ mix(site))
}

/// A probability in units of 2⁻³².
pub(super) fn threshold(p: f64) -> u32 {
    (p * f64::from(u32::MAX)) as u32
}

/// 32 random bits for element `index`.
#[inline(always)]
pub(super) fn bits(key: u64, index: u32) -> u32 {
    let mut x = index.wrapping_mul(0x9E37_79B9) ^ key as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35) ^ (key >> 32) as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x ^ (x >> 15)
}

/// What element `index` is multiplied by: 0, or 1 / (1 − p).
#[inline(always)]
pub(super) fn factor(key: u64, index: usize, p: u32) -> f32 {
    if bits(key, index as u32) < p { 0.0 } else { scale(p) }
}

/// 1 / (1 − p).
#[inline(always)]
pub(super) fn scale(p: u32) -> f32 {
    (1.0 / (1.0 - f64::from(p) / f64::from(u32::MAX))) as f32
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
        let factors: Vec<f64> = (0..1_000_000).map(|index| f64::from(factor(key, index, p))).collect();
        let zeroed = factors.iter().filter(|factor| **factor == 0.0).count() as f64 / 1e6;
        // Four standard deviations of a share of a million draws are 0.12 %.
        assert!((zeroed - 0.1).abs() < 0.0012, "{zeroed}");
        assert!((factors.iter().sum::<f64>() / 1e6 - 1.0).abs() < 0.0014);
    }

    #[test]
    fn neighbors_and_keys_are_independent() {
        let p = threshold(0.5);
        let zeroed = |key: u64, index: usize| factor(mix(key), index, p) == 0.0;
        let agree = |other: &dyn Fn(usize) -> bool| (0..100_000).filter(|&i| zeroed(1, i) == other(i)).count();
        for count in [agree(&|i| zeroed(1, i + 1)), agree(&|i| zeroed(2, i)), agree(&|i| zeroed(1, i + 128))] {
            assert!((49_300..50_700).contains(&count), "{count}");
        }
    }

    #[test]
    fn a_seed_repeats_its_masks() {
        let keys = || std::iter::repeat_with(next_key).take(3).collect::<Vec<_>>();
        seed(5);
        let first = keys();
        seed(5);
        assert_eq!(first, keys());
        assert_ne!(first[0], first[1]);
    }
}
