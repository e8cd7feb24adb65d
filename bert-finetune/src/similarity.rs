//! `bert-finetune similarity`: computes the similarity of two texts.

use bert_cli::args::{Common, refuse_file_as_text};
use bert_cli::program::print_line;
use bert_model::pipeline::{Combine, Layers};
use clap::Args;
use serde_json::json;

use crate::embedder::EmbedderArgs;
use crate::truncated::warn_of_comparison;

/// Options of `bert-finetune similarity`.
#[derive(Debug, Args)]
pub struct SimilarityArgs {
    /// How texts are embedded
    #[command(flatten)]
    pub embedder: EmbedderArgs,
    /// First text
    pub first: String,
    /// Second text
    pub second: String,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Prints the similarity of two texts: their cosine, unless the model directory names another function.
///
/// # Errors
/// If the model or the device cannot be used.
pub fn run(args: &SimilarityArgs) -> anyhow::Result<()> {
    args.embedder.check_one_vector()?;
    [&args.first, &args.second].into_iter().try_for_each(|text| refuse_file_as_text(text))?;
    let embedder = args.embedder.open(&Layers::default(), Combine::default(), &args.common)?;
    let vectors = embedder.embed(&[&args.first, &args.second])?;
    warn_of_comparison(embedder.truncated_count());
    let similarity = embedder.similarity().of(&vectors[0], &vectors[1]);
    match args.common.json {
        true => print_line(json!({"similarity": similarity}))?,
        false => print_line(format_args!("{similarity:.4}"))?,
    }
    Ok(())
}
