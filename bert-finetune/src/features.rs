//! What the heads read: the encoder's hidden states, computed at every step, or, where the encoder is frozen, once for
//! each text (BERT as a source of features: paper, section 5.3).

use std::sync::Arc;

use bert_model::Result;
use bert_model::Workers;
use bert_model::text::{Sequence, collate};
use burn::tensor::{Device, Tensor, TensorData};

use crate::tasks::Task;

/// The hidden states of each sequence of an input that the head reads: H numbers for `[CLS]`, or for every token.
pub type Features = Vec<Arc<[f32]>>;

/// Examples as the model sees them.
pub struct Encoded<T: Task> {
    /// The inputs of each example.
    pub inputs: Vec<Vec<T::Input>>,
    /// Of every input, example after example; none where the encoder has yet to run.
    features: Vec<Option<Features>>,
}

/// One input.
#[derive(Debug)]
pub struct Item<'a, I> {
    /// Its tokens.
    pub input: &'a I,
    /// Its hidden states, if the encoder is frozen.
    pub features: Option<&'a Features>,
}

impl<I> Clone for Item<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Item<'_, I> {}

impl<T: Task> Encoded<T> {
    /// Tokenizes examples.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn new(task: &T, examples: &[T::Example]) -> Result<Self> {
        let inputs: Vec<Vec<T::Input>> = examples.iter().map(|example| task.encode(example)).collect::<Result<_>>()?;
        let features = vec![None; inputs.iter().map(Vec::len).sum()];
        Ok(Self { inputs, features })
    }

    /// All inputs, example after example.
    pub fn items(&self) -> Vec<Item<'_, T::Input>> {
        let features = self.features.iter().map(Option::as_ref);
        self.inputs.iter().flatten().zip(features).map(|(input, features)| Item { input, features }).collect()
    }

    /// Runs the encoder of `model` (without autodiff) over all inputs and keeps what the head reads.
    ///
    /// # Errors
    /// If the system refuses threads.
    pub fn run_encoder(&mut self, task: &T, model: &T::Model, device: &Device) -> Result<()> {
        let found = for_each_input(task, &self.items(), device, |items| {
            let hidden = hidden_states(task, model, items, device);
            let [_, tokens, width] = hidden.dims();
            let values: Vec<f32> = hidden.into_data().iter::<f32>().collect();
            let mut rows = values.chunks(tokens * width);
            let mut features = |item: &Item<T::Input>| {
                let kept = |sequence: &Sequence| if T::READS_CLS_ALONE { 1 } else { sequence.len() };
                let own = task.sequences(item.input).into_iter().zip(rows.by_ref());
                own.map(|(sequence, row)| Arc::from(&row[..kept(sequence) * width])).collect::<Features>()
            };
            items.iter().map(&mut features).collect()
        })?;
        self.features = found.into_iter().map(Some).collect();
        Ok(())
    }
}

/// The last layer's hidden states of the items' sequences, `[S, T, H]`; S is larger than the number of items if they
/// have several sequences.
pub fn hidden_states<T: Task>(task: &T, model: &T::Model, items: &[Item<T::Input>], device: &Device) -> Tensor<3> {
    let bert = task.bert(model);
    let kept: Option<Vec<&Features>> = items.iter().map(|item| item.features).collect();
    match kept {
        Some(kept) => {
            let [_, width] = bert.embeddings.position.weight.dims();
            stack(&kept.into_iter().flatten().collect::<Vec<_>>(), width, device)
        }
        None => {
            let sequences: Vec<&Sequence> = items.iter().flat_map(|item| task.sequences(item.input)).collect();
            bert.encode(collate(&sequences, task.pad_id(), device))
        }
    }
}

/// Rows of different lengths as `[S, T, H]`, filled up with zeros.
fn stack(rows: &[&Arc<[f32]>], width: usize, device: &Device) -> Tensor<3> {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(width);
    let mut values = Vec::with_capacity(rows.len() * longest);
    for row in rows {
        values.extend_from_slice(row);
        values.resize(values.len() + longest - row.len(), 0.0);
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), longest / width, width]), device)
}

/// Applies `work` to batches of inputs of like lengths, spread over the cores; one result for each input, in their order.
///
/// # Errors
/// If the system refuses threads.
pub fn for_each_input<T: Task, R: Send>(
    task: &T,
    items: &[Item<T::Input>],
    device: &Device,
    work: impl Fn(&[Item<T::Input>]) -> Vec<R> + Sync,
) -> Result<Vec<R>> {
    let lengths: Vec<usize> = items.iter().map(|item| task.tokens(item.input)).collect();
    Ok(Workers::for_device(device)?.run_by_length(&lengths, |batch| {
        let chosen: Vec<Item<T::Input>> = batch.iter().map(|&index| items[index]).collect();
        work(&chosen)
    }))
}
