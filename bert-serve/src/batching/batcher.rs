//! A pipeline with a queue of requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bert_model::pipeline::{Pipeline, Processor, longest};
use bert_model::text::Sequence;
use tokio::sync::oneshot;

use super::queue::{Id, Item, Queue};
use super::scheduler::{Batch, Scheduler, Source, Taken};
use crate::metrics::ModelMetrics;

/// Limits on the queue and on batches.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Maximum batch size in tokens, padding included, summed over all threads.
    pub batch_tokens: usize,
    /// How long a request may wait for others to share its batch while another batch is running.
    pub max_wait: Duration,
    /// Maximum number of waiting requests.
    pub queue: usize,
}

/// Batch size in tokens that keeps one core busy. Larger batches would not be faster, and would make other requests
/// wait.
const TOKENS_PER_CORE: usize = 1024;

/// How many batches of the maximum size may wait. A request that finds the queue empty may exceed this.
const WAITING_BATCHES: usize = 64;

/// A pipeline and the inputs waiting for it.
pub struct Batcher<P: Processor> {
    pipeline: Pipeline<P>,
    limits: BatchLimits,
    queue: Mutex<Queue<Arc<Pending<P>>>>,
    scheduler: Arc<Scheduler>,
    metrics: ModelMetrics,
}

/// The inputs of a request, and the outputs collected so far.
pub struct Pending<P: Processor> {
    inputs: Vec<P::Input>,
    collected: Mutex<Collected<P::Output>>,
}

struct Collected<O> {
    outputs: Vec<Option<O>>,
    missing: usize,
    reply: Option<oneshot::Sender<Option<Vec<O>>>>,
}

/// Why a request was rejected or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full.
    Full,
    /// The model panicked, or the server is shutting down.
    Failed,
}

/// A handle to a queued request. Dropping it removes the inputs that have not been batched yet.
pub struct Ticket<P: Processor> {
    batcher: Arc<Batcher<P>>,
    id: Id,
    pending: Arc<Pending<P>>,
    reply: oneshot::Receiver<Option<Vec<P::Output>>>,
}

impl<P: Processor> Batcher<P> {
    /// Creates a batcher with an empty queue.
    pub fn new(pipeline: Pipeline<P>, limits: BatchLimits, scheduler: Arc<Scheduler>, metrics: ModelMetrics) -> Self {
        Self { pipeline, limits, queue: Mutex::default(), scheduler, metrics }
    }

    /// The pipeline that runs the batches.
    pub fn pipeline(&self) -> &Pipeline<P> {
        &self.pipeline
    }

    /// Checks that the queue has room for a request, before spending time on its tokenization.
    ///
    /// # Errors
    /// [`Refused::Full`] if it has none.
    pub fn check_room(&self) -> Result<(), Refused> {
        self.check(&self.lock(), 0)
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Refused::Full`] if the queue is full.
    pub fn submit(self: &Arc<Self>, inputs: Vec<P::Input>, deadline: Instant) -> Result<Ticket<P>, Refused> {
        let item = |(place, input): (usize, &P::Input)| Item {
            place,
            sequences: P::sequences(input).len().max(1),
            longest: longest::<P>(input).max(1),
        };
        let items: Vec<Item> = inputs.iter().enumerate().map(item).collect();
        let (sender, reply) = oneshot::channel();
        let (missing, outputs) = (inputs.len(), inputs.iter().map(|_| None).collect());
        let collected = Mutex::new(Collected { outputs, missing, reply: Some(sender) });
        let pending = Arc::new(Pending { inputs, collected });
        let id = {
            let mut queue = self.lock();
            self.check(&queue, items.iter().map(Item::tokens).sum())?;
            let id = queue.push(pending.clone(), items, Instant::now(), deadline);
            self.metrics.waiting(queue.len(), queue.tokens());
            id
        };
        self.scheduler.notify();
        Ok(Ticket { batcher: self.clone(), id, pending, reply })
    }

    fn check(&self, queue: &Queue<Arc<Pending<P>>>, tokens: usize) -> Result<(), Refused> {
        let most = WAITING_BATCHES.saturating_mul(self.limits.batch_tokens);
        let is_full =
            queue.len() >= self.limits.queue || (!queue.is_empty() && queue.tokens().saturating_add(tokens) > most);
        if is_full { Err(Refused::Full) } else { Ok(()) }
    }

    /// Runs a batch and distributes its outputs.
    fn run(&self, batch: &[(Arc<Pending<P>>, Item)]) {
        let inputs: Vec<&P::Input> = batch.iter().map(|(pending, item)| &pending.inputs[item.place]).collect();
        let started = Instant::now();
        let outputs = catch_unwind(AssertUnwindSafe(|| self.pipeline.forward(&inputs)));
        let sequences = inputs.iter().flat_map(|input| P::sequences(input)).map(Sequence::len);
        self.metrics.batch(inputs.len(), sequences, started.elapsed());
        match outputs {
            Ok(outputs) => batch.iter().zip(outputs).for_each(|((pending, item), output)| pending.fill(*item, output)),
            Err(_) => batch.iter().for_each(|(pending, _)| pending.fail()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Arc<Pending<P>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Source for Arc<Batcher<P>>
where
    P: Processor<Input: 'static, Output: 'static> + 'static,
{
    fn take(&self, idle: usize, threads: usize) -> Taken {
        let (mut queue, now) = (self.lock(), Instant::now());
        queue.expire(now);
        let Some(oldest) = queue.oldest() else { return Taken::Nothing };
        let most = match threads {
            1 => self.limits.batch_tokens,
            _ => TOKENS_PER_CORE.min(self.limits.batch_tokens.div_ceil(threads)),
        };
        // Requests wait for others only while another core is computing, never when all cores are idle.
        let moment = oldest + self.limits.max_wait;
        if idle < threads && queue.tokens() < most && now < moment {
            return Taken::Later(moment);
        }
        // The waiting inputs are shared among all idle threads.
        let share = queue.tokens().div_ceil(idle.max(1));
        let batch = queue.take(most.min(share));
        self.metrics.waiting(queue.len(), queue.tokens());
        drop(queue);
        let (batcher, is_one) = (self.clone(), batch.len() == 1);
        Taken::Batch(Batch { run: Box::new(move || batcher.run(&batch)), is_one })
    }

    fn has_work(&self) -> bool {
        !self.lock().is_empty()
    }
}

impl<P: Processor> Pending<P> {
    /// The inputs of the request.
    pub fn inputs(&self) -> &[P::Input] {
        &self.inputs
    }

    fn fill(&self, item: Item, output: P::Output) {
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        collected.outputs[item.place] = Some(output);
        collected.missing -= 1;
        if collected.missing == 0 {
            let outputs = collected.outputs.iter_mut().filter_map(Option::take).collect();
            collected.send(Some(outputs));
        }
    }

    fn fail(&self) {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner).send(None);
    }
}

impl<O> Collected<O> {
    /// Sends the outputs. The receiver may be gone if the client no longer waits.
    fn send(&mut self, outputs: Option<Vec<O>>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(outputs);
        }
    }
}

impl<P: Processor> Ticket<P> {
    /// Waits for the outputs, one per input and in the same order.
    ///
    /// # Errors
    /// [`Refused::Failed`] if the model panicked or the server is shutting down.
    pub async fn outputs(mut self) -> Result<(Arc<Pending<P>>, Vec<P::Output>), Refused> {
        let outputs = (&mut self.reply).await.ok().flatten().ok_or(Refused::Failed)?;
        Ok((self.pending.clone(), outputs))
    }
}

impl<P: Processor> Drop for Ticket<P> {
    /// Removes the remaining inputs, so that an expired or abandoned request costs no further batch.
    fn drop(&mut self) {
        let mut queue = self.batcher.lock();
        queue.remove(self.id);
        self.batcher.metrics.waiting(queue.len(), queue.tokens());
    }
}
