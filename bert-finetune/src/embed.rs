//! `bert-finetune embed`: vectors of texts, in the order of the texts and as they arrive.

use anyhow::anyhow;
use bert_cli::input::keep::KeptRow;
use bert_cli::input::kind::Input;
use bert_cli::input::{count_rows, read_inputs};
use bert_cli::program::{print_line, select_device};
use bert_cli::stream::Batches;
use bert_model::device::NamedDevice;
use bert_model::pipeline::{TextEmbedder, TokenEmbeddings};
use bert_model::pretrained::load_config;
use bert_model::{BertConfig, Error, Result};
use serde_json::json;

use crate::args::{EmbedArgs, Pooling, batch_size};
use crate::effect::check_embed;
use crate::meter::Meter;
use crate::output::warn;
use crate::truncated::{Truncated, number};
use crate::vectors::Sink;
use bert_train::run_directory::check_has_model;

/// Writes the vectors of the texts of a command line.
///
/// # Errors
/// If an option has no effect, the model, the device or a text is invalid, or the vectors cannot be written.
pub fn embed(args: &EmbedArgs) -> anyhow::Result<()> {
    let source = args.texts.source()?;
    let config = load_config(&args.model)?;
    check(args, source.as_ref(), &config)?;
    let every_token = args.pooling == Pooling::None;
    let mut sink = Sink::open(args.output.as_deref(), every_token)?;
    let quiet = args.common.quiet || source.is_none();
    let place = if source.is_some() { "row" } else { "text" };
    let total = source.as_ref().filter(|_| !quiet).and_then(|input| count_rows(input, !args.columns.no_header));
    // Reading begins here, while the model is loaded.
    let batches = texts(args, source)?;
    let embedder = open_embedder(args)?;
    let meter = Meter::new("embedding", total, quiet);
    let mut truncated = Truncated::default();
    let mut done = 0;
    for batch in batches {
        let batch = batch?;
        let requests: Vec<(&str, bool)> = batch.iter().map(|(text, _)| (text.as_str(), every_token)).collect();
        for ((text, row), TokenEmbeddings { tokens, vectors, .. }) in batch.iter().zip(embedder.run(&requests)?) {
            sink.add(row, text, &tokens, vectors)?;
        }
        sink.flush()?;
        truncated.note(embedder.processor(), &requests, |index| number(&batch[index].1, index))?;
        meter.add(batch.len() as u64);
        done += batch.len();
    }
    meter.finish();
    truncated.warn(place);
    // A matrix of no rows has the width of the others.
    let width = match done {
        0 => embedder.embed(&[""])?.first().map_or(0, Vec::len),
        _ => 0,
    };
    sink.finish(width)?;
    if let (Some(output), true) = (&args.output, args.common.json) {
        print_line(json!({"output": output, "texts": done}))?;
    }
    Ok(())
}

/// Refuses options that have no effect, and those that do not fit the model.
fn check(args: &EmbedArgs, source: Option<&Input>, config: &BertConfig) -> Result<()> {
    let in_option = |error: Error| Error::Usage(format!("--{error}"));
    let layers = args.layers.resolve(config.num_hidden_layers + 1).map_err(in_option)?;
    let limit = config.max_position_embeddings;
    if let Some(length) = args.max_seq_len.filter(|&length| length > limit) {
        return Err(Error::Usage(format!("--max-seq-len: found {length}, expected at most the model's {limit}")));
    }
    check_embed(args, source, layers.len())
}

/// The texts of a file, of the standard input, or of the command line, with their rows.
fn texts(args: &EmbedArgs, source: Option<Input>) -> Result<Batches<(String, KeptRow)>> {
    let Some(input) = source else {
        let texts = args.texts.texts.clone().into_iter().map(|text| Ok((text, KeptRow::default())));
        return Ok(Batches::new(texts, batch_size(args.batch_size), false));
    };
    let is_live = !input.is_regular_file();
    let (input, mut kept) = input.keeping(args.columns.keep.clone());
    let rows = read_inputs(input, &args.columns.options()?)?.map(move |row| Ok((row?.text, kept.next_row()?)));
    Ok(Batches::new(rows, batch_size(args.batch_size), is_live))
}

fn open_embedder(args: &EmbedArgs) -> anyhow::Result<TextEmbedder> {
    check_has_model(&args.model)?;
    let NamedDevice { device, .. } = select_device(&args.common.device, args.common.quiet)?;
    let mut builder = TextEmbedder::builder()
        .device(device)
        .layers(args.layers.clone())
        .combine(args.combine.into())
        .normalize(args.normalize);
    if let Some(length) = args.max_seq_len {
        builder = builder.max_length(length);
    }
    if let Some(pooling) = args.pooling.of_text() {
        builder = builder.pooling(pooling);
    }
    let embedder = builder.open(&args.model).map_err(|error| match error {
        Error::MissingTensors { .. } => {
            anyhow!("{}: the checkpoint has no pooler; choose another --pooling", args.model.display())
        }
        other => other.into(),
    })?;
    warn(&args.model, embedder.warning());
    Ok(embedder)
}
