//! Losses that look at a whole batch whose parts are computed by different workers, or piece after piece.
//!
//! Each part computes the vectors of its sequences. Where all of them meet, the loss of the whole batch and its gradient by
//! the vectors are computed once; each part then goes on with the gradient of its own vectors (gradient caching, Gao et al.
//! 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"). With `--mini-batch`, vectors are
//! computed twice: first without a graph, for all pieces, then with one, a piece at a time, under the same dropout.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use crate::tasks::{JointLoss, Task};

/// What a part of a batch knows of the others.
pub(super) enum Joint<'a, T: Task> {
    /// Nothing, for its loss is its own.
    Alone,
    /// Where it meets them.
    Meeting(Member<'a, T>),
    /// What the loss of the whole batch wants of its vectors.
    Met(Wanted),
}

/// The gradient of a loss by the vectors of a part.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// A row for each vector.
    pub gradient: Vec<f32>,
    /// The part's share of the loss itself; one part has all of it.
    pub loss: f32,
}

impl Wanted {
    /// The same for consecutive pieces of the part, which have so many vectors each.
    pub fn divide(self, counts: &[usize]) -> Vec<Self> {
        let width = self.gradient.len() / counts.iter().sum::<usize>().max(1);
        let (mut rest, mut loss) = (&self.gradient[..], self.loss);
        let piece = |count: &usize| {
            let (gradient, left) = rest.split_at(count * width);
            rest = left;
            Self { gradient: gradient.to_vec(), loss: std::mem::take(&mut loss) }
        };
        counts.iter().map(piece).collect()
    }

    /// A scalar `[1]` whose value is the share of the loss, and whose gradient by `vectors` is what is wanted.
    pub fn loss(self, vectors: Tensor<2>) -> Tensor<1> {
        let gradient = TensorData::new(self.gradient, vectors.dims());
        let gradient = Tensor::<2>::from_data(gradient, &vectors.device()).cast(vectors.dtype());
        let towards = (vectors * gradient).sum();
        towards.clone() - towards.detach() + self.loss
    }
}

/// Where the parts of one batch meet.
pub(super) struct Meeting<'a, T: Task> {
    /// Of all examples of the batch, in the order of the parts.
    targets: Vec<&'a T::Target>,
    /// What the sum of the loss terms is divided by.
    terms: f64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The vectors of each part, once it has them.
    vectors: Vec<Option<Vec<f32>>>,
    /// What each part is to go on with, once all have come.
    wanted: Option<Vec<Wanted>>,
    /// Whether a part will never come, since its worker panicked.
    is_off: bool,
}

/// A part of a batch that is expected.
pub(super) struct Member<'a, T: Task> {
    meeting: Arc<Meeting<'a, T>>,
    part: usize,
}

impl<'a, T: Task> Meeting<'a, T> {
    /// Of so many parts, all of which are at work at once.
    pub fn of(parts: usize, targets: Vec<&'a T::Target>, terms: f64) -> Vec<Member<'a, T>> {
        let state = State { vectors: vec![None; parts], wanted: None, is_off: false };
        let meeting = Arc::new(Self { targets, terms, state: Mutex::new(state), changed: Condvar::new() });
        (0..parts).map(|part| Member { meeting: meeting.clone(), part }).collect()
    }

    /// A part that panics ends the run; the others need not panic over the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes the loss of the batch and its gradient.
    fn compute(&self, loss: &dyn JointLoss<T>, vectors: &[Vec<f32>], width: usize, device: &Device) -> Vec<Wanted> {
        let values = vectors.concat();
        let shape = [values.len() / width.max(1), width];
        let all = Tensor::<2>::from_data(TensorData::new(values, shape), &device.clone().autodiff()).require_grad();
        let loss = loss.loss(all.clone(), &self.targets) / self.terms;
        let value = loss.clone().into_scalar::<f32>();
        let gradient = all.grad(&loss.backward());
        let gradient =
            gradient.map_or(vec![0.0; shape[0] * shape[1]], |gradient| gradient.into_data().iter::<f32>().collect());
        let counts: Vec<usize> = vectors.iter().map(|vectors| vectors.len() / width.max(1)).collect();
        Wanted { gradient, loss: value }.divide(&counts)
    }
}

impl<T: Task> Member<'_, T> {
    /// Number of parts that meet.
    pub fn parts(&self) -> usize {
        self.meeting.lock().vectors.len()
    }

    /// Brings the vectors of this part, `[S, W]`, and waits for the others; the last one to come computes.
    pub fn meet(self, loss: &dyn JointLoss<T>, vectors: Vec<f32>, width: usize, device: &Device) -> Wanted {
        let count = vectors.len();
        let mut state = self.meeting.lock();
        state.vectors[self.part] = Some(vectors);
        if state.vectors.iter().all(Option::is_some) {
            let all: Vec<Vec<f32>> = state.vectors.iter_mut().filter_map(Option::take).collect();
            drop(state);
            let wanted = self.meeting.compute(loss, &all, width, device);
            state = self.meeting.lock();
            state.wanted = Some(wanted);
            self.meeting.changed.notify_all();
        }
        loop {
            if let Some(wanted) = &mut state.wanted {
                break std::mem::take(&mut wanted[self.part]);
            }
            if state.is_off {
                break Wanted { gradient: vec![0.0; count], loss: 0.0 };
            }
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T: Task> Drop for Member<'_, T> {
    fn drop(&mut self) {
        let mut state = self.meeting.lock();
        // Those that have met have no use for this; those that wait for a part that panicked do.
        state.is_off = true;
        self.meeting.changed.notify_all();
    }
}
