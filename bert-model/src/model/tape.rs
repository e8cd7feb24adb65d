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

use super::encoder::EncoderLayer;
use crate::ops::dropout;

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
pub enum Part {
    /// As burn's autodiff leaves them.
    Gradients(Gradients),
    /// Of a table that was looked up.
    Rows(Box<Rows>),
}

/// The gradient of rows of a table.
pub struct Rows {
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
    pub fn backward(mut self, loss: Tensor<1>, mut collect: impl FnMut(Part)) {
        collect(Part::Gradients(self.keep_leaves(loss.backward())));
        while let Some(Segment { graph, gradient, .. }) = self.segments.pop() {
            // Without a gradient: the loss does not depend on it.
            let Some(gradient) = gradient else { continue };
            let gradients = (graph() * Tensor::from_inner(gradient)).sum().backward();
            collect(Part::Gradients(self.keep_leaves(gradients)));
        }
        for LookedUp { table, ids, gradient, .. } in self.looked_up {
            if let Some(gradient) = gradient {
                collect(Part::Rows(Box::new(Rows { table, ids, gradient })));
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

/// Applies a layer; if the forward pass is recorded, the layer has a graph of its own. Shapes: see
/// [`EncoderLayer::forward`].
pub(super) fn layer(layer: &EncoderLayer, input: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
    let checkpointing = TAPE.with_borrow(|tape| tape.as_ref().map(|tape| tape.checkpointing));
    let below_learns = input.is_require_grad();
    match checkpointing {
        Some(true) if below_learns || learns(layer) => {
            let dropout = dropout::stream();
            // Without gradients, burn keeps nothing for a backward pass.
            let untracked = Tensor::from_inner(input.clone().inner());
            let output = layer.clone().no_grad().forward(untracked, padding.clone());
            let layer = layer.clone();
            let again = move || {
                dropout::resume(dropout);
                layer.forward(input, padding)
            };
            cut(again, output)
        }
        Some(false) if below_learns || learns(layer) => keep(layer.forward(input, padding)),
        _ => layer.forward(input, padding),
    }
}

/// Ends the graph of the embeddings, whose output this is, if the forward pass is recorded.
pub(super) fn embedded<M: Module>(embeddings: &M, output: Tensor<3>) -> Tensor<3> {
    let is_recorded = TAPE.with_borrow(Option::is_some);
    if is_recorded && learns(embeddings) { keep(output) } else { output }
}

/// Rows of a table.
///
/// # Shapes
/// - `table`: `[V, H]`
/// - `ids`: `[B, T]`
/// - output: `[B, T, H]`
pub(super) fn rows(table: &Param<Tensor<2>>, ids: Tensor<2, Int>) -> Tensor<3> {
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
fn learns<M: Module>(module: &M) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Adaptation, GradientSum};
    use crate::{BertConfig, BertForPreTraining, BertInput, Pretrained};

    fn model(device: &Device) -> BertForPreTraining {
        let config = BertConfig { num_hidden_layers: 3, ..BertConfig::named("tiny").unwrap() }.with_vocab_size(50);
        BertForPreTraining::fresh(&config, 1, device)
    }

    /// A loss of two batches that go through the model one after the other, with dropout.
    fn loss(model: &BertForPreTraining) -> Tensor<1> {
        let device = Device::flex().autodiff();
        dropout::seed(7, 0);
        let score = |ids: [[i32; 4]; 2]| {
            let input = BertInput::new(Tensor::from_data(ids, &device));
            let (words, next) = model.forward(input, Tensor::from_data([1, 6], &device));
            words.powi_scalar(2).mean() + next.powi_scalar(3).sum()
        };
        score([[2, 7, 42, 3], [2, 9, 7, 3]]) + score([[2, 8, 42, 3], [2, 9, 3, 0]])
    }

    const WORDS: &str = "bert.embeddings.word_embeddings.weight";

    /// Gradients of a recorded pass, and the number of parts they came in.
    fn recorded(model: &BertForPreTraining, checkpointing: bool) -> (GradientSum, usize) {
        let (loss, tape) = record(checkpointing, || loss(model));
        let (mut sum, mut parts) = (GradientSum::default(), 0);
        tape.backward(loss, |part| {
            parts += 1;
            sum.add(model, part);
        });
        (sum, parts)
    }

    fn values(sum: &mut GradientSum, name: &str) -> Vec<f32> {
        sum.remove(name).unwrap().into_data().try_to_vec().unwrap()
    }

    /// The word table is tied, looked up twice, and its gradient still the sum of everything.
    #[test]
    fn layer_by_layer_gives_the_gradients_of_one_graph() {
        let model = model(&Device::flex()).train();
        let mut whole = GradientSum::default();
        whole.add(&model, Part::Gradients(loss(&model).backward()));
        let (mut sum, parts) = recorded(&model, false);
        // The heads, then for each batch the layers and the embeddings, then the rows of each.
        assert_eq!(parts, 1 + 2 * (3 + 1) + 2);
        assert!((whole.global_norm() / sum.global_norm() - 1.0).abs() < 1e-6 && whole.global_norm() > 0.0);
        for name in [WORDS, "bert.embeddings.LayerNorm.weight", "bert.encoder.layer.1.attention.self.value.weight"] {
            let (whole, sum) = (values(&mut whole, name), values(&mut sum, name));
            let largest = whole.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            assert!(largest > 0.0, "{name}");
            for (a, b) in whole.iter().zip(&sum) {
                assert!((a - b).abs() < 1e-5 * largest, "{name}: {a} {b}");
            }
        }
    }

    #[test]
    fn computing_layers_again_changes_no_bit() {
        let model = model(&Device::flex()).train();
        let ((mut plain, _), (mut again, _)) = (recorded(&model, false), recorded(&model, true));
        assert_eq!(plain.global_norm(), again.global_norm());
        assert_eq!(values(&mut plain, WORDS), values(&mut again, WORDS));
    }

    /// No gradient is computed below what learns.
    #[test]
    fn frozen_layers_stay_out() {
        let device = Device::flex();
        let model = Adaptation::FrozenLayers(2).freeze(model(&device).train());
        for checkpointing in [false, true] {
            let (mut sum, parts) = recorded(&model, checkpointing);
            assert_eq!(parts, 1 + 2);
            // The decoder's share of the tied table is frozen with it.
            assert!(sum.remove(WORDS).is_none());
            assert!(sum.remove("bert.encoder.layer.1.output.dense.weight").is_none());
            assert!(sum.remove("bert.encoder.layer.2.output.dense.weight").is_some());
        }
    }
}
