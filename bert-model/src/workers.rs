//! Data parallelism over the CPU cores: one worker per core, each with a shard of the batch.
//!
//! Every core runs the whole model on its own examples. This is faster than sharing each operation among the cores: no
//! core waits for another, and activations stay in the cache of the core that computed them. Each worker is a thread
//! pool with a single thread, so its matrix products do not use other cores, and denormal numbers are treated as 0. A
//! single shard's products are shared among all cores. On a GPU, the calling thread is the only worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, TryLockError};
use std::thread::ScopedJoinHandle;

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::ops::denormals;

/// The workers that process the shards of a batch in parallel.
#[derive(Debug)]
pub struct Workers {
    /// One pool per worker; empty on a GPU, where the calling thread is the only worker.
    pools: Vec<ThreadPool>,
    /// A thread for each worker, for a single shard of one caller at a time; none if there is one worker or a GPU.
    all: Option<Mutex<ThreadPool>>,
}

impl Workers {
    /// Creates the workers for a device: one per core for `flex`, otherwise one.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn for_device(device: &Device) -> Result<Self> {
        Self::new(device, std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Creates the workers for a device: `count` for `flex`, otherwise one. If that is the number of cores that the
    /// process may use, each worker stays on a core of its own.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(device: &Device, count: usize) -> Result<Self> {
        let count = if device.clone().inner() == Device::flex() { count.max(1) } else { 0 };
        let cores = own_cores(count);
        let pool = |first: usize, threads: usize| {
            let cores = cores.clone();
            let start = move |thread: usize| {
                denormals::flush();
                if let Some(&core) = cores.get(first + thread) {
                    stay_on(core);
                }
            };
            ThreadPoolBuilder::new().num_threads(threads).start_handler(start).build()
        };
        let failure = |error| Error::Setting(format!("cannot start threads: {error}"));
        let pools = (0..count).map(|worker| pool(worker, 1)).collect::<Result<_, _>>().map_err(failure)?;
        let all = (count > 1).then(|| pool(0, count)).transpose().map_err(failure)?;
        Ok(Self { pools, all: all.map(Mutex::new) })
    }

    /// The number of workers, which is also the number of shards that run at once.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Runs `work` with its matrix products shared among all cores. If another caller has them, it runs on the calling
    /// thread: threads that wait for a part of a product would begin with the other's work. A panic in `work`
    /// propagates to the caller.
    pub fn together<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let Some(all) = &self.all else {
            return match self.pools.first() {
                Some(pool) => pool.install(work),
                None => work(),
            };
        };
        match all.try_lock() {
            Ok(pool) => pool.install(work),
            Err(TryLockError::Poisoned(pool)) => pool.into_inner().install(work),
            Err(TryLockError::WouldBlock) => work(),
        }
    }

    /// Applies `work` to every shard, one per worker, or a single shard on all of them, and returns the results in the
    /// order of the shards. A panic in `work` propagates to the caller.
    pub fn run<S: Send, R: Send>(&self, shards: Vec<S>, work: impl Fn(S) -> R + Sync) -> Vec<R> {
        let work = &work;
        if shards.len() <= 1 || self.pools.len() <= 1 {
            return self.together(|| shards.into_iter().map(work).collect());
        }
        std::thread::scope(|scope| {
            let spawn = |(shard, pool)| {
                let pool: &ThreadPool = pool;
                scope.spawn(move || pool.install(|| work(shard)))
            };
            let pools = self.pools.iter().cycle().skip(self.first_of(shards.len()));
            let handles: Vec<_> = shards.into_iter().zip(pools).map(spawn).collect();
            handles.into_iter().map(join).collect()
        })
    }

    /// The first of `count` workers. If they are fewer than all, it rotates with every call and differs between
    /// processes, so that work does not pile up on one core.
    fn first_of(&self, count: usize) -> usize {
        static NEXT: LazyLock<AtomicUsize> = LazyLock::new(|| AtomicUsize::new(std::process::id() as usize));
        if count < self.pools.len() { NEXT.fetch_add(count, Ordering::Relaxed) % self.pools.len() } else { 0 }
    }

    /// Applies `work` to every item: a free worker takes the next one. Returns the results in the order of the items.
    /// A panic in `work` propagates to the caller.
    pub fn run_each<S: Send, R: Send>(&self, items: Vec<S>, work: impl Fn(S) -> R + Sync) -> Vec<R> {
        if self.pools.is_empty() {
            return items.into_iter().map(work).collect();
        }
        let count = items.len();
        let (work, items) = (&work, Mutex::new(items.into_iter().enumerate()));
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        let take_all = &|| {
            let mut results = Vec::new();
            while let Some((index, item)) = next() {
                results.push((index, work(item)));
            }
            results
        };
        let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
            let pools = self.pools.iter().cycle().skip(self.first_of(count)).take(count.min(self.pools.len()));
            let handles: Vec<_> = pools.map(|pool| scope.spawn(move || pool.install(take_all))).collect();
            handles.into_iter().flat_map(join).collect()
        });
        results.sort_unstable_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Applies `work` to items of the given lengths (in tokens), in batches of similar lengths, which need little
    /// padding. `work` receives the indices of a batch's items and returns one answer for each. The answers are
    /// returned in the order of the items.
    ///
    /// A batch has at most `batch_tokens` tokens including padding, or consists of a single item.
    pub fn run_by_length<R: Send>(
        &self,
        lengths: &[usize],
        batch_tokens: usize,
        work: impl Fn(&[usize]) -> Vec<R> + Sync,
    ) -> Vec<R> {
        let share = lengths.iter().sum::<usize>().div_ceil(self.count());
        // The longest ones come first, so that all workers finish at about the same time.
        let batches: Vec<_> = batches_by_length(lengths, share.min(batch_tokens)).into_iter().rev().collect();
        let work = |batch: Vec<usize>| {
            let answers = work(&batch);
            batch.into_iter().zip(answers).collect::<Vec<_>>()
        };
        let answers = if batches.len() == 1 { self.run(batches, work) } else { self.run_each(batches, work) };
        let mut answers: Vec<(usize, R)> = answers.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// The result of a thread, or its panic.
fn join<R>(handle: ScopedJoinHandle<R>) -> R {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The cores that this process may use, if there are `count`. Threads that are as many as the cores stay on them,
/// because Linux may wake two that slept on the same one, and takes long to move one of them.
#[cfg(target_os = "linux")]
fn own_cores(count: usize) -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let allowed = sched_getaffinity(None).unwrap_or_default();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    if cores.len() == count { cores } else { Vec::new() }
}

#[cfg(not(target_os = "linux"))]
fn own_cores(_count: usize) -> Vec<usize> {
    Vec::new()
}

/// Keeps the calling thread on a core. A failure is of no consequence.
fn stay_on(_core: usize) {
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        set.set(_core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

/// The default number of tokens per batch, including padding: enough to keep a core busy, and few enough for its cache.
pub const BATCH_TOKENS: usize = 4096;

/// Number of tokens above which a batch accepts another item only if that adds little padding.
const ENOUGH_TOKENS: usize = 1024;

/// Groups the indices of `lengths` into batches of similar lengths, shortest first, of at most `limit` tokens.
fn batches_by_length(lengths: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| lengths[index]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if accepts(batch.len(), tokens, lengths[index], limit) => {
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

/// Whether a batch of `count` shorter items with `tokens` tokens in total accepts an item of `length` tokens.
fn accepts(count: usize, tokens: usize, length: usize, limit: usize) -> bool {
    let padded = (count + 1) * length;
    let padding = padded - (tokens + length);
    padded <= limit && (tokens < ENOUGH_TOKENS || padding * 25 <= padded)
}

/// Splits a list into at most `count` shards of nearly equal length, in order.
pub fn split_evenly<T>(mut items: Vec<T>, count: usize) -> Vec<Vec<T>> {
    let count = count.clamp(1, items.len().max(1));
    let mut shards = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let rest = items.split_off(items.len().div_ceil(left));
        shards.push(std::mem::replace(&mut items, rest));
    }
    shards
}

/// Splits a list that is sorted by length, shortest first, into at most `count` shards, in order, such that the largest
/// shard, padding included, is as small as possible.
pub fn split_by_length<T>(mut items: Vec<T>, length: impl Fn(&T) -> usize, count: usize) -> Vec<Vec<T>> {
    let lengths: Vec<usize> = items.iter().map(|item| length(item).max(1)).collect();
    // The starts of the shards, last first, if none may be larger than `limit`.
    let starts = |limit: usize| {
        let (mut starts, mut left) = (Vec::new(), lengths.len());
        while left > 0 {
            left = left.saturating_sub(limit / lengths[left - 1]);
            starts.push(left);
        }
        starts
    };
    let longest = lengths.last().copied().unwrap_or(1);
    let (mut low, mut high) = (longest, longest * lengths.len().max(1));
    while low < high {
        let middle = (low + high) / 2;
        if starts(middle).len() <= count.max(1) { high = middle } else { low = middle + 1 }
    }
    let mut shards: Vec<Vec<T>> = starts(low).into_iter().map(|start| items.split_off(start)).collect();
    shards.reverse();
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_by_length_are_even_including_padding() {
        let split = |items: &[usize], count| split_by_length(items.to_vec(), |&length| length, count);
        assert_eq!(split(&[1, 1, 1, 1, 2, 8], 2), [vec![1, 1, 1, 1, 2], vec![8]]);
        assert_eq!(split(&[5, 5, 5, 5], 2), [vec![5, 5], vec![5, 5]]);
        assert_eq!(split(&[3, 4], 1), [vec![3, 4]]);
        assert_eq!(split(&[3, 4], 9), [vec![3], vec![4]]);
        assert_eq!(split(&[0], 2), [vec![0]]);
        assert!(split(&[], 2).is_empty());
    }

    #[test]
    fn shards_are_even_and_in_order() {
        assert_eq!(split_evenly(vec![1, 2, 3, 4, 5], 2), [vec![1, 2, 3], vec![4, 5]]);
        assert_eq!(split_evenly(vec![1], 4), [vec![1]]);
        assert_eq!(split_evenly(Vec::<u8>::new(), 4), [Vec::<u8>::new()]);
    }

    #[test]
    fn every_item_is_in_one_batch_of_similar_lengths() {
        // Many short items and a few long ones.
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
    fn results_are_in_the_order_of_the_shards() {
        let workers = Workers::for_device(&Device::flex()).unwrap();
        assert_eq!(workers.run(vec![1, 2, 3], |shard| shard * 10), [10, 20, 30]);
        let slow_first = |item: u64| {
            std::thread::sleep(std::time::Duration::from_millis(10 / item));
            item * 10
        };
        for count in [1, 2, 5] {
            let workers = Workers::new(&Device::flex(), count).unwrap();
            assert_eq!(workers.run_each(vec![1, 2, 3], slow_first), [10, 20, 30]);
            assert!(workers.run_each(Vec::new(), slow_first).is_empty());
        }
    }
}
