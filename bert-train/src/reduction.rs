//! Adds the gradients and losses of all ranks, in an order that does not depend on their number.
//!
//! Each rank computes a run of neighboring shards and sums them up to the nodes of the [`Tree`] that cover them. Every
//! rank is the owner of a part of each gradient: it receives that part of all nodes, adds them in the order of the
//! tree, and sends the sum to all others. This happens on a thread of its own, layer by layer, while the backward pass
//! is still running. If the optimizer's state is divided (`ownership`), the parts are whole gradients, and their
//! sums stay with their owners.

mod collectives;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

use bert_model::ops::{self, denormals, hash};
use bert_model::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::communicator::{Communicator, Patience};
use super::gradients::{GradientSum, Rows, RowsForm};
use super::ownership::Ownership;
use super::tree::{Node, Tree, fold};
use super::tree_sum::{Sink, collect};
use super::wire::Wire;
use collectives::{all_gather, even_parts, reduce_scatter};

/// Gradients are exchanged in bundles of at least this size.
const BUNDLE_BYTES: usize = 4 << 20;

/// The shards of a step that one rank computes.
#[derive(Debug, Clone)]
pub struct Share {
    /// All shards of the step.
    pub tree: Tree,
    /// The shards of this rank.
    pub own: Range<usize>,
}

impl Share {
    /// The share of this rank in a step of `leaves` shards.
    pub fn of(leaves: usize, communicator: &dyn Communicator) -> Self {
        let tree = Tree { leaves };
        Self { tree, own: tree.share(communicator.rank(), communicator.size()) }
    }

    /// The shards to compute. A rank without any computes the last one as well: so it knows names and shapes of the
    /// gradients whose sums it receives.
    pub fn computed(&self) -> Range<usize> {
        if self.own.is_empty() { self.tree.leaves - 1..self.tree.leaves } else { self.own.clone() }
    }
}

/// The gradients of all ranks.
#[derive(Default)]
pub(crate) struct Reduced {
    /// Their sums: of all parameters, or of those that this rank updates.
    pub gradients: GradientSum,
    /// On several ranks, the names of all parameters that have a gradient.
    pub names: BTreeSet<String>,
    /// A hash of all names and shapes, which must be the same on all ranks.
    pub layout: u64,
}

/// Runs `compute`, which hands the gradients of this rank's shards to the [`Sink`]. Returns its result and the gradients
/// of all ranks, which are sent as `wire` says.
///
/// # Errors
/// If the connection to other ranks fails.
pub(crate) fn reduce<R>(
    communicator: &dyn Communicator,
    share: &Share,
    ownership: Option<&Ownership>,
    (device, wire): (&Device, Wire),
    compute: impl FnOnce(Sink) -> R,
) -> Result<(R, Reduced)> {
    if communicator.size() == 1 {
        let sum = Mutex::default();
        let result = compute(&collect(share.tree, &sum));
        let gradients = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        return Ok((result, Reduced { gradients, ..Reduced::default() }));
    }
    let (bundle, reduced) = (Bundle::default(), Reduced::default());
    let mut exchange = Exchange { communicator, share, ownership, device, wire, bundle, reduced };
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        let exchanging = scope.spawn(move || {
            denormals::flush();
            exchange.run(&receiver).map(|()| exchange.reduced)
        });
        // The thread ends when the sender is dropped. If it has failed, nobody receives, and the error is returned
        // below.
        let sink = move |sums| drop(sender.send(sums));
        let result = compute(&sink);
        drop(sink);
        let reduced = exchanging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((result, reduced))
    })
}

/// The exchange of one step.
struct Exchange<'a> {
    communicator: &'a dyn Communicator,
    share: &'a Share,
    ownership: Option<&'a Ownership>,
    device: &'a Device,
    wire: Wire,
    bundle: Bundle,
    reduced: Reduced,
}

/// Gradients that are exchanged together.
#[derive(Default)]
struct Bundle {
    /// Names and shapes.
    gradients: Vec<(String, [usize; 2])>,
    /// For each node of this rank, the values of all gradients.
    nodes: BTreeMap<Node, Vec<f32>>,
    length: usize,
}

impl Bundle {
    /// Sorts the gradients by their owners. Returns the part of the values that each rank owns.
    fn group(&mut self, ownership: &Ownership, ranks: usize) -> Vec<Range<usize>> {
        let mut start = 0;
        let place = |(name, shape): (String, [usize; 2])| {
            let values = start..start + shape[0] * shape[1];
            start = values.end;
            (name, shape, values)
        };
        let mut placed: Vec<_> = std::mem::take(&mut self.gradients).into_iter().map(place).collect();
        placed.sort_by_key(|(name, ..)| ownership.owner(name));
        for values in self.nodes.values_mut() {
            *values = placed.iter().flat_map(|(.., at)| &values[at.clone()]).copied().collect();
        }
        let mut lengths = vec![0; ranks];
        placed.iter().for_each(|(name, _, values)| lengths[ownership.owner(name)] += values.len());
        self.gradients = placed.into_iter().map(|(name, shape, _)| (name, shape)).collect();
        let mut end = 0;
        let part = |length| {
            end += length;
            end - length..end
        };
        lengths.into_iter().map(part).collect()
    }
}

impl Exchange<'_> {
    fn run(&mut self, turns: &Receiver<BTreeMap<Node, GradientSum>>) -> Result<()> {
        for turn in turns {
            self.exchange_turn(turn)?;
        }
        self.flush()
    }

    fn exchange_turn(&mut self, turn: BTreeMap<Node, GradientSum>) -> Result<()> {
        let computed = self.share.tree.cover(&self.share.computed());
        if !turn.keys().eq(&computed) {
            return Err(Error::Setting(
                "the shards of a step differ in their gradients, which ranks cannot share".into(),
            ));
        }
        let (mut gradients, mut rows) = (Vec::new(), BTreeMap::<String, BTreeMap<Node, Rows>>::new());
        for (node, sum) in turn {
            let (by_name, rows_by_name) = sum.into_parts();
            gradients = by_name.iter().map(|(name, gradient)| (name.clone(), gradient.dims())).collect();
            let values = self.bundle.nodes.entry(node).or_default();
            by_name.into_values().for_each(|gradient| append_values(gradient, values));
            self.bundle.length = values.len();
            for (name, own) in rows_by_name {
                rows.entry(name).or_default().insert(node, own);
            }
        }
        for (name, shape) in &gradients {
            let words = name.bytes().map(u64::from).chain(shape.map(|size| size as u64));
            self.reduced.layout = words.fold(self.reduced.layout, |all, part| hash::mix(all ^ part));
        }
        self.reduced.names.extend(gradients.iter().map(|(name, _)| name).chain(rows.keys()).cloned());
        self.bundle.gradients.extend(gradients);
        if self.bundle.length * size_of::<f32>() >= BUNDLE_BYTES || !rows.is_empty() {
            self.flush()?;
        }
        rows.into_iter().try_for_each(|(name, own)| self.exchange_rows(name, own))
    }

    /// Exchanges the bundle and adds it to the sum.
    fn flush(&mut self) -> Result<()> {
        let mut bundle = std::mem::take(&mut self.bundle);
        let parts = match self.ownership {
            None => even_parts(bundle.length, self.communicator.size()),
            Some(ownership) => bundle.group(ownership, self.communicator.size()),
        };
        let Bundle { mut gradients, mut nodes, length } = bundle;
        if self.share.own.is_empty() {
            nodes.clear();
        }
        let connection = (self.communicator, self.wire);
        let mut sum = reduce_scatter(connection, self.share.tree, &nodes, &parts)?;
        match self.ownership {
            None => sum = all_gather(connection, &sum, &parts, length)?,
            Some(ownership) => gradients.retain(|(name, _)| ownership.is_own(name)),
        }
        let mut rest = &sum[..];
        for (name, shape) in gradients {
            let (values, after) = rest.split_at(shape[0] * shape[1]);
            rest = after;
            let gradient = Tensor::from_data(TensorData::new(values.to_vec(), shape), self.device);
            self.reduced.gradients.add(GradientSum::from_parts(BTreeMap::from([(name, gradient)]), BTreeMap::new()));
        }
        Ok(())
    }

    /// Exchanges the rows of an embedding table, which are few compared with the table, and adds them to the sum.
    fn exchange_rows(&mut self, name: String, own: BTreeMap<Node, Rows>) -> Result<()> {
        let table = own.values().next().map_or(0, |rows| rows.table);
        let own = if self.share.own.is_empty() { BTreeMap::new() } else { own };
        let encoded: Vec<u8> = own.into_values().flat_map(|rows| encode_rows(rows, self.wire)).collect();
        let all = match self.ownership {
            None => self.communicator.gather(&encoded, Patience::Limited)?,
            Some(ownership) => self.communicator.gather_at(ownership.owner(&name), &encoded, Patience::Limited)?,
        };
        if all.is_empty() {
            return Ok(());
        }
        let mut nodes = BTreeMap::new();
        for (rank, bytes) in all.iter().enumerate() {
            let mut bytes = &bytes[..];
            for node in self.share.tree.cover(&self.share.tree.share(rank, self.communicator.size())) {
                nodes.insert(node, decode_rows(&mut bytes, table, (self.device, self.wire)));
            }
        }
        if let Some(rows) = fold(self.share.tree.root(), &mut nodes, &Rows::merge) {
            self.reduced.gradients.add(GradientSum::from_parts(BTreeMap::new(), BTreeMap::from([(name, rows)])));
        }
        Ok(())
    }
}

/// Appends the values of a matrix, in `f32`.
fn append_values(matrix: Tensor<2>, values: &mut Vec<f32>) {
    let data = ops::upcast(matrix).into_data();
    match data.as_slice::<f32>() {
        Ok(slice) => values.extend_from_slice(slice),
        Err(_) => values.extend(data.iter::<f32>()),
    }
}

/// The form (0 for a table), the shape, the numbers of the rows if they are listed, and their values.
fn encode_rows(rows: Rows, wire: Wire) -> Vec<u8> {
    let (ids, values) = match rows.gradients {
        RowsForm::Listed(ids, rows) => (Some(ids.into_data().iter::<i32>().map(|id| id as u32).collect()), rows),
        RowsForm::Table(table) => (None, table),
    };
    let [count, width] = values.dims();
    let mut words = vec![u32::from(ids.is_some()), count as u32, width as u32];
    words.extend(ids.into_iter().flat_map(|ids: Vec<u32>| ids));
    let mut host = Vec::new();
    append_values(values, &mut host);
    let mut bytes = bytemuck::cast_slice::<u32, u8>(&words).to_vec();
    bytes.extend_from_slice(&wire.encode(&host));
    bytes
}

/// The 32-bit words of a message.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word))
}

/// The reverse of [`encode_rows`], for the first rows in `bytes`, which are then those after them.
fn decode_rows(bytes: &mut &[u8], table: usize, (device, wire): (&Device, Wire)) -> Rows {
    let mut take = |count: usize| bytes.split_off(..count.min(bytes.len())).unwrap_or_default();
    let mut header = words(take(12)).map(|word| word as usize);
    let mut next = || header.next().unwrap_or_default();
    let (is_listed, count, width) = (next() == 1, next(), next());
    let ids: Vec<i32> = words(take(if is_listed { 4 * count } else { 0 })).map(|id| id as i32).collect();
    let mut values = wire.zeros(count * width);
    values.bytes_mut().copy_from_slice(take(count * width * wire.size()));
    let values = Tensor::from_data(TensorData::new(values.into_values(), [count, width]), device);
    let gradients = match is_listed {
        true => RowsForm::Listed(Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), device), values),
        false => RowsForm::Table(values),
    };
    Rows { table, gradients }
}

/// The losses of all shards, in order, given those of this rank: for each shard, as many numbers as there are names.
///
/// # Errors
/// If the connection fails, or the ranks have taken different steps.
pub fn gather_losses(communicator: &dyn Communicator, share: &Share, own: &[f32], layout: u64) -> Result<Vec<f32>> {
    let own = if share.own.is_empty() { &[] } else { own };
    let mut bytes = layout.to_le_bytes().to_vec();
    bytes.extend_from_slice(bytemuck::cast_slice(own));
    let mut losses = Vec::new();
    for (rank, bytes) in communicator.gather(&bytes, Patience::Limited)?.into_iter().enumerate() {
        let (theirs, values) = bytes.split_at(8);
        if theirs != layout.to_le_bytes() {
            communicator.end_all();
            return Err(Error::Setting(format!(
                "rank {rank} has gradients of other parameters than rank {}",
                communicator.rank()
            )));
        }
        losses.extend(words(values).map(f32::from_bits));
    }
    Ok(losses)
}

#[cfg(test)]
mod tests;
