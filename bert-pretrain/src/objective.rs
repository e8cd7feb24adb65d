//! What pretraining minimizes (paper, appendix A.2): the mean cross-entropy of the hidden words plus that of the
//! next-sentence labels; and how it is judged on held-out documents.

use bert_model::model::loss::cross_entropy;
use bert_model::workers::{Workers, split_evenly};
use bert_model::{BertForPreTraining, Result};
use bert_train::{Losses, Objective};
use burn::tensor::{Device, Int, Tensor};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::batch::PretrainingBatch;
use crate::examples::PretrainingExample;
use crate::stream::MicroBatch;

/// Masked LM and, unless switched off, next-sentence prediction.
#[derive(Debug)]
pub struct Pretraining {
    /// Where the tensors are made.
    pub device: Device,
    /// Fills batches up.
    pub pad_id: u32,
    /// Whether the second task takes part.
    pub with_nsp: bool,
    /// Judges the model; may be empty.
    pub held_out: Vec<PretrainingExample>,
    /// Examples of a batch of the evaluation.
    pub eval_batch_size: usize,
    /// The last evaluation, if there was one.
    pub latest: Option<Evaluation>,
}

/// How well a model does both tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean cross-entropy of the hidden words, in nats.
    pub mlm_loss: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Share of the hidden words for which the right one has the highest score.
    pub mlm_accuracy: f64,
    /// Mean cross-entropy of the next-sentence labels, in nats; absent without that task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsp_loss: Option<f64>,
    /// Share of right next-sentence labels; null without that task.
    pub nsp_accuracy: Option<f64>,
}

impl Objective for Pretraining {
    type Model = BertForPreTraining;
    type Batch = MicroBatch;

    fn split(&self, batch: MicroBatch, parts: usize) -> Vec<MicroBatch> {
        let MicroBatch { examples, masked_in_step, examples_in_step } = batch;
        let part = |examples| MicroBatch { examples, masked_in_step, examples_in_step };
        split_evenly(examples, parts).into_iter().map(part).collect()
    }

    fn loss(&self, model: &BertForPreTraining, batch: MicroBatch) -> Losses {
        let MicroBatch { examples, masked_in_step, examples_in_step } = batch;
        let batch = PretrainingBatch::new(&examples, self.pad_id, &self.device);
        let (mlm_logits, nsp_logits) = model.forward(batch.input, batch.positions);
        let mlm = cross_entropy(mlm_logits, batch.labels).sum() / masked_in_step.max(1) as f64;
        if !self.with_nsp {
            return Losses { total: mlm.clone(), parts: vec![("mlm_loss", mlm)] };
        }
        let nsp = cross_entropy(nsp_logits, batch.is_random).sum() / examples_in_step as f64;
        Losses { total: mlm.clone() + nsp.clone(), parts: vec![("mlm_loss", mlm), ("nsp_loss", nsp)] }
    }

    fn evaluate(&mut self, model: &BertForPreTraining, _step: u64) -> Result<Map<String, Value>> {
        if self.held_out.is_empty() {
            return Ok(Map::new());
        }
        let evaluation = self.evaluate_held_out(model)?;
        self.latest = Some(evaluation);
        match serde_json::to_value(evaluation) {
            Ok(Value::Object(metrics)) => Ok(metrics),
            _ => Ok(Map::new()),
        }
    }
}

impl Pretraining {
    /// Both tasks, with nothing to be judged by.
    pub fn new(device: Device, pad_id: u32, eval_batch_size: usize) -> Self {
        Self { device, pad_id, with_nsp: true, held_out: Vec::new(), eval_batch_size, latest: None }
    }

    /// Judges a model (without autodiff) on the held-out examples, of which there must be one.
    ///
    /// # Errors
    /// If the system refuses threads.
    pub fn evaluate_held_out(&self, model: &BertForPreTraining) -> Result<Evaluation> {
        let workers = Workers::for_device(&self.device)?;
        let batches: Vec<&[PretrainingExample]> = self.held_out.chunks(self.eval_batch_size).collect();
        let parts = split_evenly(batches, workers.count());
        let scores = workers.run(parts, |batches| batches.into_iter().map(|batch| self.score(model, batch)).collect());
        let (mut mlm, mut nsp) = (Score::default(), Score::default());
        for (mlm_part, nsp_part) in scores.into_iter().flat_map(|part: Vec<_>| part) {
            mlm.add(mlm_part);
            nsp.add(nsp_part);
        }
        let mlm_loss = mlm.mean_loss();
        Ok(Evaluation {
            mlm_loss,
            perplexity: mlm_loss.exp(),
            mlm_accuracy: mlm.accuracy(),
            nsp_loss: self.with_nsp.then(|| nsp.mean_loss()),
            nsp_accuracy: self.with_nsp.then(|| nsp.accuracy()),
        })
    }

    fn score(&self, model: &BertForPreTraining, examples: &[PretrainingExample]) -> (Score, Score) {
        let batch = PretrainingBatch::new(examples, self.pad_id, &self.device);
        let (mlm_logits, nsp_logits) = model.forward(batch.input, batch.positions);
        (Score::of(mlm_logits, batch.labels), Score::of(nsp_logits, batch.is_random))
    }
}

/// Running sums of one task.
#[derive(Default)]
struct Score {
    loss: f64,
    right: i64,
    count: usize,
}

impl Score {
    /// Shapes: `logits` `[N, C]`, `labels` `[N]`.
    fn of(logits: Tensor<2>, labels: Tensor<1, Int>) -> Self {
        let [count, _] = logits.dims();
        let right = logits.clone().argmax(1).squeeze_dim::<1>(1).equal(labels.clone()).int().sum();
        let right = right.into_data().iter::<i64>().sum::<i64>();
        let loss = cross_entropy(logits, labels).into_data().iter::<f32>().map(f64::from).sum::<f64>();
        Self { loss, right, count }
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
