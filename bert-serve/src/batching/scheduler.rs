//! The threads that run models: one for each core of a CPU, one for a GPU, shared by all models.
//!
//! A thread that is free asks the models in turn for a batch, and sleeps while there is none. Threads of the network
//! never compute, threads of the scheduler never wait for a client.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use bert_model::{Error, Result, Workers};
use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A model's work.
pub trait Source: Send + Sync {
    /// The next batch, for one of `idle` threads without work out of `threads`.
    fn take(&self, idle: usize, threads: usize) -> Taken;

    /// Whether anything waits.
    fn has_work(&self) -> bool;
}

/// What a model has for a thread that is free.
pub enum Taken {
    /// Nothing waits.
    Nothing,
    /// Nothing before this moment, unless more arrives.
    Later(Instant),
    /// A batch to run.
    Batch(Batch),
}

/// A batch that is ready to run.
pub struct Batch {
    /// Runs it and delivers its answers; never panics.
    pub run: Box<dyn FnOnce() + Send>,
    /// Whether it is one input, which cannot be shared among threads but by cutting up its products.
    pub is_one: bool,
}

/// Hands the batches of all models to the threads.
pub struct Scheduler {
    threads: usize,
    sources: OnceLock<Vec<Arc<dyn Source>>>,
    /// All cores at once, for an input that is alone.
    all_cores: ThreadPool,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that run a batch.
    busy: usize,
    /// The model whose turn it is.
    turn: usize,
}

impl Scheduler {
    /// For so many threads, none of which runs yet.
    ///
    /// # Errors
    /// If the system refuses threads.
    pub fn new(threads: usize) -> Result<Arc<Self>> {
        let all_cores = ThreadPoolBuilder::new().num_threads(threads).build();
        let all_cores = all_cores.map_err(|error| Error::Setting(format!("cannot start threads: {error}")))?;
        let (sources, state, wake) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Ok(Arc::new(Self { threads, sources, all_cores, state, wake }))
    }

    /// Number of threads that run batches.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Starts the threads, which then live as long as the process.
    ///
    /// # Errors
    /// If the system refuses threads.
    pub fn start(self: &Arc<Self>, sources: Vec<Arc<dyn Source>>, device: &Device) -> Result<()> {
        let workers = Workers::for_device(device)?;
        let _ = self.sources.set(sources);
        let scheduler = self.clone();
        let run = move || {
            workers.run(vec![(); scheduler.threads], |()| scheduler.run());
        };
        let started = thread::Builder::new().name("batches".into()).spawn(run);
        started.map(drop).map_err(|error| Error::Setting(format!("cannot start threads: {error}")))
    }

    /// Wakes a thread for work that has just arrived.
    pub fn notify(&self) {
        // Whoever has found nothing holds the lock until it sleeps.
        drop(self.lock());
        self.wake.notify_one();
    }

    /// Runs batches for ever.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            state = match self.next(&mut state) {
                Taken::Batch(batch) => {
                    let is_alone = state.busy == 0;
                    state.busy += 1;
                    drop(state);
                    self.run_batch(batch, is_alone);
                    let mut state = self.lock();
                    state.busy -= 1;
                    state
                }
                Taken::Later(moment) => {
                    let pause = moment.saturating_duration_since(Instant::now());
                    self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                Taken::Nothing => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Runs a batch: on this thread, or, if it is one input and nobody else has work, on all cores.
    fn run_batch(&self, Batch { run, is_one }: Batch, is_alone: bool) {
        let is_more = self.sources().iter().any(|source| source.has_work());
        if is_more {
            self.wake.notify_one();
        }
        match is_one && is_alone && !is_more && self.threads > 1 {
            true => self.all_cores.install(run),
            false => run(),
        }
    }

    /// The next batch of the models in turn.
    fn next(&self, state: &mut State) -> Taken {
        let (sources, idle) = (self.sources(), self.threads - state.busy);
        let mut later: Option<Instant> = None;
        for offset in 0..sources.len() {
            let index = (state.turn + offset) % sources.len();
            match sources[index].take(idle, self.threads) {
                Taken::Batch(batch) => {
                    state.turn = index + 1;
                    return Taken::Batch(batch);
                }
                Taken::Later(moment) => later = Some(later.map_or(moment, |other| other.min(moment))),
                Taken::Nothing => {}
            }
        }
        later.map_or(Taken::Nothing, Taken::Later)
    }

    fn sources(&self) -> &[Arc<dyn Source>] {
        self.sources.get().map_or(&[], Vec::as_slice)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;

    /// A model with so many batches, which say its name.
    struct Batches(&'static str, AtomicUsize, Sender<&'static str>);

    impl Source for Batches {
        fn take(&self, _idle: usize, _threads: usize) -> Taken {
            let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            let (name, said) = (self.0, self.2.clone());
            let run = Box::new(move || {
                let _ = said.send(name);
            });
            left.map_or(Taken::Nothing, |_| Taken::Batch(Batch { run, is_one: true }))
        }

        fn has_work(&self) -> bool {
            self.1.load(Ordering::Relaxed) > 0
        }
    }

    #[test]
    fn models_take_turns_and_idle_threads_wake_for_more() {
        let (sender, said) = channel();
        let source = |name, count| Arc::new(Batches(name, AtomicUsize::new(count), sender.clone()));
        let (first, second) = (source("a", 2), source("b", 3));
        let scheduler = Scheduler::new(1).unwrap();
        scheduler.start(vec![first.clone(), second], &Device::flex()).unwrap();
        let next = || said.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!([next(), next(), next(), next(), next()], ["a", "b", "a", "b", "b"]);
        first.1.store(1, Ordering::Relaxed);
        scheduler.notify();
        assert_eq!(next(), "a");
    }
}
