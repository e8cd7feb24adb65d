//! Losses that depend on a whole batch, although its parts are computed by different workers, or piece by piece.
//!
//! Each part computes the vectors of its sequences. Once all parts have done so, the loss of the whole batch and its
//! gradient with respect to the vectors are computed once; each part then backpropagates the gradient of its own
//! vectors (gradient caching, Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
//! Setup"). With `--mini-batch`, vectors are computed twice: first without a graph, for all pieces, then with a graph,
//! one piece at a time, with the same dropout masks. Ranks send each other the vectors of their parts, and each computes
//! the loss.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bert_model::Result;
use bert_train::Communicator;
use bert_train::reduction::Share;
use burn::tensor::{Device, Tensor, TensorData};

use crate::tasks::{JointLoss, Task};

/// How the loss of a part of a batch depends on the other parts.
pub(super) enum Joint<'a, T: Task> {
    /// It does not: the part has a loss of its own.
    Alone,
    /// The part has yet to meet the others.
    Meeting(Member<'a, T>),
    /// The parts have met; this is the resulting gradient of the part's vectors.
    Met(VectorGradient),
}

/// The gradient of the loss of the whole batch with respect to the vectors of a part.
#[derive(Debug, Clone, Default)]
pub(super) struct VectorGradient {
    /// One row per vector.
    pub gradient: Vec<f32>,
    /// The part's share of the loss itself; a single part holds all of it.
    pub loss: f32,
}

impl VectorGradient {
    /// Splits this into consecutive pieces of the part, with `counts` vectors each.
    pub fn split(self, counts: &[usize]) -> Vec<Self> {
        let width = self.gradient.len() / counts.iter().sum::<usize>().max(1);
        let (mut rest, mut loss) = (&self.gradient[..], self.loss);
        let piece = |count: &usize| {
            let (gradient, left) = rest.split_at(count * width);
            rest = left;
            Self { gradient: gradient.to_vec(), loss: std::mem::take(&mut loss) }
        };
        counts.iter().map(piece).collect()
    }

    /// Returns a scalar `[1]` whose value is the part's share of the loss, and whose gradient with respect to `vectors`
    /// is `gradient`.
    pub fn loss(self, vectors: Tensor<2>) -> Tensor<1> {
        let gradient = TensorData::new(self.gradient, vectors.dims());
        let gradient = Tensor::<2>::from_data(gradient, &vectors.device()).cast(vectors.dtype());
        let towards = (vectors * gradient).sum();
        towards.clone() - towards.detach() + self.loss
    }
}

/// The synchronization point of the parts of a batch.
pub(super) struct Meeting<'a, T: Task> {
    communicator: &'a dyn Communicator,
    /// The parts of this rank.
    share: Share,
    /// The number of vectors of each part.
    counts: Vec<usize>,
    /// The targets of all examples of the batch, in the order of the parts.
    targets: Vec<&'a T::Target>,
    /// The divisor of the sum of the loss terms.
    terms: f64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The vectors of each part that this rank computes, once computed.
    vectors: Vec<Option<Vec<f32>>>,
    /// The gradient for each part, once all parts have arrived.
    gradients: Option<Vec<VectorGradient>>,
    /// Whether a part will never arrive because its worker panicked.
    has_failed: bool,
}

/// One of the parts that a [`Meeting`] waits for.
pub(super) struct Member<'a, T: Task> {
    meeting: Arc<Meeting<'a, T>>,
    part: usize,
}

impl<'a, T: Task> Meeting<'a, T> {
    /// Creates a meeting of parts with `counts` vectors, of which those of this rank must all be computed concurrently.
    /// Parts of other ranks have no member.
    pub fn of(
        counts: Vec<usize>,
        targets: Vec<&'a T::Target>,
        terms: f64,
        communicator: &'a dyn Communicator,
    ) -> Vec<Option<Member<'a, T>>> {
        let parts = counts.len();
        let share = Share::of(parts, communicator);
        let (own, changed) = (share.computed(), Condvar::new());
        let state = Mutex::new(State { vectors: vec![None; own.len()], gradients: None, has_failed: false });
        let meeting = Arc::new(Self { communicator, share, counts, targets, terms, state, changed });
        (0..parts).map(|part| own.contains(&part).then(|| Member { meeting: meeting.clone(), part })).collect()
    }

    /// Ignores a poisoned lock: a part that panics ends the run anyway, so the others need not panic as well.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives the vectors of other ranks, computes the loss of the batch and its gradient, and divides it among the
    /// parts of this rank.
    fn compute(
        &self,
        loss: &dyn JointLoss<T>,
        own: Vec<Vec<f32>>,
        width: usize,
        device: &Device,
    ) -> Result<Vec<VectorGradient>> {
        let own = if self.share.own.is_empty() { Vec::new() } else { own.concat() };
        let values = self.communicator.gather_values(&own)?.concat();
        let shape = [values.len() / width.max(1), width];
        let all = Tensor::<2>::from_data(TensorData::new(values, shape), &device.clone().autodiff()).require_grad();
        let loss = loss.loss(all.clone(), &self.targets) / self.terms;
        let value = loss.clone().into_scalar::<f32>();
        let gradient = all.grad(&loss.backward());
        let gradient =
            gradient.map_or(vec![0.0; shape[0] * shape[1]], |gradient| gradient.into_data().iter::<f32>().collect());
        let by_part = VectorGradient { gradient, loss: value }.split(&self.counts).into_iter();
        Ok(by_part.skip(self.share.computed().start).take(self.share.computed().len()).collect())
    }
}

impl<T: Task> Member<'_, T> {
    /// The number of parts of the batch.
    pub fn parts(&self) -> usize {
        self.meeting.counts.len()
    }

    /// Submits the vectors of this part, `[S, W]`, and waits for the other parts; the last one to arrive computes the
    /// loss.
    pub fn meet(self, loss: &dyn JointLoss<T>, vectors: Vec<f32>, width: usize, device: &Device) -> VectorGradient {
        let (count, index) = (vectors.len(), self.part - self.meeting.share.computed().start);
        let mut state = self.meeting.lock();
        state.vectors[index] = Some(vectors);
        if state.vectors.iter().all(Option::is_some) {
            let own = state.vectors.iter_mut().filter_map(Option::take).collect();
            drop(state);
            let gradients = self.meeting.compute(loss, own, width, device);
            state = self.meeting.lock();
            match gradients {
                Ok(gradients) => state.gradients = Some(gradients),
                // The exchange of the gradients fails likewise, and ends the run.
                Err(_) => state.has_failed = true,
            }
            self.meeting.changed.notify_all();
        }
        loop {
            if let Some(gradients) = &mut state.gradients {
                break std::mem::take(&mut gradients[index]);
            }
            if state.has_failed {
                break VectorGradient { gradient: vec![0.0; count], loss: 0.0 };
            }
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T: Task> Drop for Member<'_, T> {
    fn drop(&mut self) {
        let mut state = self.meeting.lock();
        // This has no effect on parts that have met; parts that wait for one that panicked stop waiting.
        state.has_failed = true;
        self.meeting.changed.notify_all();
    }
}
