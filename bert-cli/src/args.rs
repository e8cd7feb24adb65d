//! Options shared by the programs.

use std::path::{Path, PathBuf};

use bert_model::{Error, Result};
use clap::Args;

use crate::given::{Rule, only_if};
use crate::input::columns::Column;
use crate::input::header::{ColumnSource, TEXT};
use crate::input::kind::{FileKind, Format};
use crate::input::source::Input;
use crate::input::table::TableOptions;

/// Options of every command that runs a model.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Device: auto, flex, ndarray, wgpu, vulkan, metal, cuda or rocm; cuda:1 is the second GPU
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
    /// Format of --input or stdin [default: by the file's extension; stdin: txt]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub input_format: Option<Format>,
}

/// The columns of a table of texts.
#[derive(Debug, Clone, Args)]
pub struct TextColumns {
    /// Text column of a table [default: text]
    #[arg(long, value_name = "COL")]
    pub text: Option<String>,
    /// Tables have no header; columns are numbered from 1
    #[arg(long)]
    pub no_header: bool,
    /// Columns to copy into the answers, separated by commas; one whose name the answer already uses becomes input_NAME
    #[arg(long, value_delimiter = ',', value_name = "COL")]
    pub keep: Vec<String>,
}

impl TextArgs {
    /// Returns the source of the texts: a file, standard input (`-`), or the arguments (`None`).
    ///
    /// # Errors
    /// If there are no texts, if both arguments and a file are given, if a format is given for arguments, or if the
    /// only argument is the name of a file of texts.
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
            (texts, None) => {
                let advice =
                    |name: &str| format!("did you mean --input {name}? (to use its name as a text, pipe it to -)");
                return texts.iter().try_for_each(|text| refuse_file_name(text, advice)).map(|()| None);
            }
        };
        Ok(Some(input.in_format(self.input_format)))
    }
}

/// Rejects a text that is the name of a text or table file, since only the name itself would be read.
///
/// # Errors
/// [`Error::Usage`] with the advice.
fn refuse_file_name(text: &str, advice: impl Fn(&str) -> String) -> Result<()> {
    let path = Path::new(text);
    match FileKind::of(path).format {
        Some(_) if path.is_file() => Err(Error::Usage(format!("`{text}` is a file; {}", advice(text)))),
        _ => Ok(()),
    }
}

impl TextColumns {
    /// The columns that contain the texts of a table.
    ///
    /// # Errors
    /// If a column is named although there is no header.
    pub fn options(&self) -> Result<TableOptions> {
        text_column(self.text.as_deref(), self.no_header)
    }
}

/// The table whose texts are in the column `text`, by default [`TEXT`].
///
/// # Errors
/// If a column is named although there is no header.
pub fn text_column(text: Option<&str>, no_header: bool) -> Result<TableOptions> {
    let source = if text.is_some() || no_header { ColumnSource::Given } else { ColumnSource::Usual };
    let text = Column::parse(text.unwrap_or(TEXT), !no_header)?;
    Ok(TableOptions { header: !no_header, source, ..TableOptions::texts(text) })
}

/// Rules for the options in `columns`, which name columns: they have an effect only if a file or standard input is read
/// (`is_read`) as a table. `format` is the format of the input.
pub fn column_rules<'a>(is_read: bool, format: Option<Format>, columns: &'a [&'a str]) -> [Rule<'a>; 3] {
    [
        only_if(is_read, columns, "texts as arguments have no columns; read a table with --input FILE"),
        only_if(
            format.is_some_and(Format::has_columns),
            columns,
            "the input has no columns; for a table, use --input-format tsv, csv or jsonl",
        ),
        only_if(
            format.is_some_and(Format::has_header) || !columns.contains(&"no-header"),
            &["no-header"],
            "JSON lines and Parquet rows have named fields",
        ),
    ]
}

/// Rejects the name of a text or table file as the value of an option that takes a text only.
///
/// # Errors
/// [`Error::Usage`] if it is one.
pub fn refuse_file_as_text(text: &str) -> Result<()> {
    refuse_file_name(text, |name| format!("pass the text itself, such as \"$(cat {name})\""))
}

/// The rule for options that have an effect on several processes only. A resumed run may have had more.
pub fn ranks_rule(processes: usize, resumes: bool) -> Rule<'static> {
    let alone = "this is the only process; start the program with mpirun or srun";
    only_if(processes > 1 || resumes, &["bf16-exchange", "shard-optimizer"], alone)
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
        assert!(source("one two").unwrap().is_none());
        for (arguments, path, format) in [
            ("-", "-", None),
            ("--input -", "-", None),
            ("- --input-format csv", "-", Some(Format::Csv)),
            ("--input a.tsv.gz", "a.tsv.gz", Some(Format::Tsv)),
            ("--input a.tsv --input-format txt", "a.tsv", Some(Format::Text)),
        ] {
            let found = source(arguments).unwrap().unwrap();
            assert_eq!((found.path, found.format), (path.into(), format), "{arguments}");
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

    #[test]
    fn the_name_of_a_file_of_texts_is_no_text() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["news.txt", "news"] {
            std::fs::write(directory.path().join(name), "one\n").unwrap();
        }
        let source = |name: &str| source(directory.path().join(name).to_str().unwrap());
        let message = source("news.txt").unwrap_err().to_string();
        assert!(message.contains("news.txt` is a file; did you mean --input"), "{message}");
        assert!(source("news").is_ok() && source("absent.txt").is_ok());
    }
}
