//! Operations with a hand-written gradient, as nodes of burn's autodiff graph.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// An operation on backend `B` with `N` differentiable inputs. Other inputs (masks, sizes) are fields of the operation.
pub(super) trait Differentiable<B: Backend, const N: usize>: Clone + Send + Debug + 'static {
    /// What the backward pass needs of the forward pass.
    type Saved: Clone + Send + Debug + 'static;

    /// Computes the output, and what the backward pass needs.
    fn forward(&self, inputs: [FloatTensor<B>; N]) -> (FloatTensor<B>, Self::Saved);

    /// Computes the gradients of the inputs from that of the output. Those that are not `wanted` may be `None`.
    fn backward(self, saved: Self::Saved, gradient: FloatTensor<B>, wanted: [bool; N]) -> [Option<FloatTensor<B>>; N];
}

/// The backward pass of an operation.
#[derive(Debug)]
struct Step<O>(O);

impl<B: Backend, O: Differentiable<B, N>, const N: usize> Backward<B, N> for Step<O> {
    type State = O::Saved;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip(self.0.backward(ops.state, gradient, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Applies an operation to tensors on the autodiff backend, and records it in their graph if they have one.
pub(super) fn apply<O: Differentiable<B, N>, B: Backend, C: CheckpointStrategy, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let (output, saved) = operation.forward(inputs.map(|input| input.into_primitive()));
    match Step(operation).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(saved, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}
