//! candle's side of `benchmarks/compare.py`: encodes with candle-transformers' BERT what `examples/benchmark.rs`
//! encodes with ours. usage: candle-worker MODEL_DIR BATCH.json

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
}

/// Mean-pooled last hidden states, in batches of 32 in the order in which the texts come, each padded to its longest.
fn encode(model: &BertModel, rows: &[Row], device: &Device) -> Result<f64> {
    let mut total = 0.0;
    for rows in rows.chunks(32) {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let padded = |f: &dyn Fn(&Row, usize) -> u32| -> Result<Tensor> {
            let values: Vec<u32> = rows.iter().flat_map(|row| (0..longest).map(|at| f(row, at))).collect();
            Ok(Tensor::from_vec(values, (rows.len(), longest), device)?)
        };
        let ids = padded(&|row, at| row.ids.get(at).copied().unwrap_or(0))?;
        let mask = padded(&|row, at| u32::from(at < row.ids.len()))?;
        let hidden = model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let weights = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
        let sums = hidden.broadcast_mul(&weights)?.sum(1)?;
        let pooled = sums.broadcast_div(&weights.sum(1)?)?;
        total += f64::from(pooled.abs()?.sum(D::Minus1)?.sum_all()?.to_scalar::<f32>()?);
    }
    Ok(total)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(directory), Some(batch)) = (arguments.next(), arguments.next()) else {
        bail!("usage: candle-worker MODEL_DIR BATCH.json");
    };
    let rows: Vec<Row> = serde_json::from_slice(&std::fs::read(batch)?).context("batch.json")?;
    let config: Config = serde_json::from_slice(&std::fs::read(directory.join("config.json"))?).context("config.json")?;
    let device = Device::Cpu;
    let tensors = candle_core::safetensors::load(directory.join("model.safetensors"), &device)?;
    let model = BertModel::load(VarBuilder::from_tensors(tensors, DType::F32, &device).pp("bert"), &config)?;
    for line in std::io::stdin().lock().lines() {
        let started = Instant::now();
        let value = match line?.as_str() {
            "encode" => encode(&model, &rows, &device)?,
            "peak" => peak_megabytes(),
            other => bail!("unknown mode `{other}`, expected encode or peak"),
        };
        println!("{}", json!({"ms": started.elapsed().as_secs_f64() * 1e3, "value": value}));
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The most memory that this process has held, as Linux counts it.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}
