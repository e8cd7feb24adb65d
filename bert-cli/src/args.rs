//! Options that both programs have.

use std::path::PathBuf;

use bert_model::{Error, Result};
use clap::Args;

/// Options of every command that runs a model.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Device: auto, flex, ndarray, wgpu, vulkan, metal, cuda or rocm
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Random seed
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Do not show progress on stderr
    #[arg(long)]
    pub quiet: bool,
}

/// Texts from the command line, a file or standard input.
#[derive(Debug, Clone, Args)]
pub struct TextArgs {
    /// Texts, or - to read one per line from stdin
    pub texts: Vec<String>,
    /// File of texts: .txt (one per line), .jsonl, .csv or .tsv; - for stdin
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

impl TextArgs {
    /// Where the texts come from: a file, standard input (`-`), or the arguments (`None`).
    ///
    /// # Errors
    /// If there are no texts, or both arguments and a file are given.
    pub fn source(&self) -> Result<Option<PathBuf>> {
        let is_stdin = matches!(&self.texts[..], [only] if only == "-");
        match (is_stdin, self.texts.is_empty(), &self.input) {
            (true, _, None) => Ok(Some("-".into())),
            (false, true, Some(path)) => Ok(Some(path.clone())),
            (_, false, Some(_)) => {
                Err(Error::Usage("texts given both as arguments and with --input; use one of the two".into()))
            }
            (_, true, None) => {
                Err(Error::Usage("no text: pass texts as arguments, a file with --input, or - for stdin".into()))
            }
            _ => Ok(None),
        }
    }
}
