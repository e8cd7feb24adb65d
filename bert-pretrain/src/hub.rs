//! Names of models on the Hugging Face Hub, in place of directories.

use bert_cli::hub::{model_directory, tokenizer_directory};
use bert_model::Result;

use crate::args::{Cli, Command, TrainArgs};

impl Cli {
    /// Puts the directory of its files, fetched where need be, in place of every model's name.
    ///
    /// # Errors
    /// If a model is neither there nor to be had.
    pub fn fetch_models(&mut self) -> Result<()> {
        let (model, common) = match &mut self.command {
            None => return self.train.fetch_models(),
            Some(Command::Train(args)) => return args.fetch_models(),
            Some(Command::Vocab(_)) => return Ok(()),
            Some(Command::Evaluate(args)) => (&mut args.model, &args.common),
            Some(Command::FillMask(args)) => (&mut args.model, &args.common),
            Some(Command::NextSentence(args)) => (&mut args.model, &args.common),
        };
        *model = model_directory(model, common.quiet)?;
        Ok(())
    }
}

impl TrainArgs {
    fn fetch_models(&mut self) -> Result<()> {
        if let Some(init) = &mut self.init {
            *init = model_directory(init, self.common.quiet)?;
        }
        if let Some(tokenizer) = &mut self.tokenizer {
            *tokenizer = tokenizer_directory(tokenizer, self.common.quiet)?;
        }
        Ok(())
    }
}
