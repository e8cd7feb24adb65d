//! What a pretraining run would learn from, for other programs: its first weights as a model directory (`initial`) and
//! the examples of its first steps (`batches.jsonl`, a step a line). `benchmarks/same_training.py` trains transformers
//! on them.
//!
//! ```sh
//! cargo run --release -p bert-pretrain --example training_batches -- 300 train --corpus texts/ -o OUT
//! ```

use std::io::{BufWriter, Write};

use anyhow::{Context, Result, bail};
use bert_model::device;
use bert_pretrain::args::{Cli, Command};
use bert_pretrain::phases::{PhasedSource, count_steps};
use bert_pretrain::prepare::{given_tokenizer, prepare};
use bert_pretrain::settings::PretrainSettings;
use bert_pretrain::start::initial_model;
use bert_train::{IfExists, RunDirectory, StepSource};
use clap::Parser;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().collect();
    if arguments.len() < 3 {
        bail!("usage: training_batches STEPS train OPTIONS");
    }
    let steps: u64 = arguments.remove(1).parse().context("the number of steps")?;
    let Some(Command::Train(args)) = Cli::parse_from(arguments).command else { bail!("only `train` has batches") };
    let (settings, run) = PretrainSettings::resolve(&args)?;
    let directory = RunDirectory::open(&run.output, IfExists::Overwrite)?;
    let device = device::select("flex")?.device;
    let data = prepare(&settings, given_tokenizer(&settings)?, &directory, run.quiet)?;
    let (model, config) = initial_model(&settings, &data.tokenizer, &device)?;
    bert_model::save(directory.file("initial"), &model, &config, &data.tokenizer)?;
    let mut source = PhasedSource::new(&settings, &data, count_steps(&settings, &data)?, (0, &Value::Null))?;
    let mut file = BufWriter::new(std::fs::File::create(directory.file("batches.jsonl"))?);
    for _ in 0..steps {
        let Some(step) = source.next_step()? else { break };
        let examples = step.batches.iter().flat_map(|batch| &batch.examples).map(|example| {
            let masked: Vec<(usize, u32)> = example.masked.iter().map(|token| (token.position, token.id)).collect();
            json!({
                "ids": example.ids,
                "first_segment": example.first_segment,
                "is_random_next": example.is_random_next,
                "masked": masked,
            })
        });
        writeln!(file, "{}", json!(examples.collect::<Vec<_>>()))?;
    }
    file.flush()?;
    Ok(())
}
