//! The order in which gradients are added: a binary tree over the shards of a step.
//!
//! The shards are the leaves. The tree depends on their number alone, so the sum does not depend on which process
//! computes which shard, nor on which one finishes first.

use std::collections::BTreeMap;
use std::ops::Range;

/// A node of the tree: the leaves from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The first leaf.
    pub start: usize,
    /// The leaf after the last one.
    pub end: usize,
}

impl Node {
    /// A single leaf.
    pub fn leaf(leaf: usize) -> Self {
        Self { start: leaf, end: leaf + 1 }
    }

    /// The children of a node of at least two leaves. The left one is a complete tree.
    pub fn halves(self) -> (Self, Self) {
        let middle = self.start + (self.end - self.start).next_power_of_two() / 2;
        (Self { end: middle, ..self }, Self { start: middle, ..self })
    }

    fn is_leaf(self) -> bool {
        self.end - self.start == 1
    }
}

/// A binary tree over the leaves of a step, of which there is at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// The number of leaves.
    pub leaves: usize,
}

impl Tree {
    /// The node of all leaves.
    pub fn root(self) -> Node {
        Node { start: 0, end: self.leaves }
    }

    /// The parent and the sibling of a node; `None` for the root.
    pub fn parent_and_sibling(self, node: Node) -> Option<(Node, Node)> {
        let mut at = self.root();
        while at != node && !at.is_leaf() {
            let (left, right) = at.halves();
            match () {
                () if left == node => return Some((at, right)),
                () if right == node => return Some((at, left)),
                () => at = if node.start < right.start { left } else { right },
            }
        }
        None
    }

    /// The leaves of one of `ranks` processes, which take runs of nearly equal length in order.
    pub fn share(self, rank: usize, ranks: usize) -> Range<usize> {
        rank * self.leaves / ranks..(rank + 1) * self.leaves / ranks
    }

    /// The fewest nodes that consist of the leaves in `range`, in order.
    pub fn cover(self, range: &Range<usize>) -> Vec<Node> {
        let mut nodes = Vec::new();
        if self.leaves > 0 {
            cover(self.root(), range, &mut nodes);
        }
        nodes
    }
}

fn cover(node: Node, range: &Range<usize>, nodes: &mut Vec<Node>) {
    if range.start <= node.start && node.end <= range.end {
        nodes.push(node);
    } else if range.start < node.end && node.start < range.end {
        let (left, right) = node.halves();
        cover(left, range, nodes);
        cover(right, range, nodes);
    }
}

/// Combines the values of some nodes, none of which contains another, to that of `node`; `None` if it contains none of
/// them.
pub fn fold<T>(node: Node, values: &mut BTreeMap<Node, T>, add: &impl Fn(T, T) -> T) -> Option<T> {
    if let Some(value) = values.remove(&node) {
        return Some(value);
    }
    if node.is_leaf() || values.range(Node::leaf(node.start)..).next().is_none_or(|(first, _)| first.start >= node.end)
    {
        return None;
    }
    let (left, right) = node.halves();
    match (fold(left, values, add), fold(right, values, add)) {
        (Some(left), Some(right)) => Some(add(left, right)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats the order of a sum, such as "((0 1) 2)".
    fn order(leaves: usize, nodes: &[Node]) -> String {
        fn named(node: Node) -> String {
            match node.is_leaf() {
                true => node.start.to_string(),
                false => format!("({} {})", named(node.halves().0), named(node.halves().1)),
            }
        }
        let mut values = nodes.iter().map(|&node| (node, named(node))).collect();
        fold(Tree { leaves }.root(), &mut values, &|a, b| format!("({a} {b})")).unwrap()
    }

    #[test]
    fn the_order_is_the_same_for_every_number_of_processes() {
        assert_eq!(order(6, &[Tree { leaves: 6 }.root()]), "(((0 1) (2 3)) (4 5))");
        for leaves in 1..40 {
            let tree = Tree { leaves };
            for ranks in 1..=leaves {
                let shares: Vec<_> = (0..ranks).map(|rank| tree.share(rank, ranks)).collect();
                assert!(shares.iter().cloned().flatten().eq(0..leaves), "{shares:?}");
                let nodes: Vec<Node> = shares.iter().flat_map(|share| tree.cover(share)).collect();
                assert_eq!(order(leaves, &nodes), order(leaves, &[tree.root()]));
            }
        }
    }

    #[test]
    fn every_node_but_the_root_has_a_parent_and_a_sibling() {
        let tree = Tree { leaves: 5 };
        let node = |start, end| Node { start, end };
        assert_eq!(tree.parent_and_sibling(node(2, 4)), Some((node(0, 4), node(0, 2))));
        assert_eq!(tree.parent_and_sibling(node(4, 5)), Some((node(0, 5), node(0, 4))));
        assert_eq!(tree.parent_and_sibling(node(3, 4)), Some((node(2, 4), node(2, 3))));
        assert_eq!(tree.parent_and_sibling(tree.root()), None);
    }

    #[test]
    fn a_leaf_without_a_value_is_left_out() {
        let values = |leaves: &[usize]| leaves.iter().map(|&leaf| (Node::leaf(leaf), leaf.to_string())).collect();
        let folded = |leaves: &[usize]| {
            fold(Node { start: 0, end: 4 }, &mut values(leaves), &|a: String, b| format!("({a} {b})"))
        };
        assert_eq!(folded(&[0, 2, 3]).unwrap(), "(0 (2 3))");
        assert_eq!(folded(&[3]).unwrap(), "3");
        assert_eq!(folded(&[]), None);
    }
}
