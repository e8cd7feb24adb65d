//! One worker for each core, a part of the batch for each worker.
//!
//! A CPU is kept busiest by letting every core run the whole model on its own examples: no operation has to be cut up, no
//! core waits for another, and activations stay in the cache that made them. Each worker's own thread pool has one
//! thread, so that matrix products inside it do not spread. On a GPU there is one worker, the calling thread.

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

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
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even_and_in_order() {
        assert_eq!(split_evenly(vec![1, 2, 3, 4, 5], 2), [vec![1, 2, 3], vec![4, 5]]);
        assert_eq!(split_evenly(vec![1], 4), [vec![1]]);
        assert_eq!(split_evenly(Vec::<u8>::new(), 4), [Vec::<u8>::new()]);
    }

    #[test]
    fn results_come_in_the_order_of_the_parts() {
        let workers = Workers::for_device(&Device::flex()).unwrap();
        assert_eq!(workers.run(vec![1, 2, 3], |part| part * 10), [10, 20, 30]);
    }
}
