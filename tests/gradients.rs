//! Promise: the gradients of every model are the derivatives of its loss, checked by finite differences in `f64`.

use bert_model::model::loss::{binary_cross_entropy, cross_entropy, squared_error};
use bert_model::{
    Activation, BertConfig, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertInput, BertModel,
    Pretrained,
};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

/// Casts every parameter to f64.
struct ToF64;
impl ModuleMapper for ToF64 {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::F64))
    }
}

/// Adds `by` to one element of one parameter.
struct Nudge {
    parameter: usize,
    element: usize,
    by: f64,
    seen: usize,
}
impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seen += 1;
        if self.seen - 1 != self.parameter {
            return param;
        }
        param.map(|tensor| {
            let (device, shape) = (tensor.device(), tensor.shape());
            let mut values: Vec<f64> = tensor.into_data().iter::<f64>().collect();
            values[self.element] += self.by;
            Tensor::from_data(TensorData::new(values, shape), (&device, DType::F64))
        })
    }
}

/// Collects the gradient of every parameter, empty for those without one.
struct Gradients<'a> {
    gradients: &'a burn::tensor::Gradients,
    collected: Vec<Vec<f64>>,
}
impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients);
        self.collected.push(gradient.map(|gradient| gradient.into_data().iter::<f64>().collect()).unwrap_or_default());
    }
}

/// Compares the gradient of `loss` with central differences at a few elements of every parameter.
fn check<M: Module>(what: &str, model: M, loss: impl Fn(&M) -> Tensor<1>) {
    let model = model.map(&mut ToF64);
    let training = model.clone().train();
    let gradients = loss(&training).backward();
    let mut collector = Gradients { gradients: &gradients, collected: Vec::new() };
    training.visit(&mut collector);

    let at = |parameter, element, by| {
        let nudged = model.clone().map(&mut Nudge { parameter, element, by, seen: 0 });
        loss(&nudged).into_data().iter::<f64>().next().unwrap()
    };
    let (mut compared, mut nonzero) = (0, 0);
    for (parameter, gradient) in collector.collected.iter().enumerate() {
        for element in (0..gradient.len()).step_by((gradient.len() / 5).max(1)) {
            const STEP: f64 = 1e-5;
            let difference = (at(parameter, element, STEP) - at(parameter, element, -STEP)) / (2.0 * STEP);
            let error = (gradient[element] - difference).abs();
            assert!(
                error <= 1e-7 + 1e-5 * difference.abs(),
                "{what}: parameter {parameter}, element {element}: gradient {}, difference {difference}",
                gradient[element]
            );
            compared += 1;
            nonzero += usize::from(difference.abs() > 1e-8);
        }
    }
    assert!(nonzero * 2 > compared, "{what}: only {nonzero} of {compared} derivatives are not zero");
}

fn config(hidden_act: Activation) -> BertConfig {
    BertConfig {
        vocab_size: 13,
        hidden_size: 6,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 9,
        max_position_embeddings: 7,
        hidden_act,
        // Large, so that every term contributes.
        initializer_range: 0.5,
        ..BertConfig::default()
    }
    .without_dropout()
    .with_labels(&["a", "b", "c"])
}

fn model<M: Pretrained>(hidden_act: Activation) -> M {
    M::init_seeded(&config(hidden_act), 3, &Device::flex())
}

fn input() -> BertInput {
    let device = Device::flex();
    BertInput {
        first_position: 0,
        input_ids: Tensor::from_data([[2, 5, 7, 12, 3], [2, 9, 3, 0, 0]], &device),
        token_type_ids: Tensor::from_data([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], &device),
        attention_mask: Tensor::<2, Int>::from_data([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], &device).equal_elem(1),
    }
}

fn integers<const N: usize>(values: [i32; N]) -> Tensor<1, Int> {
    Tensor::from_data(values, &Device::flex())
}

/// A weighted sum of all elements, with a different weight for each.
fn mixture<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.shape().num_elements();
    let weights: Vec<f64> = (0..count).map(|i| (i as f64 * 0.7).sin()).collect();
    let weights = Tensor::<1>::from_data(TensorData::new(weights, [count]), (&x.device(), DType::F64));
    (x.reshape([count]) * weights).sum()
}

#[test]
fn encoder_and_pooler_with_every_activation() {
    for activation in [Activation::Gelu, Activation::GeluNew, Activation::Silu, Activation::Tanh, Activation::Relu] {
        check(&format!("{activation:?}"), model::<BertModel>(activation), |bert| {
            let output = bert.forward(input());
            mixture(output.last_hidden_state) + mixture(output.pooler_output.unwrap())
        });
    }
}

#[test]
fn pretraining_heads_and_their_losses() {
    check("BertForPreTraining", model::<BertForPreTraining>(Activation::Gelu), |bert| {
        let (mlm, nsp) = bert.forward(input(), integers([1, 3, 6]));
        cross_entropy(mlm, integers([4, 0, 12])).mean() + cross_entropy(nsp, integers([0, 1])).mean()
    });
    check("BertForMaskedLM", model::<BertForMaskedLM>(Activation::Gelu), |bert| {
        mixture(bert.forward(input(), integers([1, 3, 6])))
    });
    check("BertForNextSentencePrediction", model::<BertForNextSentencePrediction>(Activation::Gelu), |bert| {
        mixture(bert.forward(input()))
    });
}

#[test]
fn task_heads_and_their_losses() {
    check("classification", model::<BertForSequenceClassification>(Activation::Gelu), |bert| {
        cross_entropy(bert.forward(input()), integers([2, 0])).mean()
    });
    check("multi-label", model::<BertForSequenceClassification>(Activation::Gelu), |bert| {
        let targets = TensorData::from([[1.0_f64, 0.0, 1.0], [0.0, 0.0, 1.0]]);
        binary_cross_entropy(bert.forward(input()), Tensor::from_data(targets, (&Device::flex(), DType::F64))).mean()
    });
    check("regression", model::<BertForSequenceClassification>(Activation::Gelu), |bert| {
        let values = bert.forward(input()).slice_dim(1, 0..1).squeeze_dim::<1>(1);
        let targets = Tensor::from_data(TensorData::from([1.5_f64, -0.5]), (&Device::flex(), DType::F64));
        squared_error(values, targets).mean()
    });
    check("tagging", model::<BertForTokenClassification>(Activation::Gelu), |bert| mixture(bert.forward(input())));
    check("question answering", model::<BertForQuestionAnswering>(Activation::Gelu), |bert| {
        let (start, end) = bert.forward(input());
        (cross_entropy(start, integers([1, 2])).mean() + cross_entropy(end, integers([3, 2])).mean()) / 2.0
    });
    check("multiple choice", model::<BertForMultipleChoice>(Activation::Gelu), |bert| {
        cross_entropy(bert.forward(input(), 2), integers([1])).mean()
    });
}
