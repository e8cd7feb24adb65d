//! Options that both programs have.

use std::path::PathBuf;

use bert_model::{Error, Result};
use clap::Args;

/// Options of every command that runs a model.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// auto, flex, ndarray, wgpu, vulkan, metal, cuda, rocm
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Everything random follows it
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress on stderr
    #[arg(long)]
    pub quiet: bool,
}

/// Texts, however they come.
#[derive(Debug, Clone, Args)]
pub struct TextArgs {
    /// Texts; - for stdin, one a line
    pub texts: Vec<String>,
    /// A file of texts: .txt one a line, .jsonl, .csv, .tsv; - for stdin
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

impl TextArgs {
    /// Where the texts come from: a file, stdin (`-`), or (`None`) the arguments.
    ///
    /// # Errors
    /// If there are none, or both.
    pub fn source(&self) -> Result<Option<PathBuf>> {
        let is_stdin = matches!(&self.texts[..], [only] if only == "-");
        match (is_stdin, self.texts.is_empty(), &self.input) {
            (true, _, None) => Ok(Some("-".into())),
            (false, true, Some(path)) => Ok(Some(path.clone())),
            (_, false, Some(_)) => Err(Error::Usage("texts as arguments and --input at once; give one of them".into())),
            (_, true, None) => {
                Err(Error::Usage("no text: give some as arguments, a file with --input, or - for stdin".into()))
            }
            _ => Ok(None),
        }
    }
}
