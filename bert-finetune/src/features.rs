//! The input of the heads: the encoder's hidden states. They are computed at every step or, if the encoder is frozen,
//! once for each text (feature-based BERT; Devlin et al. 2018, §5.3).

use std::sync::Arc;

use bert_model::pipeline::{HeadProcessor, Processor, by_batches, check_fit, longest};
use bert_model::text::{Sequence, collate};
use bert_model::workers::BATCH_TOKENS;
use bert_model::{BertConfig, Result, Workers};
use burn::tensor::{Device, Tensor, TensorData};

use crate::meter::Meter;
use crate::tasks::{InputOf, ModelOf, OutputsOf, Task};

/// The hidden states that the head reads from each sequence of an input: H numbers for `[CLS]`, or for every token.
pub type Features = Vec<Arc<[f32]>>;

/// Tokenized examples.
pub struct Encoded<T: Task> {
    /// The inputs of each example.
    pub inputs: Vec<Vec<InputOf<T>>>,
    /// Index and length in tokens of each example that was truncated.
    pub truncated: Vec<(usize, usize)>,
    /// Number of workers; `None` for one per core. Batches, and so the last digits of outputs, depend on it.
    workers: Option<usize>,
    /// Progress display of [`Encoded::score`].
    meter: Option<Meter>,
    /// The expected output for each input, in example order.
    targets: Vec<T::Target>,
    /// The hidden states of each input, in example order; `None` if the encoder has not run on it.
    features: Vec<Option<Features>>,
}

/// One tokenized input.
pub struct Item<'a, T: Task> {
    /// The tokens.
    pub input: &'a InputOf<T>,
    /// The expected output.
    pub target: &'a T::Target,
    /// The hidden states, if the encoder is frozen.
    pub features: Option<&'a Features>,
}

impl<T: Task> Clone for Item<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Task> Copy for Item<'_, T> {}

impl<T: Task> Item<'_, T> {
    /// Length in tokens of the input's longest sequence.
    pub fn tokens(&self) -> usize {
        longest::<T::Processor>(self.input)
    }
}

impl<T: Task> Encoded<T> {
    /// Tokenizes examples for a model with this configuration.
    ///
    /// # Errors
    /// If a text cannot be tokenized, or the model does not accept the result.
    pub fn new(task: &T, examples: &[T::Example], config: &BertConfig) -> Result<Self> {
        let count = || task.processor().tokenizer().truncated_count();
        let (mut inputs, mut truncated) = (Vec::<Vec<InputOf<T>>>::with_capacity(examples.len()), Vec::new());
        for (index, example) in examples.iter().enumerate() {
            let before = count();
            let own = task.processor().preprocess(&task.request(example))?;
            if count() > before {
                truncated.push((index, own.iter().map(longest::<T::Processor>).max().unwrap_or(0)));
            }
            inputs.push(own);
        }
        check_fit::<T::Processor>(&inputs.iter().flatten().collect::<Vec<_>>(), config)?;
        let targets = examples.iter().zip(&inputs).flat_map(|(example, inputs)| task.targets(example, inputs));
        let targets: Vec<T::Target> = targets.collect();
        let features = vec![None; targets.len()];
        Ok(Self { inputs, truncated, workers: None, meter: None, targets, features })
    }

    /// Adds a progress display on stderr for [`Encoded::score`], unless `quiet`.
    pub fn with_progress(self, what: &str, quiet: bool) -> Self {
        let meter = Meter::new(what, Some(self.targets.len() as u64), quiet);
        Self { meter: Some(meter), ..self }
    }

    /// Sets the number of workers, so that outputs are the same on every machine.
    pub fn with_workers(self, workers: Option<usize>) -> Self {
        Self { workers, ..self }
    }

    fn workers(&self, device: &Device) -> Result<Workers> {
        self.workers.map_or_else(|| Workers::for_device(device), |count| Workers::new(device, count))
    }

    /// All inputs, in example order.
    pub fn items(&self) -> Vec<Item<'_, T>> {
        let inputs = self.inputs.iter().flatten().zip(&self.targets).zip(&self.features);
        inputs.map(|((input, target), features)| Item { input, target, features: features.as_ref() }).collect()
    }

    /// Runs the encoder of `model` (without autodiff) over all inputs and stores what the head reads.
    ///
    /// # Errors
    /// If the system cannot create threads.
    pub fn run_encoder(&mut self, task: &T, model: &ModelOf<T>, device: &Device) -> Result<()> {
        let found = for_each_input(&self.items(), &self.workers(device)?, |items| {
            let hidden = hidden_states(task, model, items, device);
            let [_, tokens, width] = hidden.dims();
            let values: Vec<f32> = hidden.into_data().iter::<f32>().collect();
            let mut rows = values.chunks(tokens * width);
            let mut features = |item: &Item<T>| {
                let kept = |sequence: &Sequence| match T::Processor::READS_CLS_ONLY {
                    true => 1,
                    false => sequence.len(),
                };
                let own = T::Processor::sequences(item.input).iter().zip(rows.by_ref());
                own.map(|(sequence, row)| Arc::from(&row[..kept(sequence) * width])).collect::<Features>()
            };
            items.iter().map(&mut features).collect()
        });
        self.features = found.into_iter().map(Some).collect();
        Ok(())
    }

    /// Runs the model (without autodiff) over all inputs. Returns the head's outputs for each input of each example.
    ///
    /// # Errors
    /// If the system cannot create threads.
    pub fn score(&self, task: &T, model: &ModelOf<T>, device: &Device) -> Result<OutputsOf<T>> {
        let outputs = for_each_input(&self.items(), &self.workers(device)?, |items| {
            let hidden = hidden_states(task, model, items, device);
            let inputs: Vec<&InputOf<T>> = items.iter().map(|item| item.input).collect();
            let outputs = task.processor().head(model, hidden, &inputs);
            self.meter.iter().for_each(|meter| meter.add(items.len() as u64));
            outputs
        });
        self.meter.iter().for_each(Meter::finish);
        let mut outputs = outputs.into_iter();
        Ok(self.inputs.iter().map(|inputs| outputs.by_ref().take(inputs.len()).collect()).collect())
    }
}

/// The hidden states of the last layer for the items' sequences, `[S, T, H]`. S exceeds the number of items if items
/// have several sequences.
pub fn hidden_states<T: Task>(task: &T, model: &ModelOf<T>, items: &[Item<T>], device: &Device) -> Tensor<3> {
    let bert = T::Processor::bert(model);
    let kept: Option<Vec<&Features>> = items.iter().map(|item| item.features).collect();
    match kept {
        Some(kept) => {
            let [_, width] = bert.embeddings.position.weight.dims();
            stack(&kept.into_iter().flatten().collect::<Vec<_>>(), width, device)
        }
        None => {
            let sequences: Vec<&Sequence> = items.iter().flat_map(|item| T::Processor::sequences(item.input)).collect();
            bert.encode(collate(&sequences, task.processor().tokenizer().special().pad, device))
        }
    }
}

/// Stacks rows of different lengths to `[S, T, H]`, padded with zeros.
fn stack(rows: &[&Arc<[f32]>], width: usize, device: &Device) -> Tensor<3> {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(width);
    let mut values = Vec::with_capacity(rows.len() * longest);
    for row in rows {
        values.extend_from_slice(row);
        values.resize(values.len() + longest - row.len(), 0.0);
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), longest / width, width]), device)
}

/// Applies `work` to batches of inputs of similar lengths, distributed over the cores. Returns one result per input, in
/// input order.
fn for_each_input<T: Task, R: Send>(
    items: &[Item<T>],
    workers: &Workers,
    work: impl Fn(&[Item<T>]) -> Vec<R> + Sync,
) -> Vec<R> {
    let inputs: Vec<&InputOf<T>> = items.iter().map(|item| item.input).collect();
    by_batches::<T::Processor, R>(&inputs, (workers, BATCH_TOKENS), |batch| {
        let chosen: Vec<Item<T>> = batch.iter().map(|&index| items[index]).collect();
        work(&chosen)
    })
}
