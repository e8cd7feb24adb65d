//! Resolves names of models on the Hugging Face Hub to directories.

use bert_cli::hub::{model_directory, tokenizer_directory};
use bert_model::Result;

use crate::args::{Cli, Command, TrainArgs};

impl Cli {
    /// Replaces the name of every model by the directory of its files, which are downloaded if necessary; for `train`,
    /// see [`TrainArgs::fetch_models`].
    ///
    /// # Errors
    /// If a model neither exists locally nor can be downloaded.
    pub fn fetch_models(&mut self) -> Result<()> {
        let (model, common) = match &mut self.command {
            None | Some(Command::Train(_) | Command::Vocab(_)) => return Ok(()),
            Some(Command::Evaluate(args)) => (&mut args.model, &args.common),
            Some(Command::FillMask(args)) => (&mut args.model, &args.common),
            Some(Command::NextSentence(args)) => (&mut args.model, &args.common),
        };
        *model = model_directory(model, common.quiet)?;
        Ok(())
    }
}

impl TrainArgs {
    /// Replaces the name of every model by the directory of its files, which are downloaded if necessary.
    ///
    /// # Errors
    /// If a model neither exists locally nor can be downloaded.
    pub fn fetch_models(&mut self) -> Result<()> {
        if let Some(init) = &mut self.init {
            *init = model_directory(init, self.common.quiet)?;
        }
        if let Some(tokenizer) = &mut self.tokenizer {
            *tokenizer = tokenizer_directory(tokenizer, self.common.quiet)?;
        }
        Ok(())
    }
}
