//! Opens models for the commands that embed texts, applying options that override the model directory.

use std::path::PathBuf;

use anyhow::anyhow;
use bert_cli::args::Common;
use bert_cli::program::select_device;
use bert_model::Error;
use bert_model::device::NamedDevice;
use bert_model::pipeline::{self, Combine, Layers, Precision, SentenceTransformer, TextEmbedder};
use bert_train::run_directory::check_has_model;
use clap::{Args, ValueEnum};

use crate::model_directory::config_of;
use crate::option_values::Pooling;
use crate::output::warn;

/// Options of the commands that embed texts.
#[derive(Debug, Clone, Args)]
pub struct EmbedderArgs {
    /// Model: a directory, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Number type of the encoder's products: f32, bf16 (on flex, and on a GPU that has it) or int8 (on flex). The
    /// last two are faster and change the results slightly
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// How to pool token vectors into one per text: mean, cls, max or pooler; for `embed`, none keeps all [default: as
    /// the model's directory says, else mean]
    #[arg(long, value_enum)]
    pub pooling: Option<Pooling>,
    /// Normalize vectors to length 1 [default: as the model's directory says]
    #[arg(long)]
    pub normalize: bool,
    /// Maximum sequence length in tokens; longer texts are truncated [default: as the model's
    /// directory says, else its number of positions]
    #[arg(long, value_name = "N")]
    pub max_seq_len: Option<usize>,
    /// Embed longer texts in windows, and pool the windows' vectors
    #[arg(long, value_enum)]
    pub windows: Option<Windows>,
    /// Prepend one of the model's prompts, by name, to each text
    #[arg(long, value_name = "NAME", conflicts_with = "prompt_text")]
    pub prompt: Option<String>,
    /// Prepend this text to each text
    #[arg(long, value_name = "TEXT")]
    pub prompt_text: Option<String>,
}

/// How to combine the vectors of a long text's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Windows {
    /// The mean of the vectors.
    Mean,
    /// The maximum of each component.
    Max,
}

impl EmbedderArgs {
    /// Opens the model, and reports on stderr which options override the model directory.
    ///
    /// # Errors
    /// If the model or the device cannot be used, or if an option does not fit the model.
    pub fn open(&self, layers: &Layers, combine: Combine, common: &Common) -> anyhow::Result<TextEmbedder> {
        self.check(layers)?;
        let NamedDevice { device, .. } = select_device(&common.device, common.quiet)?;
        self.precision.check(&device)?;
        let positions = config_of(&self.model)?.max_position_embeddings;
        self.tell_changes(positions)?;
        let builder = TextEmbedder::builder().device(device).precision(self.precision);
        let mut builder = builder.layers(layers.clone()).combine(combine);
        if let Some(pooling) = self.pooling.and_then(Pooling::of_text) {
            builder = builder.pooling(pooling);
        }
        if self.normalize {
            builder = builder.normalize(true);
        }
        if let Some(length) = self.max_seq_len {
            builder = builder.max_length(length);
        }
        if let Some(windows) = self.windows {
            builder = builder.windows(match windows {
                Windows::Mean => pipeline::Windows::Mean,
                Windows::Max => pipeline::Windows::Max,
            });
        }
        builder = match (&self.prompt, &self.prompt_text) {
            (Some(name), _) => builder.prompt(name),
            (None, Some(text)) => builder.prompt_text(text),
            (None, None) => builder,
        };
        let embedder = builder.open(&self.model).map_err(|error| match error {
            Error::MissingTensors { .. } => {
                anyhow!("{}: the checkpoint has no pooler; choose another --pooling", self.model.display())
            }
            Error::Setting(message) if message.starts_with("prompt:") => Error::Usage(format!("--{message}")).into(),
            other => anyhow::Error::from(other),
        })?;
        warn(&self.model, embedder.warning());
        Ok(embedder)
    }

    /// Checks that the model has these layers, and enough positions for `--max-seq-len`. Returns the number of selected
    /// layers.
    ///
    /// # Errors
    /// If the model lacks them, or if the run in its directory has not finished.
    pub fn check(&self, layers: &Layers) -> bert_model::Result<usize> {
        check_has_model(&self.model)?;
        let config = config_of(&self.model)?;
        let in_option = |error: Error| Error::Usage(format!("--{error}"));
        let layers = layers.resolve(config.num_hidden_layers + 1).map_err(in_option)?;
        let limit = config.max_position_embeddings;
        match self.max_seq_len.filter(|&length| length > limit) {
            Some(length) => {
                Err(Error::Usage(format!("--max-seq-len: found {length}, expected at most the model's {limit}")))
            }
            None => Ok(layers.len()),
        }
    }

    /// Rejects `--pooling none`, for commands that need one vector per text.
    ///
    /// # Errors
    /// If `--pooling none` is given.
    pub fn check_one_vector(&self) -> bert_model::Result<()> {
        match self.pooling {
            Some(Pooling::None) => {
                Err(Error::Usage("--pooling none: found a vector for each token, expected one for each text".into()))
            }
            _ => Ok(()),
        }
    }

    /// Prints a line on stderr for each option that overrides the model directory.
    fn tell_changes(&self, positions: usize) -> bert_model::Result<()> {
        let Some(how) = SentenceTransformer::read(&self.model)? else { return Ok(()) };
        let tell = |option: String, place: String| {
            eprintln!("{option}: overrides {} ({place})", self.model.display());
        };
        if let Some(pooling) = self.pooling.filter(|pooling| pooling.of_text().is_none_or(|kind| how.pooling != [kind]))
        {
            let name = pooling.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
            let kinds: Vec<String> = how.pooling.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
            tell(format!("--pooling {name}"), format!("pooling: {}", kinds.join(", ")));
        }
        if self.normalize && !how.is_normalized() {
            tell("--normalize".into(), "no normalization".into());
        }
        let usual = how.max_length.unwrap_or(positions).min(positions);
        if let Some(length) = self.max_seq_len.filter(|length| *length != usual) {
            tell(format!("--max-seq-len {length}"), format!("{usual} tokens"));
        }
        Ok(())
    }
}
