//! Hidden states, attention maps, and the logits and losses of every head.

use bert_model::model::loss::{binary_cross_entropy, cross_entropy, squared_error};
use bert_model::pipeline::Precision;
use bert_model::pretrained::load_weights;
use bert_model::pretrained::weights::Weights;
use bert_model::{
    BertConfig, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertInput, Pretrained, load,
};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::support::{assert_close, bound_on, devices, golden, read_golden};
use crate::{Goldens, floats, input, integers, labeled};

/// The largest difference from transformers.
const BOUND: f32 = 1e-4;

#[test]
fn hidden_states_attention_maps_and_pretraining_heads() {
    for (backend, device) in devices() {
        for name in ["gelu-odd", "relu-types", "gelu-new-one-head", "silu-untied", "tanh"] {
            let directory = golden("models").join(name);
            let loaded = load::<BertForPreTraining>(&directory, &device).unwrap();
            assert!(loaded.initialized.is_empty() && loaded.unused.is_empty(), "{name}: {:?}", loaded.unused);
            let expected = read_golden(&directory.join("expected.safetensors"));
            let input = input(&expected, "", &device);
            let trace = loaded.model.bert.trace(input.clone());
            let mut worst: f32 = 0.0;
            let mut compare = |what: &str, found: Vec<f32>| {
                let (place, bound) = (format!("{name} on {backend}: {what}"), bound_on(backend, what, BOUND));
                worst = worst.max(assert_close(&place, &found, &expected[what].floats, bound));
            };
            for (layer, state) in trace.hidden_states.into_iter().enumerate() {
                compare(&format!("hidden_states.{layer}"), floats(state));
            }
            for (layer, attention) in trace.attentions.into_iter().enumerate() {
                compare(&format!("attentions.{layer}"), floats(attention));
            }
            compare("pooler_output", floats(trace.pooler_output.unwrap()));
            let positions = every_position(&input, &device);
            let (mlm, nsp) = loaded.model.forward(input, positions);
            compare("mlm_logits", floats(mlm));
            compare("nsp_logits", floats(nsp));
            println!("{name} on {backend}: largest difference {worst:.1e}");
        }
    }
}

/// Encoders in every precision that a device has: `f32` as close as ever, `bf16` with eight bits and 8-bit integers
/// with seven for each operand. These models of few channels and random weights are the hardest: in a wide one, the
/// roundings of a sum cancel out.
#[test]
fn hidden_states_in_every_precision() {
    let bounds = [(Precision::F32, BOUND), (Precision::Bf16, 0.1), (Precision::Int8, 0.5)];
    for (backend, device) in devices() {
        for name in ["gelu-odd", "relu-types", "gelu-new-one-head", "silu-untied", "tanh"] {
            let directory = golden("models").join(name);
            let expected = read_golden(&directory.join("expected.safetensors"));
            let input = input(&expected, "", &device);
            for (precision, bound) in bounds.into_iter().filter(|(precision, _)| precision.check(&device).is_ok()) {
                let mut model = load::<BertForPreTraining>(&directory, &device).unwrap().model;
                model.encoder_mut().pack(precision);
                let trace = model.bert.trace(input.clone());
                let mut worst: f32 = 0.0;
                for (what, found) in [
                    ("last_hidden_state", floats(model.bert.encode(input.clone()))),
                    ("attentions.0", floats(trace.attentions[0].clone())),
                    ("pooler_output", floats(trace.pooler_output.unwrap())),
                ] {
                    let last = format!("hidden_states.{}", trace.attentions.len());
                    let expected = &expected[if what == "last_hidden_state" { &last } else { what }].floats;
                    let place = format!("{name} in {precision} on {backend}: {what}");
                    worst = worst.max(assert_close(&place, &found, expected, bound_on(backend, what, bound)));
                }
                assert!(precision == Precision::F32 || worst > BOUND, "{name}: {precision} computes in f32");
                println!("{name} in {precision} on {backend}: largest difference {worst:.1e}");
            }
        }
    }
}

/// A model with a head, from its golden files; its configuration and its expected outputs.
fn load_head<M: Pretrained>(base: &str, name: &str, device: &Device) -> (M, BertConfig, Goldens) {
    let directory = golden("models").join(base).join("heads");
    let config = BertConfig::from_file(directory.join(format!("{name}.config.json"))).unwrap();
    let weights = Weights::safetensors(&directory.join(format!("{name}.safetensors"))).unwrap();
    let loaded = load_weights::<M>(&weights, config, device).unwrap();
    assert!(
        loaded.initialized.is_empty() && loaded.unused.is_empty(),
        "{name}: {:?} {:?}",
        loaded.initialized,
        loaded.unused
    );
    (loaded.model, loaded.config, read_golden(&directory.join(format!("{name}.expected.safetensors"))))
}

/// Compares logits and loss with the goldens.
fn assert_outputs(name: &str, backend: &str, logits: Vec<f32>, loss: Tensor<1>, expected: &Goldens) {
    assert_close(&format!("{name} on {backend}: logits"), &logits, &expected["logits"].floats, BOUND);
    assert_close(&format!("{name} on {backend}: loss"), &floats(loss), &expected["loss"].floats, BOUND);
}

#[test]
fn task_heads() {
    for (backend, device) in devices() {
        for base in ["gelu-odd", "silu-untied"] {
            sequence_heads(base, backend, &device);
            token_span_and_choice_heads(base, backend, &device);
            pretraining_heads(base, backend, &device);
        }
    }
}

/// Heads with one or several labels or a value for the whole text.
fn sequence_heads(base: &str, backend: &str, device: &Device) {
    let (model, _, expected) =
        load_head::<BertForSequenceClassification>(base, "BertForSequenceClassification", device);
    let logits = model.forward(input(&expected, "", device));
    let loss = cross_entropy(logits.clone(), integers(&expected["labels"], device)).mean();
    assert_outputs("classification", backend, floats(logits), loss, &expected);

    let name = "BertForSequenceClassification-regression";
    let (model, config, expected) = load_head::<BertForSequenceClassification>(base, name, device);
    assert_eq!(config.num_labels(), 1);
    let logits = model.forward(input(&expected, "", device));
    let targets = Tensor::<1>::from_data(&expected["labels"].floats[..], device);
    let loss = squared_error(logits.clone().squeeze_dim(1), targets).mean();
    assert_outputs("regression", backend, floats(logits), loss, &expected);

    let name = "BertForSequenceClassification-multi_label";
    let (model, _, expected) = load_head::<BertForSequenceClassification>(base, name, device);
    let logits = model.forward(input(&expected, "", device));
    let labels = &expected["labels"];
    let targets = TensorData::new(labels.floats.clone(), labels.dims::<2>());
    let loss = binary_cross_entropy(logits.clone(), Tensor::from_data(targets, device)).mean();
    assert_outputs("multi-label", backend, floats(logits), loss, &expected);
}

/// Heads on tokens, spans and choices.
fn token_span_and_choice_heads(base: &str, backend: &str, device: &Device) {
    let (model, _, expected) = load_head::<BertForTokenClassification>(base, "BertForTokenClassification", device);
    let logits = model.forward(input(&expected, "", device));
    let labeled = labeled(&expected["labels"]);
    let rows = logits.clone().flatten::<2>(0, 1).select(0, Tensor::from_data(&labeled.0[..], device));
    let loss = cross_entropy(rows, Tensor::from_data(&labeled.1[..], device)).mean();
    assert_outputs("tagging", backend, floats(logits), loss, &expected);

    let (model, _, expected) = load_head::<BertForQuestionAnswering>(base, "BertForQuestionAnswering", device);
    let (start, end) = model.forward(input(&expected, "", device));
    assert_close("start", &floats(start.clone()), &expected["start_logits"].floats, BOUND);
    assert_close("end", &floats(end.clone()), &expected["end_logits"].floats, BOUND);
    let target = |name: &str| integers::<1>(&expected[name], device);
    let loss = (cross_entropy(start, target("start_positions")).mean()
        + cross_entropy(end, target("end_positions")).mean())
        / 2.0;
    assert_close("question answering: loss", &floats(loss), &expected["loss"].floats, BOUND);

    let (model, _, expected) = load_head::<BertForMultipleChoice>(base, "BertForMultipleChoice", device);
    let choices = expected["input_ids"].shape[1];
    let logits = model.forward(input(&expected, "", device), choices);
    let loss = cross_entropy(logits.clone(), integers(&expected["labels"], device)).mean();
    assert_outputs("multiple choice", backend, floats(logits), loss, &expected);
}

/// The two pretraining heads, each by itself.
fn pretraining_heads(base: &str, backend: &str, device: &Device) {
    let (model, _, expected) = load_head::<BertForMaskedLM>(base, "BertForMaskedLM", device);
    let input_ids = input(&expected, "", device);
    let positions = every_position(&input_ids, device);
    assert_close("masked LM", &floats(model.forward(input_ids, positions)), &expected["logits"].floats, BOUND);

    let (model, _, expected) =
        load_head::<BertForNextSentencePrediction>(base, "BertForNextSentencePrediction", device);
    let logits = model.forward(input(&expected, "", device));
    let loss = cross_entropy(logits.clone(), integers(&expected["labels"], device)).mean();
    assert_outputs("next sentence", backend, floats(logits), loss, &expected);
}

/// The flat positions of all tokens of a batch, for heads that take positions.
fn every_position(input: &BertInput, device: &Device) -> Tensor<1, Int> {
    Tensor::arange(0..input.input_ids.shape().num_elements() as i64, device)
}
