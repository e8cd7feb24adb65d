//! Gradients by parameter name, summed over the parts of a batch and its micro-batches in a fixed order.
//! [`bert_model::ops::optimizer`] clips them by their global norm.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bert_model::ops::tape::{GradientPart, RowGradients};
use bert_model::ops::{self, optimizer};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Gradients, Int, Tensor};

use super::parameters::{Visit, as_matrix, visit_parameters};

/// The sum of the gradients of several micro-batches, each as a matrix (a vector becomes one row).
#[derive(Debug, Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<2>>,
}

impl GradientSum {
    /// Adds the gradients that one part of a backward pass computed for parameters of `model`.
    pub fn add<M: Module>(&mut self, model: &M, part: GradientPart) {
        let sum = &mut self.by_name;
        match part {
            GradientPart::Gradients(gradients) => visit_parameters(model, &mut GradientCollector { gradients, sum }),
            GradientPart::Rows(rows) => {
                let RowGradients { table, ids, gradient } = *rows;
                let (count, width) = (ids.shape().num_elements(), gradient.dims()[2]);
                let rows = Some((ids.reshape([count]), gradient.reshape([count, width])));
                visit_parameters(model, &mut RowCollector { table, rows, sum });
            }
        }
    }

    /// All gradients, sorted by parameter name.
    pub fn all(&self) -> Vec<Tensor<2>> {
        self.by_name.values().cloned().collect()
    }

    /// Removes and returns the gradient of a parameter.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<2>> {
        self.by_name.remove(name)
    }
}

/// A gradient sum that several threads add to in a fixed order: the first gradients of each part of a micro-batch, in
/// the order of the parts, then the second ones, and so on. The sum therefore does not depend on scheduling.
pub struct OrderedSum<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    sum: &'a mut GradientSum,
    /// Number of times that each part has added; `DONE` when it has finished.
    turns: Vec<usize>,
}

const DONE: usize = usize::MAX;

impl<'a> OrderedSum<'a> {
    /// Creates the sum for `parts` parts, which must all run concurrently.
    pub fn new(sum: &'a mut GradientSum, parts: usize) -> Self {
        Self { state: Mutex::new(State { sum, turns: vec![0; parts] }), changed: Condvar::new() }
    }

    /// One handle per part, which the part drops when it has finished.
    pub fn turns(&self) -> Vec<Turns<'a, '_>> {
        (0..self.lock().turns.len()).map(|part| Turns { shared: self, part }).collect()
    }

    /// Locks the state. A poisoned lock is accepted, since the panic of the other part ends the run anyway.
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle with which one part adds to an [`OrderedSum`].
pub struct Turns<'a, 's> {
    shared: &'s OrderedSum<'a>,
    part: usize,
}

impl Turns<'_, '_> {
    /// Waits for this part's next turn, then calls `add` with the sum.
    pub fn take(&mut self, add: impl FnOnce(&mut GradientSum)) {
        let (part, mut state) = (self.part, self.shared.lock());
        let is_next = |state: &State| {
            let (before, after) = state.turns.split_at(part);
            let own = after[0];
            before.iter().all(|&turn| turn > own) && after.iter().all(|&turn| turn >= own)
        };
        while !is_next(&state) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        add(state.sum);
        state.turns[part] += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Turns<'_, '_> {
    fn drop(&mut self) {
        self.shared.lock().turns[self.part] = DONE;
        self.shared.changed.notify_all();
    }
}

/// Adds the gradient of every parameter to the sum.
struct GradientCollector<'a> {
    gradients: Gradients,
    sum: &'a mut BTreeMap<String, Tensor<2>>,
}

impl Visit for GradientCollector<'_> {
    fn visit<const D: usize>(&mut self, name: String, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = parameter.base().grad_remove(&mut self.gradients) else { return };
        let gradient = ops::upcast(as_matrix(gradient));
        let sum = match self.sum.remove(&name) {
            Some(sum) => optimizer::accumulate(sum, gradient),
            None => gradient,
        };
        self.sum.insert(name, sum);
    }
}

/// Adds rows to the gradient of one embedding table.
struct RowCollector<'a> {
    table: ParamId,
    rows: Option<(Tensor<1, Int>, Tensor<2>)>,
    sum: &'a mut BTreeMap<String, Tensor<2>>,
}

impl Visit for RowCollector<'_> {
    fn visit<const D: usize>(&mut self, name: String, parameter: &Param<Tensor<D>>) {
        if parameter.id != self.table {
            return;
        }
        let Some((ids, rows)) = self.rows.take() else { return };
        let (shape, options) = (parameter.lazy_shape(), (&rows.device(), DType::F32));
        let sum = self.sum.remove(&name).unwrap_or_else(|| Tensor::zeros(shape, options));
        self.sum.insert(name, optimizer::add_rows(sum, ids, rows));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bert_model::ops::{dropout, tape};
    use bert_model::{BertConfig, BertForPreTraining, BertInput, BertModel, Pretrained};
    use burn::tensor::Device;

    use super::*;
    use crate::Adaptation;

    /// The order holds even if the first part is the slowest; a part that ends early or panics does not block the
    /// others.
    #[test]
    fn parts_add_in_their_order_whoever_is_fast() {
        let mut sum = GradientSum::default();
        let order = Mutex::new(Vec::new());
        let ordered_sum = OrderedSum::new(&mut sum, 3);
        std::thread::scope(|scope| {
            for (part, mut turns) in ordered_sum.turns().into_iter().enumerate() {
                let order = &order;
                scope.spawn(move || {
                    for turn in 0..if part == 1 { 2 } else { 3 } {
                        std::thread::sleep(Duration::from_millis(10 * (3 - part as u64)));
                        turns.take(|_| order.lock().unwrap().push((turn, part)));
                    }
                });
            }
        });
        let expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 2)];
        assert_eq!(*order.lock().unwrap(), expected);

        let ordered_sum = OrderedSum::new(&mut sum, 2);
        let result = std::thread::scope(|scope| {
            let mut turns = ordered_sum.turns().into_iter();
            let (mut first, mut second) = (turns.next().unwrap(), turns.next().unwrap());
            let failing = scope.spawn(move || first.take(|_| panic!("on purpose")));
            let waiting = scope.spawn(move || second.take(|_| ()));
            (failing.join().is_err(), waiting.join().is_ok())
        });
        assert_eq!(result, (true, true));
    }

    #[test]
    fn rows_are_added_where_they_belong() {
        let device = Device::flex();
        let config = BertConfig::named("tiny").unwrap().with_vocab_size(5);
        let model = BertModel::init(&config, &device);
        let table = model.embeddings.word.weight.id;
        let mut sum = GradientSum::default();
        for _ in 0..2 {
            let ids = Tensor::from_data([[3, 1], [3, 0]], &device);
            let gradient = Tensor::<3>::ones([2, 2, 128], &device);
            sum.add(&model, GradientPart::Rows(Box::new(RowGradients { table, ids, gradient })));
        }
        let rows = sum.remove("embeddings.word_embeddings.weight").unwrap();
        let means: Vec<f32> = rows.mean_dim(1).into_data().try_to_vec().unwrap();
        assert_eq!(means, [2.0, 2.0, 0.0, 4.0, 0.0]);
    }

    fn model(device: &Device) -> BertForPreTraining {
        let config = BertConfig { num_hidden_layers: 3, ..BertConfig::named("tiny").unwrap() }.with_vocab_size(50);
        BertForPreTraining::init_seeded(&config, 1, device)
    }

    /// The loss of two batches that pass through the model one after the other, with dropout.
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

    /// √Σ‖g‖² over all parameters.
    fn norm(sum: &GradientSum) -> f32 {
        let squares = sum.all().into_iter().map(|gradient| gradient.powi_scalar(2).sum().into_scalar::<f32>());
        squares.sum::<f32>().sqrt()
    }

    const WORDS: &str = "bert.embeddings.word_embeddings.weight";

    /// The gradients of a recorded pass, and the number of parts in which they arrived.
    fn recorded(model: &BertForPreTraining, checkpointing: bool) -> (GradientSum, usize) {
        let (loss, tape) = tape::record(checkpointing, || loss(model));
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

    /// The word embeddings are tied and used by two lookups, and their gradient is still the sum of all contributions.
    #[test]
    fn layer_by_layer_gives_the_gradients_of_one_graph() {
        let model = model(&Device::flex()).train();
        let mut whole = GradientSum::default();
        whole.add(&model, GradientPart::Gradients(loss(&model).backward()));
        let (mut sum, parts) = recorded(&model, false);
        // The heads; for each batch, the layers and the embeddings; then the rows of each batch.
        assert_eq!(parts, 1 + 2 * (3 + 1) + 2);
        assert!((norm(&whole) / norm(&sum) - 1.0).abs() < 1e-6 && norm(&whole) > 0.0);
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
        assert_eq!(norm(&plain), norm(&again));
        assert_eq!(values(&mut plain, WORDS), values(&mut again, WORDS));
    }

    /// No gradient is computed below the lowest trainable parameter.
    #[test]
    fn frozen_layers_stay_out() {
        let device = Device::flex();
        let model = Adaptation::FrozenLayers(2).freeze(model(&device).train());
        for checkpointing in [false, true] {
            let (mut sum, parts) = recorded(&model, checkpointing);
            assert_eq!(parts, 1 + 2);
            // The decoder's contribution to the tied word embeddings is frozen with them.
            assert!(sum.remove(WORDS).is_none());
            assert!(sum.remove("bert.encoder.layer.1.output.dense.weight").is_none());
            assert!(sum.remove("bert.encoder.layer.2.output.dense.weight").is_some());
        }
    }
}
