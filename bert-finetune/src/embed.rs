//! `bert-finetune embed`: writes the vectors of texts, in input order and as texts arrive.

use bert_cli::input::keep::KeptRow;
use bert_cli::input::source::Input;
use bert_cli::input::{count_rows, read_inputs};
use bert_cli::program::print_line;
use bert_cli::stream::Batches;
use bert_model::Result;
use bert_model::pipeline::{EmbeddingRequest, TokenEmbeddings};
use serde_json::json;

use crate::args::{EmbedArgs, Pooling, batch_size};
use crate::effect::check_embed;
use crate::meter::Meter;
use crate::truncated::{Truncated, number};
use crate::vectors::Sink;

/// Embeds the given texts and writes their vectors.
///
/// # Errors
/// If an option has no effect, the model, the device or a text is invalid, or the vectors cannot be written.
pub fn embed(args: &EmbedArgs) -> anyhow::Result<()> {
    let source = args.texts.source()?;
    let layers = args.embedder.check(&args.layers)?;
    check_embed(args, source.as_ref(), layers)?;
    let every_token = args.embedder.pooling == Some(Pooling::None);
    let mut sink = Sink::open(args.output.as_deref(), every_token)?;
    let quiet = args.common.quiet || source.is_none();
    let place = if source.is_some() { "row" } else { "text" };
    let total = source.as_ref().filter(|_| !quiet).and_then(|input| count_rows(input, !args.columns.no_header));
    // Reading starts here, in parallel with loading the model.
    let batches = texts(args, source)?;
    let embedder = args.embedder.open(&args.layers, args.combine.into(), &args.common)?;
    let meter = Meter::new("embedding", total, quiet);
    let mut truncated = Truncated::default();
    let mut done = 0;
    for batch in batches {
        let batch = batch?;
        let request = if every_token { EmbeddingRequest::tokens } else { EmbeddingRequest::text };
        let requests: Vec<EmbeddingRequest> = batch.iter().map(|(text, _)| request(text)).collect();
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
    // A matrix without rows has the width that its rows would have.
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

/// The texts of a file, of standard input, or from the command line, with their rows.
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
