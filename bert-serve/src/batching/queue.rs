//! Selects the next batch from the waiting inputs: similar lengths, taken from the requests in turn.

use std::collections::VecDeque;
use std::time::Instant;

/// A waiting input: its position in its request, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Index among the inputs of its request.
    pub place: usize,
    /// The number of its sequences: 1, or the number of choices.
    pub sequences: usize,
    /// The tokens of its longest sequence.
    pub longest: usize,
}

impl Item {
    /// Its tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.sequences * self.longest
    }

    /// Items sort by the number of sequences, then by length.
    fn size(&self) -> (usize, usize) {
        (self.sequences, self.longest)
    }
}

/// Identifies a request within its queue.
pub type Id = u64;

/// Requests with inputs that are not yet in a batch.
#[derive(Debug)]
pub struct Queue<R> {
    waiting: VecDeque<Waiting<R>>,
    tokens: usize,
    next_id: Id,
}

#[derive(Debug)]
struct Waiting<R> {
    id: Id,
    request: R,
    since: Instant,
    deadline: Instant,
    /// The remaining inputs, smallest first.
    items: Vec<Item>,
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), tokens: 0, next_id: 0 }
    }
}

impl<R: Clone> Queue<R> {
    /// Appends a request. It is dropped if `deadline` passes before all of its inputs are taken.
    pub fn push(&mut self, request: R, mut items: Vec<Item>, now: Instant, deadline: Instant) -> Id {
        items.sort_by_key(Item::size);
        let id = self.next_id;
        self.next_id += 1;
        self.tokens += tokens_of(&items);
        self.waiting.push_back(Waiting { id, request, since: now, deadline, items });
        id
    }

    /// Removes the remaining inputs of a request.
    pub fn remove(&mut self, id: Id) {
        self.retain(|waiting| waiting.id != id);
    }

    /// Removes the remaining inputs of all requests whose deadline has passed.
    pub fn expire(&mut self, now: Instant) {
        self.retain(|waiting| waiting.deadline > now);
    }

    /// Number of waiting requests.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no requests are waiting.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Total tokens of all waiting inputs.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// When the longest-waiting request arrived; `None` if the queue is empty.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.since).min()
    }

    /// Takes a batch of at most `budget` tokens, padding included, or of a single input. The largest input of the first
    /// request, the leader, determines the number of sequences and which lengths count as similar. The requests
    /// contribute one such input each, in turn, until the batch is full. The leader then moves to the back, so that a
    /// large request never blocks the others until it is done.
    pub fn take(&mut self, budget: usize) -> Vec<(R, Item)> {
        let Some(leader) = self.waiting.front().and_then(|leader| leader.items.last()).copied() else {
            return Vec::new();
        };
        let (mut batch, mut most) = (Vec::new(), 0);
        'full: loop {
            let before = batch.len();
            for waiting in &mut self.waiting {
                let Some(index) = nearest(&waiting.items, leader) else { continue };
                most = most.max(waiting.items[index].tokens());
                if !batch.is_empty() && (batch.len() + 1) * most > budget {
                    break 'full;
                }
                let item = waiting.items.remove(index);
                self.tokens -= item.tokens();
                batch.push((waiting.request.clone(), item));
            }
            if batch.len() == before {
                break;
            }
        }
        self.waiting.rotate_left(1);
        self.retain(|waiting| !waiting.items.is_empty());
        batch
    }

    fn retain(&mut self, keep: impl Fn(&Waiting<R>) -> bool) {
        let tokens = &mut self.tokens;
        self.waiting.retain(|waiting| {
            let keeps = keep(waiting);
            *tokens -= if keeps { 0 } else { tokens_of(&waiting.items) };
            keeps
        });
    }
}

fn tokens_of(items: &[Item]) -> usize {
    items.iter().map(Item::tokens).sum()
}

/// Index of the largest item up to the size of `leader` in a list sorted by size, otherwise of the smallest one beyond
/// it; `None` if it has another number of sequences or its length is not similar.
fn nearest(items: &[Item], leader: Item) -> Option<usize> {
    let beyond = items.partition_point(|item| item.size() <= leader.size());
    let is_like = |item: &Item| item.sequences == leader.sequences && is_alike(item.longest, leader.longest);
    [beyond.checked_sub(1), Some(beyond)].into_iter().flatten().find(|&index| items.get(index).is_some_and(is_like))
}

/// Whether two lengths differ by at most a quarter of the longer one, or by 8 tokens, so that little padding is needed.
fn is_alike(a: usize, b: usize) -> bool {
    let difference = a.abs_diff(b);
    difference <= 8 || difference * 4 <= a.max(b)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue(requests: &[&[usize]]) -> Queue<usize> {
        let mut queue = Queue::default();
        let now = Instant::now();
        for (number, lengths) in requests.iter().enumerate() {
            let items = lengths.iter().enumerate().map(|(place, &longest)| Item { place, sequences: 1, longest });
            let items = items.collect();
            queue.push(number, items, now, now + Duration::from_secs(number as u64 + 1));
        }
        queue
    }

    fn batches(queue: &mut Queue<usize>, budget: usize) -> Vec<Vec<(usize, usize)>> {
        let batch = |_| {
            let batch = queue.take(budget);
            (!batch.is_empty()).then(|| batch.into_iter().map(|(request, item)| (request, item.place)).collect())
        };
        (0..).map_while(batch).collect()
    }

    #[test]
    fn requests_of_like_length_share_a_batch() {
        let mut queue = queue(&[&[10], &[12], &[100], &[11]]);
        assert_eq!(batches(&mut queue, 1000), [vec![(0, 0), (1, 0), (3, 0)], vec![(2, 0)]]);
        assert_eq!((queue.len(), queue.tokens()), (0, 0));
    }

    #[test]
    fn a_batch_is_no_larger_than_its_budget_with_padding_unless_it_is_one_input() {
        let mut all = queue(&[&[10, 10, 10, 12, 12], &[500]]);
        assert_eq!(batches(&mut all, 36).iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 2]);
        let mut queue = queue(&[&(1..200).collect::<Vec<_>>(), &[40, 41, 42]]);
        let mut taken = 0;
        while !queue.is_empty() {
            let batch = queue.take(256);
            let longest = batch.iter().map(|(_, item)| item.longest).max().unwrap();
            assert!(batch.len() == 1 || longest * batch.len() <= 256);
            taken += batch.len();
        }
        assert_eq!(taken, 202);
    }

    /// One question with a single long choice and others with many short ones cost the same each, but not together.
    #[test]
    fn inputs_of_several_sequences_share_a_batch_with_their_like() {
        let mut queue = Queue::default();
        let items = [(1, 512), (64, 8), (64, 7), (1, 500)];
        let item = |(place, &(sequences, longest)): (usize, &(usize, usize))| Item { place, sequences, longest };
        let items = items.iter().enumerate().map(item).collect();
        queue.push(0, items, Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(queue.tokens(), 512 + 64 * 8 + 64 * 7 + 500);
        assert_eq!(batches(&mut queue, 1024), [[(0, 1), (0, 2)], [(0, 0), (0, 3)]]);
    }

    #[test]
    fn a_large_request_does_not_hold_up_small_ones() {
        let mut queue = queue(&[&[16; 1000], &[16], &[300]]);
        let batches = batches(&mut queue, 64);
        assert!(batches[0].contains(&(1, 0)), "the like one comes along");
        assert!(batches[..3].iter().any(|batch| batch.contains(&(2, 0))), "the other one has its turn");
    }

    #[test]
    fn what_is_too_late_or_given_up_is_not_taken() {
        let mut queue = queue(&[&[10], &[10], &[10]]);
        queue.remove(1);
        queue.expire(Instant::now() + Duration::from_millis(1500));
        assert_eq!((queue.len(), queue.tokens()), (1, 10));
        assert_eq!(batches(&mut queue, 100), [[(2, 0)]]);
        assert!(queue.oldest().is_none());
    }
}
