//! `bert-finetune train`: from a model and labeled files to the model of the best epoch.
//!
//! `data` reads the examples, `start` puts a head on the checkpoint, `epochs` cuts the examples into batches, `once` is a
//! run with one seed, `seeds` several of them.

mod data;
mod epochs;
mod once;
mod seeds;
mod start;

use bert_model::Result;
use bert_train::Interrupt;
use bert_train::run_directory::check_inputs;

use crate::settings::{FinetuneRunOptions, FinetuneSettings};

pub use self::data::Files;
pub use self::once::{FinetuneOutcome, evaluate};

/// Runs `bert-finetune train` on labeled files.
///
/// # Errors
/// Whatever can be wrong with the model, the files, the device or the numbers.
pub fn run(
    settings: &FinetuneSettings,
    run: &FinetuneRunOptions,
    files: &Files,
    interrupt: &Interrupt,
) -> Result<FinetuneOutcome> {
    let inputs = [Some(&settings.model), Some(&files.training), files.evaluation.as_ref(), files.test.as_ref()];
    check_inputs(&run.output, run.if_exists, inputs.into_iter().flatten())?;
    match run.seeds {
        1 => once::run_once(settings, run, files, interrupt),
        _ => seeds::run_all(settings, run, files, interrupt),
    }
}
