//! The worker of `benchmarks/compare.py`: loads a model directory and a batch, then does one piece of work for each
//! line that it reads (`train`, `train-bf16`, `encode`, `encode-bf16`, `encode-int8` or `peak`; `train 5`: five times),
//! and answers with the milliseconds and a number to compare. A worker trains and encodes in one precision only.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bert_cli::allocator::keep_memory;
use bert_model::model::loss::cross_entropy;
use bert_model::pipeline;
use bert_model::pretrained::load_config;
use bert_model::pretrained::weights::Weights;
use bert_model::text::{Sequence, collate};
use bert_model::workers::{BATCH_TOKENS, split_evenly};
use bert_model::{BertConfig, BertForMaskedLM, BertModel, Pretrained, Workers, pretrained};
use bert_train::{
    Losses, Objective, Optimizer, OptimizerConfig, PendingStep, Plan, Precision, Solo, TrainingState, take_step,
};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `batch.json`: token ids, flat positions of the masked ones row by row, and what belongs there.
#[derive(Deserialize, Clone)]
struct Row {
    ids: Vec<u32>,
    masked: Vec<usize>,
    labels: Vec<i32>,
}

struct MaskedLm {
    device: Device,
}

/// Some rows, and the number of masked tokens in the whole batch.
struct Subset {
    rows: Vec<Row>,
    masked: usize,
}

impl Objective for MaskedLm {
    type Model = BertForMaskedLM;
    type Batch = Subset;

    fn split(&self, batch: Subset, parts: usize) -> Vec<Subset> {
        split_evenly(batch.rows, parts).into_iter().map(|rows| Subset { rows, masked: batch.masked }).collect()
    }

    fn sequences(&self, batch: &Subset) -> usize {
        batch.rows.len()
    }

    fn loss(&self, model: &BertForMaskedLM, batch: Subset) -> Losses {
        let sequences: Vec<Sequence> = batch.rows.iter().map(sequence).collect();
        let input = collate(&sequences.iter().collect::<Vec<_>>(), 0, &self.device);
        let [_, tokens] = input.input_ids.dims();
        let position = |(index, row): (usize, &Row)| {
            row.masked.iter().map(|at| (index * tokens + at) as i32).collect::<Vec<i32>>()
        };
        let positions: Vec<i32> = batch.rows.iter().enumerate().flat_map(position).collect();
        let labels: Vec<i32> = batch.rows.iter().flat_map(|row| row.labels.iter().copied()).collect();
        let integers = |values: &[i32]| Tensor::<1, Int>::from_data(values, &self.device);
        let logits = model.forward(input, integers(&positions));
        Losses { total: cross_entropy(logits, integers(&labels)).sum() / batch.masked as f64, parts: vec![] }
    }
}

fn sequence(row: &Row) -> Sequence {
    Sequence { ids: row.ids.clone(), types: vec![0; row.ids.len()] }
}

/// Mean-pooled last hidden states of texts of any lengths. The sum of the absolute values is what is compared.
fn encode(model: &BertModel, rows: &[Row], workers: &Workers, device: &Device) -> f64 {
    let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
    let sums = workers.run_by_length(&lengths, BATCH_TOKENS, |batch| {
        let chosen: Vec<Sequence> = batch.iter().map(|&index| sequence(&rows[index])).collect();
        let input = collate(&chosen.iter().collect::<Vec<_>>(), 0, device);
        let mask = input.attention_mask.clone().float().unsqueeze_dim::<3>(2);
        let hidden = model.encode(input) * mask.clone();
        let pooled = hidden.sum_dim(1) / mask.sum_dim(1);
        pooled.abs().sum_dim(2).into_data().iter::<f32>().map(f64::from).collect()
    });
    sums.into_iter().sum()
}

fn main() -> Result<()> {
    keep_memory();
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(directory), Some(batch)) = (arguments.next(), arguments.next()) else {
        bail!("usage: benchmark MODEL_DIR BATCH.json [DEVICE [PRECISION]]");
    };
    let rows: Vec<Row> = serde_json::from_slice(&std::fs::read(&batch)?).context("batch.json")?;
    let masked = rows.iter().map(|row| row.masked.len()).sum();
    let text = |argument: Option<PathBuf>, default: &str| {
        argument.map_or(default.into(), |argument| argument.to_string_lossy().into_owned())
    };
    let device = bert_model::device::select(&text(arguments.next(), "flex"))?.device;
    let precision = Precision::from_str(&text(arguments.next(), "f32")).map_err(anyhow::Error::msg)?;
    precision.check(&device)?;
    let workers = Workers::for_device(&device)?;
    let config = load_config(&directory)?;
    // A directory with nothing but a configuration stands for random weights.
    let weights = directory.join("model.safetensors").exists().then(|| Weights::open(&directory)).transpose()?;
    let mut plan = Plan { precision, ..Plan::constant(1e-4, u64::MAX) };
    let task = MaskedLm { device: device.clone() };
    let mut training: Option<TrainingState<BertForMaskedLM>> = None;
    let mut encoder: Option<BertModel> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, count) = line.split_once(' ').unwrap_or((line.as_str(), "1"));
        let count: usize = count.parse().with_context(|| format!("`{line}`: a number of times"))?;
        let (started, value) = match what {
            "train" | "train-bf16" => {
                if what == "train-bf16" {
                    plan.precision = Precision::Bf16;
                }
                let mut state = match training.take() {
                    Some(state) => state,
                    None => {
                        let model: BertForMaskedLM = load(weights.as_ref(), &config, &device)?;
                        let optimizer = Optimizer::new(OptimizerConfig::default());
                        TrainingState::new(model.train(), optimizer)
                    }
                };
                // As a run does: the numbers of a step are read while the next one is queued.
                let (started, mut queued) = (Instant::now(), None);
                let mut loss = f64::NAN;
                for _ in 0..count {
                    let batch = Subset { rows: rows.clone(), masked };
                    let step;
                    (state, step) = take_step(state, &task, vec![batch], &plan, &workers, &Solo)?;
                    if let Some(step) = queued.replace(step) {
                        PendingStep::wait(step)?;
                    }
                }
                if let Some(step) = queued {
                    loss = step.wait()?.losses["loss"].as_f64().unwrap_or(f64::NAN);
                }
                training = Some(state);
                (started, loss)
            }
            "encode" | "encode-bf16" | "encode-int8" => {
                if encoder.is_none() {
                    let mut model: BertModel = load(weights.as_ref(), &config, &device)?;
                    let name = what.strip_prefix("encode-").unwrap_or("f32");
                    let precision: pipeline::Precision = name.parse().map_err(anyhow::Error::msg)?;
                    precision.check(&device)?;
                    if precision != pipeline::Precision::F32 || device == Device::flex() {
                        model.encoder.pack(precision);
                    }
                    encoder = Some(model);
                }
                let Some(model) = &encoder else { bail!("no model") };
                let started = Instant::now();
                let sums: Vec<f64> = (0..count).map(|_| encode(model, &rows, &workers, &device)).collect();
                (started, sums[0])
            }
            "peak" => (Instant::now(), peak_megabytes()),
            other => {
                bail!("unknown mode `{other}`, expected train, train-bf16, encode, encode-bf16, encode-int8 or peak")
            }
        };
        let milliseconds = started.elapsed().as_secs_f64() * 1e3 / count as f64;
        println!("{}", json!({"ms": milliseconds, "value": value}));
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn load<M: Pretrained>(weights: Option<&Weights>, config: &BertConfig, device: &Device) -> Result<M> {
    Ok(match weights {
        Some(weights) => pretrained::load_weights_partial(weights, config.clone(), 0, device)?.model,
        None => M::init_seeded(config, 0, device),
    })
}

/// The most memory that this process has held, as Linux counts it.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}
