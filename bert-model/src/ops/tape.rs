//! The backward pass, one layer at a time.
//!
//! While a forward pass is recorded, the graph of burn's autodiff ends at every encoder layer: what the next one reads is a
//! leaf. The backward pass goes from the loss to the embeddings layer by layer, and hands over the gradients of one before
//! it begins the next, so that workers with a part of the batch each can add them to one sum instead of holding all
//! parameters' gradients each. The gradient of the word table is handed over as the rows that the batch has touched.
//!
//! With gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost") only the input of each
//! layer is kept; the backward pass computes the layer once more, with the same dropout, and goes through it. A third
//! more arithmetic, and the activations of one layer in memory rather than of all; the same gradients, bit for bit.

use std::cell::RefCell;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::Gradients;
use burn::tensor::module::embedding;

use super::dropout;

thread_local! {
    /// What the forward pass of this thread went through, while it is recorded.
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// What a recorded forward pass went through; nothing if it was not recorded.
#[derive(Default)]
pub struct Tape {
    checkpointing: bool,
    segments: Vec<Segment>,
    looked_up: Vec<LookedUp>,
}

/// A stretch of the forward pass with a graph of its own.
struct Segment {
    /// Gives the output with everything that led to it, kept or computed again.
    graph: Box<dyn FnOnce() -> Tensor<3>>,
    /// What the forward pass went on with: a leaf, whose gradient is where the stretch's backward pass begins.
    output: Tensor<3>,
    gradient: Option<Tensor<3>>,
}

/// Rows of a table that were looked up.
struct LookedUp {
    table: ParamId,
    ids: Tensor<2, Int>,
    rows: Tensor<3>,
    gradient: Option<Tensor<3>>,
}

/// Some of the gradients of a batch; a parameter's gradient is the sum of what all of them hold for it.
pub enum GradientPart {
    /// As burn's autodiff leaves them.
    Gradients(Gradients),
    /// Of a table that was looked up.
    Rows(Box<RowGradients>),
}

/// The gradient of rows of a table.
pub struct RowGradients {
    /// The table, `[V, H]`.
    pub table: ParamId,
    /// Which rows, `[B, T]`; some may come more than once.
    pub ids: Tensor<2, Int>,
    /// `[B, T, H]`.
    pub gradient: Tensor<3>,
}

/// Runs a forward pass and records it; with `checkpointing` its encoder layers keep nothing but their inputs.
pub fn record<R>(checkpointing: bool, forward: impl FnOnce() -> R) -> (R, Tape) {
    TAPE.set(Some(Tape { checkpointing, ..Tape::default() }));
    let result = forward();
    (result, TAPE.take().unwrap_or_default())
}

impl Tape {
    /// The backward pass of the recorded forward pass; `collect` gets the gradients part by part, from the loss to the
    /// embeddings.
    pub fn backward(mut self, loss: Tensor<1>, mut collect: impl FnMut(GradientPart)) {
        collect(GradientPart::Gradients(self.keep_leaves(loss.backward())));
        while let Some(Segment { graph, gradient, .. }) = self.segments.pop() {
            // Without a gradient: the loss does not depend on it.
            let Some(gradient) = gradient else { continue };
            let gradients = (graph() * Tensor::from_inner(gradient)).sum().backward();
            collect(GradientPart::Gradients(self.keep_leaves(gradients)));
        }
        for LookedUp { table, ids, gradient, .. } in self.looked_up {
            if let Some(gradient) = gradient {
                collect(GradientPart::Rows(Box::new(RowGradients { table, ids, gradient })));
            }
        }
    }

    /// Takes the gradients of the leaves at which the graph was cut.
    fn keep_leaves(&mut self, mut gradients: Gradients) -> Gradients {
        let segments = self.segments.iter_mut().map(|segment| (&segment.output, &mut segment.gradient));
        let looked_up = self.looked_up.iter_mut().map(|looked_up| (&looked_up.rows, &mut looked_up.gradient));
        for (leaf, sum) in segments.chain(looked_up) {
            if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                *sum = Some(sum.take().map_or(gradient.clone(), |sum| sum + gradient));
            }
        }
        gradients
    }
}

/// Applies a layer, which `forward` does; if the forward pass is recorded, the layer has a graph of its own.
///
/// # Shapes
/// - `input` and output: `[B, T, H]`
pub(crate) fn layer<M: Module + 'static>(
    layer: &M,
    input: Tensor<3>,
    forward: impl Fn(&M, Tensor<3>) -> Tensor<3> + 'static,
) -> Tensor<3> {
    let checkpointing = TAPE.with_borrow(|tape| tape.as_ref().map(|tape| tape.checkpointing));
    let is_trainable_below = input.is_require_grad();
    match checkpointing {
        Some(true) if is_trainable_below || is_trainable(layer) => {
            let dropout = dropout::stream();
            // Without gradients, burn keeps nothing for a backward pass.
            let untracked = Tensor::from_inner(input.clone().inner());
            let output = forward(&layer.clone().no_grad(), untracked);
            let layer = layer.clone();
            let again = move || {
                dropout::resume(dropout);
                forward(&layer, input)
            };
            cut(again, output)
        }
        Some(false) if is_trainable_below || is_trainable(layer) => keep(forward(layer, input)),
        _ => forward(layer, input),
    }
}

/// Ends the graph of the embeddings, whose output this is, if the forward pass is recorded.
pub(crate) fn embedded<M: Module>(embeddings: &M, output: Tensor<3>) -> Tensor<3> {
    let is_recorded = TAPE.with_borrow(Option::is_some);
    if is_recorded && is_trainable(embeddings) { keep(output) } else { output }
}

/// Rows of a table.
///
/// # Shapes
/// - `table`: `[V, H]`
/// - `ids`: `[B, T]`
/// - output: `[B, T, H]`
pub(crate) fn rows(table: &Param<Tensor<2>>, ids: Tensor<2, Int>) -> Tensor<3> {
    let weight = table.val();
    if TAPE.with_borrow(Option::is_none) || !weight.is_require_grad() {
        return embedding(weight, ids);
    }
    let rows = embedding(Tensor::from_inner(weight.inner()), ids.clone()).require_grad();
    let looked_up = LookedUp { table: table.id, ids: ids.inner(), rows: rows.clone(), gradient: None };
    on_tape(|tape| tape.looked_up.push(looked_up));
    rows
}

/// Ends a graph at an output, and keeps it.
fn keep(output: Tensor<3>) -> Tensor<3> {
    let kept = output.clone();
    cut(move || kept, output)
}

/// Goes on with a leaf in the place of an output that `graph` gives.
fn cut(graph: impl FnOnce() -> Tensor<3> + 'static, output: Tensor<3>) -> Tensor<3> {
    let output = output.detach().require_grad();
    let segment = Segment { graph: Box::new(graph), output: output.clone(), gradient: None };
    on_tape(|tape| tape.segments.push(segment));
    output
}

fn on_tape(record: impl FnOnce(&mut Tape)) {
    TAPE.with_borrow_mut(|tape| tape.as_mut().map(record));
}

/// Whether any parameter of a module learns.
fn is_trainable<M: Module>(module: &M) -> bool {
    struct Learns(bool);
    impl ModuleVisitor for Learns {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.is_require_grad();
        }
    }
    let mut found = Learns(false);
    module.visit(&mut found);
    found.0
}
