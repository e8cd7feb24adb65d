//! Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): of each encoder layer only
//! the input is kept; the backward pass computes the layer once more, with the same dropout, and goes through it. A third
//! more arithmetic, and the activations of one layer in memory rather than of all; the same gradients, bit for bit.

use std::cell::RefCell;

use burn::prelude::*;
use burn::tensor::Gradients;

use super::encoder::EncoderLayer;
use crate::ops::dropout::{self, Stream};

thread_local! {
    /// The layers that the forward pass of this thread went through, while it is recorded.
    static TAPE: RefCell<Option<Vec<Segment>>> = const { RefCell::new(None) };
}

/// A layer to be computed again.
struct Segment {
    layer: EncoderLayer,
    input: Tensor<3>,
    padding: Tensor<2, Bool>,
    dropout: Stream,
    /// What the forward pass went on with: a leaf, whose gradient is where the layer's backward pass begins.
    output: Tensor<3>,
}

/// The layers of a forward pass; none if nothing was recorded.
pub struct Tape(Vec<Segment>);

/// Runs a forward pass; if `checkpointing`, the encoder layers in it keep nothing but their inputs.
pub fn record<R>(checkpointing: bool, forward: impl FnOnce() -> R) -> (R, Tape) {
    TAPE.set(checkpointing.then(Vec::new));
    let result = forward();
    (result, Tape(TAPE.take().unwrap_or_default()))
}

impl Tape {
    /// The backward pass of the recorded forward pass; `collect` gets the gradients of its parts, from the loss to the
    /// embeddings. A parameter's gradient is the sum of what the parts hold.
    pub fn backward(self, loss: Tensor<1>, mut collect: impl FnMut(Gradients)) {
        let mut gradients = loss.backward();
        for Segment { layer, input, padding, dropout, output } in self.0.into_iter().rev() {
            let Some(gradient) = output.grad_remove(&mut gradients) else { break };
            collect(gradients);
            dropout::resume(dropout);
            let again = layer.forward(input, padding);
            gradients = (again * Tensor::from_inner(gradient)).sum().backward();
        }
        collect(gradients);
    }
}

/// Applies a layer, remembering how to do so again if the forward pass is recorded. Shapes: see
/// [`EncoderLayer::forward`].
pub(super) fn apply(layer: &EncoderLayer, input: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
    if TAPE.with_borrow(Option::is_none) {
        return layer.forward(input, padding);
    }
    let dropout = dropout::stream();
    // Without gradients, burn keeps nothing for a backward pass.
    let untracked = Tensor::from_inner(input.clone().inner());
    let output = layer.clone().no_grad().forward(untracked, padding.clone()).detach().require_grad();
    let segment = Segment { layer: layer.clone(), input, padding, dropout, output: output.clone() };
    TAPE.with_borrow_mut(|tape| tape.as_mut().map(|tape| tape.push(segment)));
    output
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::*;
    use crate::train::GradientSum;
    use crate::{BertConfig, BertInput, BertModel};

    /// Losses and global gradient norm with and without; bit for bit the same.
    #[test]
    fn the_gradients_are_the_same() {
        let device = Device::flex();
        device.seed(1);
        let config = BertConfig { num_hidden_layers: 3, ..BertConfig::named("tiny").unwrap() }.with_vocab_size(50);
        let model = BertModel::init(&config, &device).train();
        let ids = Tensor::<2, Int>::from_data([[2, 7, 42, 3], [2, 9, 3, 0]], &device.clone().autodiff());
        let gradients = |checkpointing: bool| {
            dropout::seed(7);
            let input = BertInput::new(ids.clone());
            let (loss, tape) = record(checkpointing, || {
                model.forward(input).last_hidden_state.powi_scalar(3).slice([0..2, 1..3]).sum()
            });
            assert_eq!(tape.0.len(), if checkpointing { 3 } else { 0 });
            let mut sum = GradientSum::default();
            tape.backward(loss.clone(), |gradients| sum.add(&model, gradients));
            let word = sum.remove("embeddings.word_embeddings.weight").unwrap().into_data();
            (loss.into_scalar::<f32>(), word.try_to_vec::<f32>().unwrap(), sum.global_norm())
        };
        let (plain, checkpointed) = (gradients(false), gradients(true));
        assert!(plain.2 > 0.0 && plain.1.iter().any(|&g| g != 0.0));
        assert_eq!(plain, checkpointed);
    }
}
