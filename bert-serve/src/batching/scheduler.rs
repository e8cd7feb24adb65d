//! The threads that run the models: one per CPU core, or one for a GPU, shared by all models.
//!
//! A free thread asks the models for a batch in turn, and sleeps if there is none. Network threads never compute, and
//! scheduler threads never wait for a client.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use bert_model::{Error, Result, Workers};

/// A source of batches: a model with its queue.
pub trait Source: Send + Sync {
    /// Takes the next batch, for one of the `idle` threads out of `threads`.
    fn take(&self, idle: usize, threads: usize) -> Taken;

    /// Whether any input is waiting.
    fn has_work(&self) -> bool;
}

/// What a source offers a free thread.
pub enum Taken {
    /// Nothing is waiting.
    Nothing,
    /// No batch before this moment, unless more inputs arrive.
    Later(Instant),
    /// A batch to run.
    Batch(Batch),
}

/// A batch that is ready to run.
pub struct Batch {
    /// Runs the batch and delivers its outputs; never panics.
    pub run: Box<dyn FnOnce() + Send>,
    /// Whether the batch is a single input. Only its matrix products can then be split among threads.
    pub is_one: bool,
}

/// Distributes the batches of all models among the threads.
pub struct Scheduler {
    workers: Workers,
    sources: OnceLock<Vec<Arc<dyn Source>>>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Number of threads running a batch.
    busy: usize,
    /// Index of the model whose turn it is.
    turn: usize,
}

impl Scheduler {
    /// Creates a scheduler of these workers, which [`start`](Self::start) sets to work.
    pub fn new(workers: Workers) -> Arc<Self> {
        let (sources, state, wake) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Arc::new(Self { workers, sources, state, wake })
    }

    /// Number of threads that run batches.
    pub fn threads(&self) -> usize {
        self.workers.count()
    }

    /// Starts the threads, which run until the process exits.
    ///
    /// # Errors
    /// If the system cannot start threads.
    pub fn start(self: &Arc<Self>, sources: Vec<Arc<dyn Source>>) -> Result<()> {
        let _ = self.sources.set(sources);
        let scheduler = self.clone();
        let run = move || {
            scheduler.workers.run(vec![(); scheduler.threads()], |()| scheduler.run());
        };
        let started = thread::Builder::new().name("batches".into()).spawn(run);
        started.map(drop).map_err(|error| Error::Setting(format!("cannot start threads: {error}")))
    }

    /// Wakes a thread for newly arrived work.
    pub fn notify(&self) {
        // A thread that found no work holds the lock until it sleeps, so taking the lock ensures that the wake-up is
        // not lost.
        drop(self.lock());
        self.wake.notify_one();
    }

    /// Runs batches forever.
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

    /// Runs a batch: on all cores if it is a single input and no other work is running or waiting, otherwise on this
    /// thread.
    fn run_batch(&self, Batch { run, is_one }: Batch, is_alone: bool) {
        let is_more = self.sources().iter().any(|source| source.has_work());
        if is_more {
            self.wake.notify_one();
        }
        match is_one && is_alone && !is_more && self.threads() > 1 {
            true => self.workers.together(run),
            false => run(),
        }
    }

    /// Takes the next batch, asking the models in turn.
    fn next(&self, state: &mut State) -> Taken {
        let (sources, idle) = (self.sources(), self.threads() - state.busy);
        let mut later: Option<Instant> = None;
        for offset in 0..sources.len() {
            let index = (state.turn + offset) % sources.len();
            match sources[index].take(idle, self.threads()) {
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

    use burn::tensor::Device;

    use super::*;

    /// A source with a given number of batches, each of which sends the source's name.
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
        let scheduler = Scheduler::new(Workers::new(&Device::flex(), 1).unwrap());
        scheduler.start(vec![first.clone(), second]).unwrap();
        let next = || said.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!([next(), next(), next(), next(), next()], ["a", "b", "a", "b", "b"]);
        first.1.store(1, Ordering::Relaxed);
        scheduler.notify();
        assert_eq!(next(), "a");
    }
}
