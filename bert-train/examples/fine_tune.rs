//! Fine-tunes a model directory on a few labeled texts, without a program around it:
//! `cargo run --release -p bert-train --example fine_tune -- DIR OUT`

use bert_model::model::loss::cross_entropy;
use bert_model::pretrained::{load_config, load_weights_partial, weights::Weights};
use bert_model::text::{Sequence, collate};
use bert_model::workers::split_evenly;
use bert_model::{BertForSequenceClassification, Result, Tokenizer, Workers, device, save};
use bert_train::{Losses, Objective, Optimizer, OptimizerConfig, Plan, Solo, TrainingState, take_step};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

const TEXTS: [(&str, i32); 4] =
    [("a warm and generous film", 1), ("dull, dull, dull", 0), ("what a delight", 1), ("a shabby affair", 0)];

struct Reviews(Device);

impl Objective for Reviews {
    type Model = BertForSequenceClassification;
    type Batch = Vec<(Sequence, i32)>;

    fn split(&self, batch: Self::Batch, parts: usize) -> Vec<Self::Batch> {
        split_evenly(batch, parts)
    }

    fn sequences(&self, batch: &Self::Batch) -> usize {
        batch.len()
    }

    fn loss(&self, model: &Self::Model, batch: Self::Batch) -> Losses {
        let (sequences, labels): (Vec<Sequence>, Vec<i32>) = batch.into_iter().unzip();
        let logits = model.forward(collate(&sequences.iter().collect::<Vec<_>>(), 0, &self.0));
        let losses = cross_entropy(logits, Tensor::<1, Int>::from_data(&labels[..], &self.0));
        Losses { total: losses.sum() / TEXTS.len() as f64, parts: vec![] }
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "runs/pretrain".into());
    let output = arguments.next().unwrap_or_else(|| "runs/example".into());
    let device = device::select("auto")?.device;
    let tokenizer = Tokenizer::load(&directory)?;
    let config = load_config(&directory)?.with_labels(&["bad".to_string(), "good".to_string()]);
    let model = load_weights_partial::<BertForSequenceClassification>(
        &Weights::open(&directory)?,
        config.clone(),
        42,
        &device,
    )?;
    let optimizer = Optimizer::new(OptimizerConfig::default());
    let mut state = TrainingState::new(model.model.train(), optimizer);
    let encode = |(text, label): (&str, i32)| Ok((Sequence::from(&tokenizer.encode(text, None)?), label));
    let batch: Vec<(Sequence, i32)> = TEXTS.into_iter().map(encode).collect::<Result<_>>()?;
    let (task, plan, workers) = (Reviews(device.clone()), Plan::constant(3e-4, 30), Workers::for_device(&device)?);
    while state.step < plan.schedule.steps {
        let step;
        (state, step) = take_step(state, &task, vec![batch.clone()], &plan, &workers, &Solo)?;
        println!("step {} loss {:.4}", state.step, step.wait()?.losses["loss"].as_f64().unwrap_or(f64::NAN));
    }
    save(output, &state.model.valid(), &config, &tokenizer)
}
