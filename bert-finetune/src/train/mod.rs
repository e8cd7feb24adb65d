//! `bert-finetune train`: from a model and labeled files to the model of the best epoch.
//!
//! `data` reads the examples, `start` puts a head on the encoder, `epochs` draws batches, `joint` computes losses that
//! depend on a whole batch, `objective` computes the loss and keeps the best epoch, `best` compares epochs, `once`
//! trains with one seed, and `seeds` with several.

mod best;
mod data;
mod epochs;
mod joint;
mod objective;
mod once;
mod seeds;
mod start;

use std::path::PathBuf;

use bert_model::{BertConfig, Result, Tokenizer};
use bert_train::run_directory::check_inputs;
use bert_train::{Communicator, Interrupt};
use burn::tensor::Device;

use crate::data::Files;
use crate::description::Description;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};
use crate::tasks::Task;

pub use self::data::held_out_examples;
pub use self::objective::evaluate;
pub use self::once::FinetuneOutcome;

/// Everything that stays constant during a run.
struct Run<'a, T: Task> {
    settings: &'a FinetuneSettings,
    run: &'a FinetuneRunOptions,
    /// The description, completed with what was learned about the labels.
    description: Description,
    config: BertConfig,
    tokenizer: Tokenizer,
    task: T,
    device: Device,
    interrupt: &'a Interrupt,
    communicator: &'a dyn Communicator,
}

/// Runs `bert-finetune train` on labeled files, together with the other ranks of the communicator, which must see the
/// same files. The first rank owns the run directory; on the others, the summary is null.
///
/// # Errors
/// If the model, a file or the device is invalid, or if a computed number is not finite.
pub fn run(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    ranks: (&Interrupt, &dyn Communicator),
) -> Result<FinetuneOutcome> {
    let inputs: Vec<&PathBuf> = [&settings.model].into_iter().chain(files.all()).collect();
    let directories = [run.output.clone()].into_iter().chain(seeds::directories(settings, run));
    let mut checks = directories.map(|directory| check_inputs(&directory, run.if_exists, &inputs));
    ranks.1.agree(checks.try_for_each(|check| check))?;
    match run.seeds {
        1 => once::run_once(settings, run, files, ranks),
        _ => seeds::run_all(settings, run, files, ranks),
    }
}
