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

use bert_model::Result;
use bert_train::Interrupt;
use bert_train::run_directory::check_inputs;

use crate::data::Files;
use crate::settings::{FinetuneRunOptions, FinetuneSettings};

pub use self::data::held_out_examples;
pub use self::objective::evaluate;
pub use self::once::FinetuneOutcome;

/// Runs `bert-finetune train` on labeled files.
///
/// # Errors
/// If the model, a file or the device is invalid, or if a computed number is not finite.
pub fn run(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    interrupt: &Interrupt,
) -> Result<FinetuneOutcome> {
    check_inputs(&run.output, run.if_exists, [&settings.model].into_iter().chain(files.all()))?;
    match run.seeds {
        1 => once::run_once(settings, run, files, interrupt),
        _ => seeds::run_all(settings, run, files, interrupt),
    }
}
