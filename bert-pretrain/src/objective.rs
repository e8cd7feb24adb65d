//! The pretraining objective (paper, appendix A.2): the mean cross-entropy of the masked tokens plus that of the
//! next-sentence labels. Also evaluates a model on held-out documents.

use bert_model::model::loss::cross_entropy;
use bert_model::workers::split_evenly;
use bert_model::{BertForPreTraining, Result};
use bert_train::sharing::{decode, encode};
use bert_train::tree::Tree;
use bert_train::{Communicator, Evaluation, Losses, Objective, Patience, cores};
use burn::tensor::{Device, Int, Tensor};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::batch::PretrainingBatch;
use crate::examples::PretrainingExample;
use crate::stream::MicroBatch;

/// The pretraining objective: masked LM and, unless disabled, next-sentence prediction.
#[derive(Debug)]
pub struct Pretraining {
    /// Device on which batches are created.
    pub device: Device,
    /// Id of the padding token.
    pub pad_id: u32,
    /// Whether next-sentence prediction is part of the objective, of batches of segment pairs.
    pub with_nsp: bool,
    /// Held-out examples for evaluation; may be empty.
    pub held_out: Vec<PretrainingExample>,
    /// Examples per evaluation batch.
    pub eval_batch_size: usize,
    /// The latest evaluation, if any.
    pub latest: Option<Metrics>,
}

/// Metrics of a model on both tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Metrics {
    /// Mean cross-entropy of the masked tokens, in nats.
    pub mlm_loss: f64,
    /// Perplexity of the masked tokens, exp(`mlm_loss`).
    pub perplexity: f64,
    /// Fraction of masked tokens for which the original token has the highest score.
    pub mlm_accuracy: f64,
    /// Mean cross-entropy of the next-sentence labels, in nats; omitted without that task, or if all labels are the
    /// same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsp_loss: Option<f64>,
    /// Fraction of next-sentence labels predicted correctly; null without that task, or if all labels are the same,
    /// since a constant answer would be correct.
    pub nsp_accuracy: Option<f64>,
}

impl Objective for Pretraining {
    type Model = BertForPreTraining;
    type Batch = MicroBatch;

    fn split(&self, batch: MicroBatch, parts: usize) -> Vec<MicroBatch> {
        let MicroBatch { examples, masked_in_step, examples_in_step, first_position } = batch;
        let part = |examples| MicroBatch { examples, masked_in_step, examples_in_step, first_position };
        split_evenly(examples, parts).into_iter().map(part).collect()
    }

    fn sequences(&self, batch: &MicroBatch) -> usize {
        batch.examples.len()
    }

    fn loss(&self, model: &BertForPreTraining, batch: MicroBatch) -> Losses {
        let MicroBatch { examples, masked_in_step, examples_in_step, first_position } = batch;
        let batch = PretrainingBatch::new(&examples, self.pad_id, first_position, &self.device);
        let with_nsp = self.with_nsp && examples.iter().all(PretrainingExample::is_pair);
        let masked_mean = |logits| cross_entropy(logits, batch.labels).sum() / masked_in_step.max(1) as f64;
        if !with_nsp {
            let mlm = masked_mean(model.forward_mlm(batch.input, batch.positions));
            return Losses { total: mlm.clone(), parts: vec![("mlm_loss", mlm)] };
        }
        let (mlm_logits, nsp_logits) = model.forward(batch.input, batch.positions);
        let mlm = masked_mean(mlm_logits);
        let nsp = cross_entropy(nsp_logits, batch.is_random).sum() / examples_in_step as f64;
        Losses { total: mlm.clone() + nsp.clone(), parts: vec![("mlm_loss", mlm), ("nsp_loss", nsp)] }
    }

    fn evaluate(
        &mut self,
        model: &BertForPreTraining,
        _step: u64,
        communicator: &dyn Communicator,
    ) -> Result<Evaluation> {
        if self.held_out.is_empty() {
            return Ok(Evaluation::default());
        }
        let evaluation = self.evaluate_held_out(model, communicator)?;
        self.latest = Some(evaluation);
        let metrics = match serde_json::to_value(evaluation) {
            Ok(Value::Object(metrics)) => metrics,
            _ => Map::new(),
        };
        Ok(Evaluation { metrics, stop: false })
    }
}

impl Pretraining {
    /// Creates the objective with both tasks and without evaluation examples.
    pub fn new(device: Device, pad_id: u32, eval_batch_size: usize) -> Self {
        Self { device, pad_id, with_nsp: true, held_out: Vec::new(), eval_batch_size, latest: None }
    }

    /// Evaluates a model (without autodiff) on the held-out examples, of which there must be at
    /// least one. Each rank evaluates a part of them.
    ///
    /// # Errors
    /// If the system cannot create threads, or the connection to other ranks fails.
    pub fn evaluate_held_out(&self, model: &BertForPreTraining, communicator: &dyn Communicator) -> Result<Metrics> {
        let mut scores = Scores::default();
        self.score_held_out(model, communicator, &mut scores)?;
        Ok(scores.metrics())
    }

    /// As [`Pretraining::evaluate_held_out`], adding to the scores of other examples.
    ///
    /// # Errors
    /// As [`Pretraining::evaluate_held_out`].
    pub fn score_held_out(
        &self,
        model: &BertForPreTraining,
        communicator: &dyn Communicator,
        sums: &mut Scores,
    ) -> Result<()> {
        let workers = cores::workers(&self.device, None, communicator)?;
        let batches: Vec<&[PretrainingExample]> = self.held_out.chunks(self.eval_batch_size).collect();
        let own = Tree { leaves: batches.len() }.share(communicator.rank(), communicator.size());
        let work = |batch: &[PretrainingExample]| self.score(model, batch);
        let scores: Vec<[Score; 2]> = match batches.len() {
            1 => batches[own].iter().map(|batch| work(batch)).collect(),
            _ => workers.run_each(batches[own].to_vec(), work),
        };
        let bits: Vec<[u64; 3]> = scores.iter().flatten().map(Score::to_bits).collect();
        // A rank without a batch of its own has to wait for the others, whose batches may take long.
        for bits in communicator.gather(&encode(&bits)?, Patience::Unlimited)? {
            for [mlm_part, nsp_part] in decode::<Vec<[u64; 3]>>(&bits)?.as_chunks::<2>().0 {
                sums.mlm.add(Score::from_bits(*mlm_part));
                sums.nsp.add(Score::from_bits(*nsp_part));
            }
        }
        for example in self.held_out.iter().filter(|_| self.with_nsp) {
            sums.labels[usize::from(example.is_random_next)] = true;
        }
        Ok(())
    }

    /// The sums of both tasks on a batch; nothing is counted for next-sentence prediction if it is disabled.
    fn score(&self, model: &BertForPreTraining, examples: &[PretrainingExample]) -> [Score; 2] {
        let batch = PretrainingBatch::new(examples, self.pad_id, 0, &self.device);
        let (mlm_count, mut nsp_count) = (batch.labels.dims()[0], 0);
        // Read everything at once: on a GPU, each read waits for everything queued before it.
        let values = if self.with_nsp {
            let (mlm_logits, nsp_logits) = model.forward(batch.input, batch.positions);
            nsp_count = nsp_logits.dims()[0];
            let [mlm, nsp] = [scored(mlm_logits, batch.labels), scored(nsp_logits, batch.is_random)];
            Tensor::cat([mlm, nsp].concat(), 0)
        } else {
            Tensor::cat(scored(model.forward_mlm(batch.input, batch.positions), batch.labels).to_vec(), 0)
        };
        let values = values.into_data();
        let mut values = values.iter::<f32>();
        [Score::sum(&mut values, mlm_count), Score::sum(&mut values, nsp_count)]
    }
}

/// The next-sentence label (whether the second segment is random) if all examples have the same one; `None` if there
/// are both labels or no examples.
pub fn only_label(examples: &[PretrainingExample]) -> Option<bool> {
    let first = examples.first()?.is_random_next;
    examples.iter().all(|example| example.is_random_next == first).then_some(first)
}

/// The loss of each row, and 1 if the correct class has the highest score, otherwise 0; both `[N]`.
///
/// Shapes: `logits` `[N, C]`, `labels` `[N]`.
fn scored(logits: Tensor<2>, labels: Tensor<1, Int>) -> [Tensor<1>; 2] {
    let right = logits.clone().argmax(1).squeeze_dim::<1>(1).equal(labels.clone()).float();
    [cross_entropy(logits, labels), right]
}

/// Running sums of the metrics of both tasks.
#[derive(Default)]
pub struct Scores {
    mlm: Score,
    nsp: Score,
    /// Whether there was a pair of consecutive segments, and one with a random second segment.
    labels: [bool; 2],
}

impl Scores {
    /// The means. Next-sentence prediction has none unless there were both labels.
    pub fn metrics(&self) -> Metrics {
        let mlm_loss = self.mlm.mean_loss();
        let judges_nsp = self.labels == [true, true];
        Metrics {
            mlm_loss,
            perplexity: mlm_loss.exp(),
            mlm_accuracy: self.mlm.accuracy(),
            nsp_loss: judges_nsp.then(|| self.nsp.mean_loss()),
            nsp_accuracy: judges_nsp.then(|| self.nsp.accuracy()),
        }
    }

    /// The next-sentence label that all pairs had; `None` if there were both, or no pairs.
    pub fn only_label(&self) -> Option<bool> {
        match self.labels {
            [true, false] => Some(false),
            [false, true] => Some(true),
            _ => None,
        }
    }
}

/// Running sums of one task's metrics.
#[derive(Default)]
struct Score {
    loss: f64,
    right: u64,
    count: u64,
}

impl Score {
    /// The sums of one batch of `count` predictions; `values` contains their losses, followed by 1 or 0 for each
    /// correct or incorrect one.
    fn sum(values: &mut impl Iterator<Item = f32>, count: usize) -> Self {
        let loss = values.take(count).map(f64::from).sum();
        let right = values.take(count).filter(|&right| right == 1.0).count() as u64;
        Self { loss, right, count: count as u64 }
    }

    /// For a message to other ranks, in which a number must keep all bits.
    fn to_bits(&self) -> [u64; 3] {
        [self.loss.to_bits(), self.right, self.count]
    }

    fn from_bits([loss, right, count]: [u64; 3]) -> Self {
        Self { loss: f64::from_bits(loss), right, count }
    }

    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.right += other.right;
        self.count += other.count;
    }

    fn mean_loss(&self) -> f64 {
        self.loss / self.count as f64
    }

    fn accuracy(&self) -> f64 {
        self.right as f64 / self.count as f64
    }
}

#[cfg(test)]
mod tests {
    use bert_model::{BertConfig, Pretrained};
    use bert_train::Solo;

    use super::*;
    use crate::masking::MaskedToken;

    fn model() -> BertForPreTraining {
        let config = BertConfig {
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 16,
            ..BertConfig::default()
        };
        BertForPreTraining::init_seeded(&config.with_vocab_size(20).without_dropout(), 1, &Device::flex())
    }

    fn examples() -> Vec<PretrainingExample> {
        let example = |number: usize| PretrainingExample {
            ids: vec![2, 5, 4, 3, 6 + number as u32, 3],
            first_segment: 4,
            is_random_next: number.is_multiple_of(2),
            masked: (0..1 + number % 3).map(|place| MaskedToken { position: 1 + place, id: 7 }).collect(),
        };
        (0..6).map(example).collect()
    }

    fn task(with_nsp: bool, eval_batch_size: usize) -> Pretraining {
        let task = Pretraining::new(Device::flex(), 0, eval_batch_size);
        Pretraining { with_nsp, held_out: examples(), ..task }
    }

    fn number(tensor: &Tensor<1>) -> f64 {
        tensor.clone().into_data().iter::<f64>().next().unwrap()
    }

    #[test]
    fn the_losses_of_micro_batches_add_up_to_that_of_the_step() {
        let (task, model) = (task(true, 4), model());
        let loss = |batch_size| -> Vec<f64> {
            let batches = MicroBatch::split_step(examples(), batch_size, 0);
            let losses: Vec<Losses> = batches.into_iter().map(|batch| task.loss(&model, batch)).collect();
            let sum = |of: &dyn Fn(&Losses) -> f64| losses.iter().map(of).sum();
            vec![sum(&|it| number(&it.total)), sum(&|it| number(&it.parts[0].1)), sum(&|it| number(&it.parts[1].1))]
        };
        let whole = loss(6);
        assert!((whole[0] - whole[1] - whole[2]).abs() < 1e-5, "{whole:?}");
        for batch_size in [1, 2, 4] {
            let parts = loss(batch_size);
            assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-5), "{whole:?} and {parts:?}");
        }
    }

    #[test]
    fn without_next_sentences_the_loss_is_that_of_the_masked_tokens() {
        let model = model();
        let losses = |with_nsp| task(with_nsp, 4).loss(&model, MicroBatch::split_step(examples(), 6, 0).remove(0));
        let (both, alone) = (losses(true), losses(false));
        assert_eq!((both.parts.len(), alone.parts.len()), (2, 1));
        assert_eq!(number(&alone.total), number(&both.parts[0].1));
        let evaluation = task(false, 4).evaluate_held_out(&model, &Solo).unwrap();
        assert_eq!((evaluation.nsp_loss, evaluation.nsp_accuracy), (None, None));
    }

    #[test]
    fn an_evaluation_is_the_same_in_batches_of_any_size_and_what_the_loss_is() {
        let model = model();
        let whole = task(true, 6).evaluate_held_out(&model, &Solo).unwrap();
        let parts = task(true, 1).evaluate_held_out(&model, &Solo).unwrap();
        assert!((whole.mlm_loss - parts.mlm_loss).abs() < 1e-5);
        assert!((whole.perplexity - whole.mlm_loss.exp()).abs() < 1e-9);
        assert_eq!((whole.mlm_accuracy, whole.nsp_accuracy), (parts.mlm_accuracy, parts.nsp_accuracy));
        // A corpus that is too large for memory is scored in parts.
        let mut scores = Scores::default();
        for held_out in [examples()[..4].to_vec(), examples()[4..].to_vec()] {
            Pretraining { held_out, ..task(true, 1) }.score_held_out(&model, &Solo, &mut scores).unwrap();
        }
        assert_eq!(scores.metrics(), parts);
        let losses = task(true, 6).loss(&model, MicroBatch::split_step(examples(), 6, 0).remove(0));
        assert!((number(&losses.parts[0].1) - whole.mlm_loss).abs() < 1e-5);
        assert!((number(&losses.parts[1].1) - whole.nsp_loss.unwrap()).abs() < 1e-5);
    }

    #[test]
    fn held_out_pairs_of_one_label_have_no_accuracy() {
        let model = model();
        for is_random_next in [false, true] {
            let held_out =
                examples().into_iter().map(|example| PretrainingExample { is_random_next, ..example }).collect();
            let evaluation = Pretraining { held_out, ..task(true, 4) }.evaluate_held_out(&model, &Solo).unwrap();
            assert_eq!((evaluation.nsp_loss, evaluation.nsp_accuracy), (None, None));
        }
    }

    #[test]
    fn without_held_out_examples_there_is_nothing_to_tell() {
        let mut task = Pretraining::new(Device::flex(), 0, 4);
        assert!(task.evaluate(&model(), 1, &Solo).unwrap().metrics.is_empty() && task.latest.is_none());
    }
}
