//! Sums over all ranks in the order of a tree: each rank adds its part, and may receive the others'.

use std::collections::BTreeMap;
use std::ops::Range;

use bert_model::Result;

use crate::communicator::{Communicator, Patience};
use crate::tree::{Node, Tree};
use crate::wire::Wire;

/// The parts of `length` numbers that the ranks own.
pub fn even_parts(length: usize, ranks: usize) -> Vec<Range<usize>> {
    // Whole cache lines.
    let unit = length.div_ceil(ranks).next_multiple_of(16);
    (0..ranks).map(|rank| (rank * unit).min(length)..((rank + 1) * unit).min(length)).collect()
}

/// This rank's part of the sum over all leaves of `tree`. `own` has the values of the nodes of its share.
pub fn reduce_scatter(
    (communicator, wire): (&dyn Communicator, Wire),
    tree: Tree,
    own: &BTreeMap<Node, Vec<f32>>,
    parts: &[Range<usize>],
) -> Result<Vec<f32>> {
    let (rank, ranks) = (communicator.rank(), communicator.size());
    let part = parts[rank].clone();
    let nodes_of = |rank| tree.cover(&tree.share(rank, ranks)).into_iter();
    let theirs = communicator.others().flat_map(|rank| nodes_of(rank).map(move |node| (rank, node)));
    let mut received: Vec<_> = theirs.map(|(rank, node)| (rank, node, wire.zeros(part.len()))).collect();
    let to = |rank: usize| own.values().map(move |values| (rank, wire.encode(&values[parts[rank].clone()])));
    let sent: Vec<_> = communicator.others().flat_map(to).filter(|(_, bytes)| !bytes.is_empty()).collect();
    let send: Vec<(usize, &[u8])> = sent.iter().map(|(rank, bytes)| (*rank, &bytes[..])).collect();
    let buffers = received.iter_mut().map(|(rank, _, numbers)| (*rank, numbers.bytes_mut()));
    communicator.exchange(&send, buffers.filter(|(_, buffer)| !buffer.is_empty()).collect(), Patience::Limited)?;

    let received: Vec<_> = received.into_iter().map(|(_, node, numbers)| (node, numbers.into_values())).collect();
    let mut nodes: Vec<(Node, &[f32])> = own.iter().map(|(node, values)| (*node, &values[part.clone()])).collect();
    nodes.extend(received.iter().map(|(node, values)| (*node, &values[..])));
    let mut sum = vec![0.0; part.len()];
    add_nodes(tree.root(), &nodes, &mut sum);
    Ok(sum)
}

/// The parts of all ranks, `length` numbers in all, given this rank's.
pub fn all_gather(
    (communicator, wire): (&dyn Communicator, Wire),
    sum: &[f32],
    parts: &[Range<usize>],
    length: usize,
) -> Result<Vec<f32>> {
    let rank = communicator.rank();
    let mut result = wire.zeros(length);
    result.write(parts[rank].clone(), sum);
    let (mut own, mut receive, mut rest): (&[u8], _, _) = (&[], Vec::new(), result.bytes_mut());
    for (other, part) in parts.iter().enumerate() {
        let (bytes, after) = rest.split_at_mut(part.len() * wire.size());
        rest = after;
        match other == rank {
            true => own = bytes,
            false if bytes.is_empty() => {}
            false => receive.push((other, bytes)),
        }
    }
    let send: Vec<(usize, &[u8])> =
        communicator.others().map(|other| (other, own)).filter(|(_, bytes)| !bytes.is_empty()).collect();
    communicator.exchange(&send, receive, Patience::Limited)?;
    Ok(result.into_values())
}

/// Numbers that are added at a time, so that intermediate sums stay in the cache.
const CHUNK: usize = 4096;

/// Writes the sum of the nodes below `root` to `sum`; together they cover it.
fn add_nodes(root: Node, nodes: &[(Node, &[f32])], sum: &mut [f32]) {
    for (index, sum) in sum.chunks_mut(CHUNK).enumerate() {
        let at = index * CHUNK..index * CHUNK + sum.len();
        let nodes: BTreeMap<Node, &[f32]> = nodes.iter().map(|(node, values)| (*node, &values[at.clone()])).collect();
        add_chunk(root, &nodes, sum);
    }
}

fn add_chunk(node: Node, nodes: &BTreeMap<Node, &[f32]>, sum: &mut [f32]) {
    if let Some(values) = nodes.get(&node) {
        return sum.copy_from_slice(values);
    }
    let (left, right) = node.halves();
    add_chunk(left, nodes, sum);
    let mut buffer = [0.0; CHUNK];
    let more: &[f32] = match nodes.get(&right) {
        Some(values) => values,
        None => {
            let buffer = &mut buffer[..sum.len()];
            add_chunk(right, nodes, buffer);
            buffer
        }
    };
    sum.iter_mut().zip(more).for_each(|(sum, value)| *sum += value);
}
