//! Gradients by parameter name. [`bert_model::ops::optimizer`] clips them by their global norm.

use std::collections::BTreeMap;

use bert_model::ops::tape::{GradientPart, RowGradients};
use bert_model::ops::{self, optimizer};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Gradients, Int, Tensor};

use super::parameters::{ParameterPath, Visit, as_matrix, visit_parameters};

/// Gradients by parameter name, each as a matrix (a vector becomes one row).
#[derive(Debug, Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<2>>,
    /// Gradients of rows of embedding tables, not yet added to those of the tables.
    rows: BTreeMap<String, Rows>,
}

/// The gradients of rows of an embedding table `[V, H]`.
#[derive(Debug)]
pub struct Rows {
    /// The number of rows of the table, V.
    pub table: usize,
    /// The gradients.
    pub gradients: RowsForm,
}

/// Two forms of the gradients of rows.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for a model")]
pub enum RowsForm {
    /// The rows `[N, H]` and their numbers `[N]`, with repetitions.
    Listed(Tensor<1, Int>, Tensor<2>),
    /// The whole table `[V, H]`, once there are more rows than it has.
    Table(Tensor<2>),
}

/// The number of rows that are listed even if the table has fewer.
const LISTED_ROWS: usize = 1 << 14;

impl Rows {
    /// The sum of two, of which `self` comes first.
    pub fn merge(self, right: Self) -> Self {
        use RowsForm::{Listed, Table};
        let table = self.table;
        let gradients = match (self.gradients, right.gradients) {
            (Listed(ids, rows), Listed(more_ids, more_rows)) => {
                let [count, width] = [rows.dims()[0] + more_rows.dims()[0], rows.dims()[1]];
                let device = rows.device();
                let (ids, rows) = (Tensor::cat(vec![ids, more_ids], 0), Tensor::cat(vec![rows, more_rows], 0));
                match count <= table.max(LISTED_ROWS) {
                    true => Listed(ids, rows),
                    false => {
                        let zeros = Tensor::zeros([table, width], (&device, DType::F32));
                        Table(optimizer::add_rows(zeros, ids, rows))
                    }
                }
            }
            (Table(sum), Listed(ids, rows)) | (Listed(ids, rows), Table(sum)) => {
                Table(optimizer::add_rows(sum, ids, rows))
            }
            (Table(sum), Table(more)) => Table(optimizer::accumulate(sum, more)),
        };
        Self { table, gradients }
    }
}

impl GradientSum {
    /// The gradients that one part of a backward pass computed for parameters of `model`.
    pub fn of<M: Module>(model: &M, part: GradientPart) -> Self {
        let mut sum = Self::default();
        match part {
            GradientPart::Gradients(gradients) => {
                visit_parameters(model, &mut GradientCollector { gradients, sum: &mut sum.by_name });
            }
            GradientPart::Rows(rows) => {
                let RowGradients { table, ids, gradient } = *rows;
                let (count, width) = (ids.shape().num_elements(), gradient.dims()[2]);
                let listed = RowsForm::Listed(ids.reshape([count]), gradient.reshape([count, width]));
                visit_parameters(model, &mut RowCollector { table, rows: Some(listed), sum: &mut sum.rows });
            }
        }
        sum
    }

    /// The sum of the same part of the backward pass for two sets of shards, of which `self` comes first.
    pub fn merge(mut self, right: Self) -> Self {
        for (name, gradient) in right.by_name {
            self.add_gradient(name, gradient);
        }
        for (name, rows) in right.rows {
            let sum = match self.rows.remove(&name) {
                Some(sum) => sum.merge(rows),
                None => rows,
            };
            self.rows.insert(name, sum);
        }
        self
    }

    /// Adds the sum over all shards of a later part of the backward pass.
    pub fn add(&mut self, part: Self) {
        for (name, gradient) in part.by_name {
            self.add_gradient(name, gradient);
        }
        for (name, Rows { table, gradients }) in part.rows {
            match gradients {
                RowsForm::Listed(ids, rows) => {
                    let zeros = || Tensor::zeros([table, rows.dims()[1]], (&rows.device(), DType::F32));
                    let sum = self.by_name.remove(&name).unwrap_or_else(zeros);
                    self.by_name.insert(name, optimizer::add_rows(sum, ids, rows));
                }
                RowsForm::Table(sum) => self.add_gradient(name, sum),
            }
        }
    }

    fn add_gradient(&mut self, name: String, gradient: Tensor<2>) {
        let sum = match self.by_name.remove(&name) {
            Some(sum) => optimizer::accumulate(sum, gradient),
            None => gradient,
        };
        self.by_name.insert(name, sum);
    }

    /// All gradients, sorted by parameter name.
    pub fn all(&self) -> Vec<Tensor<2>> {
        self.by_name.values().cloned().collect()
    }

    /// Removes and returns the gradient of a parameter.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<2>> {
        self.by_name.remove(name)
    }

    /// The gradients of whole parameters, and those of rows, by name.
    pub(super) fn into_parts(self) -> (BTreeMap<String, Tensor<2>>, BTreeMap<String, Rows>) {
        (self.by_name, self.rows)
    }

    /// The reverse of [`into_parts`](Self::into_parts).
    pub(super) fn from_parts(by_name: BTreeMap<String, Tensor<2>>, rows: BTreeMap<String, Rows>) -> Self {
        Self { by_name, rows }
    }
}

/// Collects the gradient of every parameter.
struct GradientCollector<'a> {
    gradients: Gradients,
    sum: &'a mut BTreeMap<String, Tensor<2>>,
}

impl Visit for GradientCollector<'_> {
    fn visit<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = parameter.base().grad_remove(&mut self.gradients) else { return };
        self.sum.insert(path.name(), ops::upcast(as_matrix(gradient)));
    }
}

/// Collects the gradients of rows of one embedding table.
struct RowCollector<'a> {
    table: ParamId,
    rows: Option<RowsForm>,
    sum: &'a mut BTreeMap<String, Rows>,
}

impl Visit for RowCollector<'_> {
    fn visit<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: &Param<Tensor<D>>) {
        if parameter.id != self.table {
            return;
        }
        let Some(gradients) = self.rows.take() else { return };
        self.sum.insert(path.name(), Rows { table: parameter.lazy_shape()[0], gradients });
    }
}

#[cfg(test)]
mod tests {
    use bert_model::ops::{dropout, tape};
    use bert_model::{BertConfig, BertForPreTraining, BertInput, BertModel, Pretrained};
    use burn::tensor::Device;

    use super::*;
    use crate::Adaptation;

    /// Whatever is listed or already a table, the sum is that of all rows.
    #[test]
    fn many_rows_become_a_table() {
        let device = Device::flex();
        let rows = |count: usize| {
            let ids: Tensor<1, Int> = Tensor::arange(0..count as i64, &device).remainder_scalar(4);
            Rows { table: 4, gradients: RowsForm::Listed(ids, Tensor::ones([count, 2], &device)) }
        };
        let sum = rows(LISTED_ROWS / 2).merge(rows(LISTED_ROWS / 2));
        assert!(matches!(sum.gradients, RowsForm::Listed(..)));
        let sum = rows(4).merge(sum);
        assert!(matches!(sum.gradients, RowsForm::Table(_)));
        let sum = rows(4).merge(sum).merge(rows(4).merge(rows(LISTED_ROWS)));
        let mut all = GradientSum::default();
        all.add(GradientSum::from_parts(BTreeMap::new(), BTreeMap::from([("words".to_string(), sum)])));
        assert_eq!(values(&mut all, "words"), [(LISTED_ROWS * 2 + 12) as f32 / 4.0; 8]);
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
            sum.add(GradientSum::of(&model, GradientPart::Rows(Box::new(RowGradients { table, ids, gradient }))));
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
            sum.add(GradientSum::of(model, part));
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
        whole.add(GradientSum::of(&model, GradientPart::Gradients(loss(&model).backward())));
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
