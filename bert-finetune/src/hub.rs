//! Resolves model names on the Hugging Face Hub to directories.

use bert_cli::hub::model_directory;
use bert_model::Result;

use crate::args::{Cli, Command, TrainArgs};

impl Cli {
    /// Replaces every model name by the directory of its files, downloading them if necessary; for `train`, see
    /// [`TrainArgs::fetch_models`].
    ///
    /// # Errors
    /// If a model is not available locally and cannot be downloaded.
    pub fn fetch_models(&mut self) -> Result<()> {
        let (models, common) = match &mut self.command {
            Some(Command::Evaluate(args)) => (vec![Some(&mut args.model)], &args.common),
            Some(Command::Predict(args)) => (vec![Some(&mut args.model)], &args.common),
            Some(Command::Embed(args)) => (vec![Some(&mut args.embedder.model)], &args.common),
            Some(Command::Similarity(args)) => (vec![Some(&mut args.embedder.model)], &args.common),
            Some(Command::Search(args)) => {
                let args = &mut **args;
                (vec![Some(&mut args.embedder.model), args.rerank.as_mut()], &args.common)
            }
            Some(Command::Rank(args)) => (vec![Some(&mut args.model)], &args.common),
            None | Some(Command::Train(_) | Command::Report(_)) => return Ok(()),
        };
        for model in models.into_iter().flatten() {
            *model = model_directory(&*model, common.quiet)?;
        }
        Ok(())
    }
}

impl TrainArgs {
    /// Replaces the model's name by the directory of its files, downloading them if necessary.
    ///
    /// # Errors
    /// If the model is not available locally and cannot be downloaded.
    pub fn fetch_models(&mut self) -> Result<()> {
        if let Some(model) = &mut self.model {
            *model = model_directory(&*model, self.common.quiet)?;
        }
        Ok(())
    }
}
