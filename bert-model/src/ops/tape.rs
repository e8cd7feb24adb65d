//! The backward pass, one encoder layer at a time.
//!
//! While a forward pass is recorded, the autodiff graph is split after the embeddings and after every encoder layer:
//! the next layer's input is a leaf of a new graph. The backward pass runs from the loss to the embeddings, layer by
//! layer, and reports a layer's gradients before it starts the next layer. So workers that share a batch add to one sum
//! of gradients, and none of them stores the gradients of all parameters. The gradient of the word embeddings is
//! reported as the rows that the batch looked up.
//!
//! With gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost") only the input of
//! each layer is kept, and the backward pass recomputes the layer with the same dropout masks. This stores the
//! activations of one layer rather than of all, for a third more arithmetic. The gradients are the same, bit for bit.

use std::cell::RefCell;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::Gradients;
use burn::tensor::module::embedding;

use super::dropout;
use super::surrogate_loss::surrogate_loss;

thread_local! {
    /// The tape of this thread's forward pass, while it is recorded.
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// A recorded forward pass.
#[derive(Default)]
pub struct Tape {
    checkpointing: bool,
    segments: Vec<Segment>,
    lookups: Vec<Lookup>,
}

/// A part of the forward pass with a graph of its own: the embeddings or one encoder layer.
struct Segment {
    /// Returns the output with its graph, kept or recomputed.
    graph: Box<dyn FnOnce() -> Tensor<3>>,
    /// The output as a leaf, which the next segment reads. Its gradient starts the backward pass of this segment.
    output: Tensor<3>,
    gradient: Option<Tensor<3>>,
}

/// A lookup of rows in an embedding table.
struct Lookup {
    table: ParamId,
    ids: Tensor<2, Int>,
    rows: Tensor<3>,
    gradient: Option<Tensor<3>>,
}

/// Some of the gradients of a backward pass. A parameter's gradient is the sum over all parts that contain it.
pub enum GradientPart {
    /// The gradients of one segment, from burn's autodiff.
    Gradients(Gradients),
    /// The gradient of rows of an embedding table.
    Rows(Box<RowGradients>),
}

/// The gradient of the rows of an embedding table that a batch looked up.
pub struct RowGradients {
    /// The table, `[V, H]`.
    pub table: ParamId,
    /// The row numbers, `[B, T]`, with repetitions.
    pub ids: Tensor<2, Int>,
    /// The gradient of each lookup, `[B, T, H]`.
    pub gradient: Tensor<3>,
}

/// Runs and records a forward pass. With `checkpointing` its encoder layers keep only their inputs for the backward
/// pass.
pub fn record<R>(checkpointing: bool, forward: impl FnOnce() -> R) -> (R, Tape) {
    /// Puts the outer tape back, even after a panic.
    struct Outer(Option<Tape>);
    impl Drop for Outer {
        fn drop(&mut self) {
            TAPE.set(self.0.take());
        }
    }
    let _outer = Outer(TAPE.replace(Some(Tape { checkpointing, ..Tape::default() })));
    let result = forward();
    (result, TAPE.take().unwrap_or_default())
}

impl Tape {
    /// Runs the backward pass of the recorded forward pass. `collect` receives the gradients part by part, from the
    /// heads to the embeddings.
    pub fn backward(mut self, loss: Tensor<1>, mut collect: impl FnMut(GradientPart)) {
        collect(GradientPart::Gradients(self.take_leaves(loss.backward())));
        while let Some(Segment { graph, gradient, .. }) = self.segments.pop() {
            // Without a gradient the loss does not depend on this segment.
            let Some(gradient) = gradient else { continue };
            let gradients = surrogate_loss(graph(), Tensor::from_inner(gradient)).backward();
            collect(GradientPart::Gradients(self.take_leaves(gradients)));
        }
        for Lookup { table, ids, gradient, .. } in self.lookups {
            if let Some(gradient) = gradient {
                collect(GradientPart::Rows(Box::new(RowGradients { table, ids, gradient })));
            }
        }
    }

    /// Moves the gradients of the segments' outputs and of the lookups to the tape; returns those of the parameters.
    fn take_leaves(&mut self, mut gradients: Gradients) -> Gradients {
        let segments = self.segments.iter_mut().map(|segment| (&segment.output, &mut segment.gradient));
        let lookups = self.lookups.iter_mut().map(|lookup| (&lookup.rows, &mut lookup.gradient));
        for (leaf, sum) in segments.chain(lookups) {
            if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                *sum = Some(sum.take().map_or(gradient.clone(), |sum| sum + gradient));
            }
        }
        gradients
    }
}

/// Applies `forward` to a layer and its input. In a recorded forward pass the layer gets a graph of its own.
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
    // If nothing here or below is trained, the backward pass never gets this far.
    match checkpointing {
        Some(true) if is_trainable_below || is_trainable(layer) => {
            let position = dropout::position();
            // Untracked, so that autodiff keeps no activations.
            let untracked = Tensor::from_inner(input.clone().inner());
            let output = forward(&layer.clone().no_grad(), untracked);
            let layer = layer.clone();
            let recompute = move || {
                dropout::restore(position);
                forward(&layer, input)
            };
            end_segment(recompute, output)
        }
        Some(false) if is_trainable_below || is_trainable(layer) => end_segment_with_graph(forward(layer, input)),
        _ => forward(layer, input),
    }
}

/// Ends the graph of the embeddings, given their output, if the forward pass is recorded.
pub(crate) fn end_embeddings<M: Module>(embeddings: &M, output: Tensor<3>) -> Tensor<3> {
    let is_recorded = TAPE.with_borrow(Option::is_some);
    if is_recorded && is_trainable(embeddings) { end_segment_with_graph(output) } else { output }
}

/// Looks up rows of an embedding table. In a recorded forward pass their gradient is reported as
/// [`GradientPart::Rows`], without a gradient of the table's size.
///
/// # Shapes
/// - `table`: `[V, H]`
/// - `ids`: `[B, T]`
/// - output: `[B, T, H]`
pub(crate) fn lookup(table: &Param<Tensor<2>>, ids: Tensor<2, Int>) -> Tensor<3> {
    let weight = table.val();
    if TAPE.with_borrow(Option::is_none) || !weight.is_require_grad() {
        return embedding(weight, ids);
    }
    let rows = embedding(Tensor::from_inner(weight.inner()), ids.clone()).require_grad();
    let lookup = Lookup { table: table.id, ids: ids.inner(), rows: rows.clone(), gradient: None };
    on_tape(|tape| tape.lookups.push(lookup));
    rows
}

/// Ends a segment and keeps its graph.
fn end_segment_with_graph(output: Tensor<3>) -> Tensor<3> {
    let tracked = output.clone();
    end_segment(move || tracked, output)
}

/// Ends a segment: returns its output as a leaf, and records it with `graph`, which returns the output with its graph.
fn end_segment(graph: impl FnOnce() -> Tensor<3> + 'static, output: Tensor<3>) -> Tensor<3> {
    let output = output.detach().require_grad();
    let segment = Segment { graph: Box::new(graph), output: output.clone(), gradient: None };
    on_tape(|tape| tape.segments.push(segment));
    output
}

/// Changes this thread's tape, if there is one.
fn on_tape(record: impl FnOnce(&mut Tape)) {
    TAPE.with_borrow_mut(|tape| tape.as_mut().map(record));
}

/// Whether any parameter of a module is trainable.
fn is_trainable<M: Module>(module: &M) -> bool {
    struct AnyTrainable(bool);
    impl ModuleVisitor for AnyTrainable {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.is_require_grad();
        }
    }
    let mut any = AnyTrainable(false);
    module.visit(&mut any);
    any.0
}
