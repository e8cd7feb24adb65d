//! Names of models on the Hugging Face Hub, in place of directories.

use bert_cli::hub::model_directory;
use bert_model::Result;

use crate::args::{Cli, Command};

impl Cli {
    /// Puts the directory of its files, fetched where need be, in place of every model's name.
    ///
    /// # Errors
    /// If a model is neither there nor to be had.
    pub fn fetch_models(&mut self) -> Result<()> {
        let (model, common) = match &mut self.command {
            None => (self.train.model.as_mut(), &self.train.common),
            Some(Command::Train(args)) => (args.model.as_mut(), &args.common),
            Some(Command::Evaluate(args)) => (Some(&mut args.model), &args.common),
            Some(Command::Predict(args)) => (Some(&mut args.model), &args.common),
            Some(Command::Embed(args)) => (Some(&mut args.model), &args.common),
            Some(Command::Report(_)) => return Ok(()),
        };
        if let Some(model) = model {
            *model = model_directory(model, common.quiet)?;
        }
        Ok(())
    }
}
