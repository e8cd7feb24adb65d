//! Promise: the same numbers as transformers, on every backend: hidden states, attention maps, heads, losses, training.
//!
//! The goldens are written by `tests/golden/make_model_goldens.py`.

mod operations;
mod outputs;
#[path = "../support/mod.rs"]
mod support;
mod training;

use std::collections::BTreeMap;

use bert_model::BertInput;
use burn::tensor::{Device, Int, Tensor, TensorData};
use support::Golden;

/// The tensors of a golden file.
type Goldens = BTreeMap<String, Golden>;

/// A golden tensor of integers.
fn integers<const D: usize>(golden: &Golden, device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(golden.as_i32(), golden.dims::<D>()), device)
}

/// The inputs of a golden file; `suffix` is "" or `.STEP` for a training step.
fn input(goldens: &Goldens, suffix: &str, device: &Device) -> BertInput {
    let matrix = |name: &str| {
        let golden = &goldens[&format!("{name}{suffix}")];
        let tokens = *golden.shape.last().unwrap();
        let flat = Golden { shape: vec![golden.integers.len() / tokens, tokens], ..golden.clone() };
        integers::<2>(&flat, device)
    };
    BertInput {
        first_position: 0,
        input_ids: matrix("input_ids"),
        token_type_ids: matrix("token_type_ids"),
        attention_mask: matrix("attention_mask").equal_elem(1),
    }
}

/// The values of a tensor.
fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The flat positions that have a label, and their labels.
fn labeled(labels: &Golden) -> (Vec<i32>, Vec<i32>) {
    let wanted = labels.as_i32().into_iter().enumerate().filter(|(_, label)| *label != -100);
    wanted.map(|(position, label)| (position as i32, label)).unzip()
}
