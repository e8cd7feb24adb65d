//! Adds the gradients of the shards of a step in the order of a [`Tree`], while they are computed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::gradients::GradientSum;
use super::tree::{Node, Tree, fold};

/// Receives, one after another, the parts of the backward pass ("turns": the heads, then each layer): for each, the
/// sums of the fewest nodes of the tree that cover the shards of this process.
pub type Sink<'a> = &'a (dyn Fn(BTreeMap<Node, GradientSum>) + Sync);

/// Adds the gradients of shards in the order of a [`Tree`], one turn of the backward pass at a time, so that the
/// gradients of a layer are added as soon as two neighboring shards have them. The sum does not depend on scheduling.
pub struct TreeSum<'a> {
    tree: Tree,
    /// The shards that this process computes.
    own: Range<usize>,
    sink: Sink<'a>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    turns: Vec<Turn>,
    /// The number of turns that have gone to the sink.
    sent: usize,
    /// The number of turns of each shard that has ended.
    ended: Vec<usize>,
}

#[derive(Default)]
struct Turn {
    sums: BTreeMap<Node, GradientSum>,
    /// The number of shards in the sums.
    added: usize,
}

impl<'a> TreeSum<'a> {
    /// Creates the sum of a process that computes the shards `own` of all.
    pub fn new(tree: Tree, own: Range<usize>, sink: Sink<'a>) -> Self {
        Self { tree, own, sink, state: Mutex::default() }
    }

    /// The number of shards of the step, those of other processes included.
    pub fn leaves(&self) -> usize {
        self.tree.leaves
    }

    /// The handle with which a shard adds its gradients, and which it drops when it has finished.
    pub fn shard(&self, leaf: usize) -> Shard<'a, '_> {
        Shard { shared: self, leaf, turn: 0 }
    }

    /// Locks the state. A poisoned lock is accepted, since the panic of the other shard ends the run anyway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the gradients of one shard and turn: combines them with those of the sibling, if they are there, and so on.
    fn add(&self, turn: usize, leaf: usize, mut sum: GradientSum) {
        let mut node = Node::leaf(leaf);
        loop {
            let mut state = self.lock();
            while state.turns.len() <= turn {
                state.turns.push(Turn::default());
            }
            let sums = &mut state.turns[turn].sums;
            let parent = self.tree.parent_and_sibling(node);
            let found = parent.and_then(|(parent, sibling)| Some((parent, sibling, sums.remove(&sibling)?)));
            let Some((parent, sibling, other)) = found else {
                sums.insert(node, sum);
                state.turns[turn].added += 1;
                return self.send(&mut state);
            };
            // The others continue while this thread adds.
            drop(state);
            sum = if sibling < node { other.merge(sum) } else { sum.merge(other) };
            node = parent;
        }
    }

    /// Sends all turns that are complete.
    fn send(&self, state: &mut State) {
        while let Some(turn) = state.turns.get_mut(state.sent) {
            let missing = state.ended.iter().filter(|turns| **turns <= state.sent).count();
            if turn.added + missing < self.own.len() {
                break;
            }
            (self.sink)(std::mem::take(&mut turn.sums));
            state.sent += 1;
        }
    }
}

/// The handle with which one shard adds to a [`TreeSum`].
pub struct Shard<'a, 's> {
    shared: &'s TreeSum<'a>,
    leaf: usize,
    turn: usize,
}

impl Shard<'_, '_> {
    /// Adds the gradients of the shard's next turn.
    pub fn add(&mut self, sum: GradientSum) {
        self.shared.add(self.turn, self.leaf, sum);
        self.turn += 1;
    }
}

impl Drop for Shard<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended.push(self.turn);
        self.shared.send(&mut state);
    }
}

/// Collects the gradients of all turns of a run of one process.
pub fn collect(tree: Tree, sum: &Mutex<GradientSum>) -> impl Fn(BTreeMap<Node, GradientSum>) + Sync {
    move |mut sums| {
        if let Some(turn) = fold(tree.root(), &mut sums, &GradientSum::merge) {
            sum.lock().unwrap_or_else(PoisonError::into_inner).add(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::gradients::{Rows, RowsForm};

    fn values(sum: &mut GradientSum, name: &str) -> Vec<f32> {
        sum.remove(name).unwrap().into_data().try_to_vec().unwrap()
    }

    /// Gradients whose value records the order in which they were added: adding is not associative in `f32`.
    fn gradient(leaf: usize, turn: usize) -> GradientSum {
        let values: Vec<f32> = (0..5).map(|at| ((leaf * 31 + turn * 7 + at * 3) as f32 * 0.7).sin() * 1e3).collect();
        let rows = Tensor::<2>::from_data(TensorData::new(values.clone(), [1, 5]), &Device::flex());
        let ids = Tensor::from_data([leaf as i32 % 3], &Device::flex());
        let rows = Rows { table: 3, gradients: RowsForm::Listed(ids, rows.clone() * 0.3) };
        let by_name = BTreeMap::from([(
            format!("layer {turn}"),
            Tensor::from_data(TensorData::new(values, [1, 5]), &Device::flex()),
        )]);
        GradientSum::from_parts(by_name, BTreeMap::from([("words".to_string(), rows)]))
    }

    /// All bits of a sum of seven shards, computed by threads of different speed.
    fn sum_of_seven(turns: [usize; 7], slow: usize) -> Vec<u32> {
        let (tree, sum) = (Tree { leaves: 7 }, Mutex::default());
        let sink = collect(tree, &sum);
        let all = TreeSum::new(tree, 0..7, &sink);
        std::thread::scope(|scope| {
            for (leaf, turns) in turns.into_iter().enumerate() {
                let mut shard = all.shard(leaf);
                scope.spawn(move || {
                    for turn in 0..turns {
                        std::thread::sleep(Duration::from_millis(if leaf == slow { 5 } else { 0 }));
                        shard.add(gradient(leaf, turn));
                    }
                });
            }
        });
        let sum = sum.lock().unwrap();
        let bits = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
        sum.all().into_iter().flat_map(bits).collect()
    }

    #[test]
    fn a_sum_depends_on_the_shards_alone_whoever_is_fast() {
        let same = sum_of_seven([3; 7], 0);
        for slow in 1..7 {
            assert_eq!(sum_of_seven([3; 7], slow), same);
        }
        // The order is that of the tree.
        let number = |leaf| values(&mut gradient(leaf, 1), "layer 1")[2];
        let n: Vec<f32> = (0..7).map(number).collect();
        let expected = ((n[0] + n[1]) + (n[2] + n[3])) + ((n[4] + n[5]) + n[6]);
        assert_eq!(f32::from_bits(same[5 + 2]), expected);
        // A shard of fewer turns is left out of the others.
        let fewer = sum_of_seven([3, 3, 1, 3, 3, 2, 3], 2);
        assert_eq!(fewer[..5], same[..5]);
        assert_eq!(f32::from_bits(fewer[5 + 2]), ((n[0] + n[1]) + n[3]) + ((n[4] + n[5]) + n[6]));
    }
}
