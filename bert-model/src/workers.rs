//! One worker for each core, a part of the batch for each worker.
//!
//! A CPU is kept busiest by letting every core run the whole model on its own examples: no operation has to be cut up, no
//! core waits for another, and activations stay in the cache that made them. Each worker's own thread pool has one
//! thread, so that matrix products inside it do not spread, and takes denormal numbers for 0. On a GPU there is one worker, the calling thread.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::ops::denormals;

/// Runs parts of a batch beside each other.
#[derive(Debug)]
pub struct Workers {
    /// Empty for the calling thread alone.
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// As many as the device has use for.
    ///
    /// # Errors
    /// If the system refuses threads.
    pub fn for_device(device: &Device) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if device.clone().inner() == Device::flex() && cores > 1 { cores } else { 0 };
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).start_handler(|_| denormals::flush()).build();
        let pools = (0..count).map(pool).collect::<Result<_, _>>();
        Ok(Self { pools: pools.map_err(|error| Error::Setting(format!("cannot start threads: {error}")))? })
    }

    /// Number of parts that run at once.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Applies `work` to every part, at most [`Workers::count`] of them; results come in the order of the parts.
    pub fn run<P: Send, R: Send>(&self, parts: Vec<P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
        if parts.len() <= 1 || self.pools.is_empty() {
            return parts.into_iter().map(work).collect();
        }
        let work = &work;
        std::thread::scope(|scope| {
            let spawn = |(part, pool)| {
                let pool: &ThreadPool = pool;
                scope.spawn(move || pool.install(|| work(part)))
            };
            let handles: Vec<_> = parts.into_iter().zip(self.pools.iter().cycle()).map(spawn).collect();
            let join = |handle: std::thread::ScopedJoinHandle<R>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            handles.into_iter().map(join).collect()
        })
    }

    /// Applies `work` to items of these lengths (in tokens), given by their numbers, in batches of like lengths that hold
    /// little padding. `work` answers for each number of its batch; the answers come in the order of the items.
    /// A batch has at most `batch_tokens` tokens, padding included, unless it is one item.
    pub fn run_by_length<R: Send>(
        &self,
        lengths: &[usize],
        batch_tokens: usize,
        work: impl Fn(&[usize]) -> Vec<R> + Sync,
    ) -> Vec<R> {
        let share = lengths.iter().sum::<usize>().div_ceil(self.count());
        let batches = batches_by_length(lengths, share.min(batch_tokens));
        // Whoever is free takes the next batch, the longest first, so that nobody waits long for the last one.
        let taken = AtomicUsize::new(0);
        let next = || batches.iter().rev().nth(taken.fetch_add(1, Ordering::Relaxed));
        let answers = self.run(vec![(); self.count().min(batches.len())], |()| {
            let mut answers = Vec::new();
            while let Some(batch) = next() {
                answers.extend(batch.iter().copied().zip(work(batch)));
            }
            answers
        });
        let mut answers: Vec<(usize, R)> = answers.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// Tokens of a batch, padding included: enough to keep a core busy, few enough to stay in the cache.
pub const BATCH_TOKENS: usize = 4096;

/// A batch of this many tokens, which keeps a core busy as well, takes no item for which much of it would be padded.
const ENOUGH_TOKENS: usize = 1024;

/// Cuts the numbers 0..lengths.len() into batches of similar lengths, shortest first, of at most so many tokens.
fn batches_by_length(lengths: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| lengths[index]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if takes(batch.len(), tokens, lengths[index], limit) => {
                batch.push(index);
                tokens += lengths[index];
            }
            _ => {
                batches.push(vec![index]);
                tokens = lengths[index];
            }
        }
    }
    batches
}

/// Whether a batch of `count` shorter items with `tokens` in all takes one of `length`.
fn takes(count: usize, tokens: usize, length: usize, limit: usize) -> bool {
    let padded = (count + 1) * length;
    let padding = padded - (tokens + length);
    padded <= limit && (tokens < ENOUGH_TOKENS || padding * 25 <= padded)
}

/// Cuts a list into at most `count` parts of nearly the same length, in order.
pub fn split_evenly<T>(mut items: Vec<T>, count: usize) -> Vec<Vec<T>> {
    let count = count.clamp(1, items.len().max(1));
    let mut parts = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let rest = items.split_off(items.len().div_ceil(left));
        parts.push(std::mem::replace(&mut items, rest));
    }
    parts
}

/// Cuts a list that is sorted by length, shortest first, into at most `count` parts, so that the largest, padding included,
/// is as small as can be.
pub fn split_by_length<T>(mut items: Vec<T>, length: impl Fn(&T) -> usize, count: usize) -> Vec<Vec<T>> {
    let lengths: Vec<usize> = items.iter().map(|item| length(item).max(1)).collect();
    // Where the parts begin, last first, if none may be larger than `limit`.
    let cuts = |limit: usize| {
        let (mut cuts, mut left) = (Vec::new(), lengths.len());
        while left > 0 {
            left = left.saturating_sub(limit / lengths[left - 1]);
            cuts.push(left);
        }
        cuts
    };
    let longest = lengths.last().copied().unwrap_or(1);
    let (mut low, mut high) = (longest, longest * lengths.len().max(1));
    while low < high {
        let middle = (low + high) / 2;
        if cuts(middle).len() <= count.max(1) { high = middle } else { low = middle + 1 }
    }
    let mut parts: Vec<Vec<T>> = cuts(low).into_iter().map(|cut| items.split_off(cut)).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_by_length_are_even_with_their_padding() {
        let split = |items: &[usize], count| split_by_length(items.to_vec(), |&length| length, count);
        assert_eq!(split(&[1, 1, 1, 1, 2, 8], 2), [vec![1, 1, 1, 1, 2], vec![8]]);
        assert_eq!(split(&[5, 5, 5, 5], 2), [vec![5, 5], vec![5, 5]]);
        assert_eq!(split(&[3, 4], 1), [vec![3, 4]]);
        assert_eq!(split(&[3, 4], 9), [vec![3], vec![4]]);
        assert_eq!(split(&[0], 2), [vec![0]]);
        assert!(split(&[], 2).is_empty());
    }

    #[test]
    fn parts_are_even_and_in_order() {
        assert_eq!(split_evenly(vec![1, 2, 3, 4, 5], 2), [vec![1, 2, 3], vec![4, 5]]);
        assert_eq!(split_evenly(vec![1], 4), [vec![1]]);
        assert_eq!(split_evenly(Vec::<u8>::new(), 4), [Vec::<u8>::new()]);
    }

    #[test]
    fn every_item_comes_once_in_batches_of_like_lengths() {
        // Many short ones, and the longer the fewer.
        let lengths: Vec<usize> = (0..1000).map(|i| 1 + (i * 37) % 512 * (1 + i * i % 97) / 97).collect();
        let batches = batches_by_length(&lengths, BATCH_TOKENS);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        let padded: usize = batches.iter().map(|batch| batch.len() * lengths[batch[batch.len() - 1]]).sum();
        assert!(padded as f64 <= 1.05 * lengths.iter().sum::<usize>() as f64, "more than 5 % padding");
        let workers = Workers::for_device(&Device::flex()).unwrap();
        let own = |batch: &[usize]| batch.iter().map(|&index| lengths[index]).collect();
        let answers = workers.run_by_length(&lengths, BATCH_TOKENS, own);
        assert_eq!(answers, lengths);
    }

    #[test]
    fn results_come_in_the_order_of_the_parts() {
        let workers = Workers::for_device(&Device::flex()).unwrap();
        assert_eq!(workers.run(vec![1, 2, 3], |part| part * 10), [10, 20, 30]);
    }
}
