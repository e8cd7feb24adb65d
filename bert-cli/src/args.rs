//! Options that both programs have.

use std::path::PathBuf;

use bert_model::{Error, Result};
use clap::Args;

use crate::input::kind::{Format, Input};

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
    /// File of texts: .txt (one per line), .jsonl, .csv or .tsv, each also .gz or .zst; .parquet; - for stdin
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// How the texts of --input or stdin are written [default: by the file's extension; stdin: txt]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub input_format: Option<Format>,
}

impl TextArgs {
    /// Where the texts come from: a file, standard input (`-`), or the arguments (`None`).
    ///
    /// # Errors
    /// If there are no texts, both arguments and a file are given, or arguments are given a format.
    pub fn source(&self) -> Result<Option<Input>> {
        let wrong = |message: &str| Err(Error::Usage(message.into()));
        let input = match (&self.texts[..], &self.input) {
            ([], Some(path)) => Input::new(path),
            ([], None) => return wrong("no text: pass texts as arguments, a file with --input, or - for stdin"),
            (_, Some(_)) => return wrong("texts given both as arguments and with --input; use one of the two"),
            ([only], None) if only == "-" => Input::new(only),
            (_, None) if self.input_format.is_some() => {
                return wrong("--input-format: found texts as arguments, expected --input FILE or - for stdin");
            }
            (_, None) => return Ok(None),
        };
        Ok(Some(Input { format: self.input_format.or(input.format), ..input }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        texts: TextArgs,
    }

    fn source(arguments: &str) -> Result<Option<Input>> {
        Cli::parse_from(["x"].into_iter().chain(arguments.split_whitespace())).texts.source()
    }

    #[test]
    fn texts_come_from_arguments_a_file_or_stdin_and_a_format_may_be_named() {
        assert_eq!(source("one two").unwrap(), None);
        for (arguments, path, format) in [
            ("-", "-", None),
            ("--input -", "-", None),
            ("- --input-format csv", "-", Some(Format::Csv)),
            ("--input a.tsv.gz", "a.tsv.gz", Some(Format::Tsv)),
            ("--input a.tsv --input-format txt", "a.tsv", Some(Format::Text)),
        ] {
            assert_eq!(source(arguments).unwrap(), Some(Input { path: path.into(), format }), "{arguments}");
        }
    }

    #[test]
    fn texts_from_nowhere_or_two_places_are_refused() {
        for (arguments, expected) in [
            ("", "no text"),
            ("one --input a.txt", "use one of the two"),
            ("- --input a.txt", "use one of the two"),
            ("one --input-format csv", "--input-format: found texts as arguments"),
        ] {
            let message = source(arguments).unwrap_err().to_string();
            assert!(message.contains(expected), "{arguments}: {message}");
        }
    }
}
