//! Collates training examples into tensors: padded input, positions of masked tokens, labels.

use bert_model::BertInput;
use bert_model::text::{Sequence, collate};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::examples::PretrainingExample;

/// A batch of training examples on the device.
#[derive(Debug)]
pub struct PretrainingBatch {
    /// The padded input, `[B, T]`.
    pub input: BertInput,
    /// Flat positions `b·T + t` of the masked tokens, `[M]`.
    pub positions: Tensor<1, Int>,
    /// Original ids of the masked tokens, `[M]`.
    pub labels: Tensor<1, Int>,
    /// Next-sentence labels `[B]`: 1 if the second segment is random, otherwise 0.
    pub is_random: Tensor<1, Int>,
}

impl PretrainingBatch {
    /// Collates examples into a batch, padded to the longest, whose tokens have the positions from `first_position` on.
    pub fn new(examples: &[PretrainingExample], pad_id: u32, first_position: usize, device: &Device) -> Self {
        let sequences: Vec<Sequence> = examples.iter().map(sequence).collect();
        let input = BertInput { first_position, ..collate(&sequences.iter().collect::<Vec<_>>(), pad_id, device) };
        let [_, tokens] = input.input_ids.dims();
        let masked = || {
            let rows = examples.iter().enumerate();
            rows.flat_map(|(row, example)| example.masked.iter().map(move |token| (row, token)))
        };
        Self {
            input,
            positions: integers(masked().map(|(row, token)| (row * tokens + token.position) as i32), device),
            labels: integers(masked().map(|(_, token)| token.id as i32), device),
            is_random: integers(examples.iter().map(|example| i32::from(example.is_random_next)), device),
        }
    }
}

fn sequence(example: &PretrainingExample) -> Sequence {
    let types = (0..example.ids.len()).map(|t| u8::from(t >= example.first_segment)).collect();
    Sequence { ids: example.ids.clone(), types }
}

fn integers(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masking::MaskedToken;

    #[test]
    fn positions_point_into_the_flattened_batch() {
        let example = |ids: Vec<u32>, position, id| PretrainingExample {
            ids,
            first_segment: 2,
            is_random_next: position == 1,
            masked: vec![MaskedToken { position, id }],
        };
        let examples = [example(vec![2, 4, 3], 1, 70), example(vec![2, 8, 9, 4, 3], 3, 71)];
        let batch = PretrainingBatch::new(&examples, 0, 0, &Device::flex());
        batch.positions.into_data().assert_eq(&TensorData::from([1, 8]), false);
        batch.labels.into_data().assert_eq(&TensorData::from([70, 71]), false);
        batch.is_random.into_data().assert_eq(&TensorData::from([1, 0]), false);
        batch.input.token_type_ids.into_data().assert_eq(&TensorData::from([[0, 0, 1, 0, 0], [0, 0, 1, 1, 1]]), false);
    }
}
