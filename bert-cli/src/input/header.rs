//! Maps columns to the fields of a table: by the names in a header, by number, or by a fallback, which is reported on
//! stderr.

use std::path::Path;

use bert_model::{Error, Result};

use super::columns::Column;
use super::delimited::Record;
use super::kind::{FileKind, Format};
use super::source::Input;
use super::table::TableOptions;
use crate::warning::warn_once;

/// The default name of the text column.
pub const TEXT: &str = "text";

/// Maximum number of characters of a line to show in a warning.
const SHOWN: usize = 80;

/// Where the column names come from. This decides what happens if a file lacks a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColumnSource {
    /// The defaults.
    #[default]
    Usual,
    /// The training run of the model. `text` is the fallback for the text column, which is always the first one.
    Remembered,
    /// The command line: no other column is acceptable.
    Given,
}

/// The positions of the columns in the records of a table.
pub(super) struct Located {
    /// The index of each column.
    pub positions: Vec<usize>,
    /// Whether the first record is a header.
    pub is_header: bool,
}

/// Finds the columns by the first record of a table; `header` says whether that record names them.
///
/// # Errors
/// [`Error::Line`] for a column that is not in the header; [`Error::Usage`] for a name if there is no header.
pub(super) fn locate(
    path: &Path,
    first: &Record,
    columns: &[Column],
    header: bool,
    source: ColumnSource,
) -> Result<Located> {
    let names: Vec<&str> = first.fields.iter().map(|name| name.trim()).collect();
    let text = (source == ColumnSource::Remembered).then(|| names.iter().position(|name| *name == TEXT)).flatten();
    let place = format!("{}:{}", path.display(), first.line);
    if !header && let Some(text) = text {
        // The numbers of a table without a header say nothing about one that has a header.
        if columns.len() > 1 {
            let found = format!("a header, although the training data had none: {}", shown(first));
            let expected = "the names of its columns (--text, --text-pair, --label), or a table without a header";
            return Err(Error::line(path, first.line, found, expected));
        }
        warn_once(format!("{place}: treated as a header because it names a column `{TEXT}`: {}", shown(first)));
        return Ok(Located { positions: vec![text], is_header: true });
    }
    if !header {
        if is_like_a_header(&names) {
            warn_once(format!("{place}: treated as a row although it looks like a header: {}", shown(first)));
        }
        let positions = columns.iter().map(Column::index).collect::<Result<_>>()?;
        return Ok(Located { positions, is_header: false });
    }
    let (by_name, by_number) = (|column: &Column| by_name(&names, column), |column: &Column| by_number(&names, column));
    let find = |(index, column): (usize, &Column)| {
        by_name(column).or_else(|| by_number(column)).or_else(|| text.filter(|_| index == 0)).ok_or_else(|| {
            let expected = format!("one of {} (`--no-header` if there is none)", quoted(&names));
            Error::line(path, first.line, format!("no column `{column}`"), expected)
        })
    };
    let positions = columns.iter().enumerate().map(find).collect::<Result<Vec<_>>>()?;
    match columns.first() {
        Some(column) if columns.iter().all(|column| by_name(column).is_none()) && by_number(column).is_some() => {
            warn_once(format!("{place}: treated as a header because --no-header was not given: {}", shown(first)));
        }
        Some(column) if by_name(column).or_else(|| by_number(column)).is_none() => {
            warn_once(second_guess(path, column));
        }
        _ => {}
    }
    Ok(Located { positions, is_header: true })
}

/// The index of a column to keep, by its name in the header or by its number.
///
/// # Errors
/// As [`locate`].
pub(super) fn locate_kept(path: &Path, first: &Record, name: &str, is_header: bool) -> Result<usize> {
    let column = Column::parse(name, is_header)?;
    if !is_header {
        return column.index();
    }
    let names: Vec<&str> = first.fields.iter().map(|name| name.trim()).collect();
    by_name(&names, &column).or_else(|| by_number(&names, &column)).ok_or_else(|| {
        Error::line(path, first.line, format!("no column `{name}`"), format!("one of {}", quoted(&names)))
    })
}

/// The index of a column that the header names.
fn by_name(names: &[&str], column: &Column) -> Option<usize> {
    let column = column.to_string();
    names.iter().position(|name| *name == column)
}

/// The index of a column that is given by its number.
fn by_number(names: &[&str], column: &Column) -> Option<usize> {
    column.index().ok().filter(|&index| index < names.len())
}

/// The warning for a file that lacks the text column of the training run.
pub(super) fn second_guess(path: &Path, column: &Column) -> String {
    format!("{}: no column `{column}`, which was used in training; reading `{TEXT}` instead", path.display())
}

/// Whether a `.txt` file is a tab-separated table, rather than one text (or the pair of texts that `options` ask for)
/// per line: its first line contains tabs, and the columns exist. Returns false for other files and for pipes, without
/// reading them.
///
/// # Errors
/// [`Error::Io`]; [`Error::Line`] if the first line is neither, or if `options` name a column and the line has no tabs.
pub(super) fn is_table(input: &Input, options: &TableOptions) -> Result<bool> {
    let is_text = !input.is_stdin() && FileKind::of(&input.path).format == Some(Format::Text) && input.path.is_file();
    let Some(first) = is_text.then(|| input.lines()?.next().transpose()).transpose()?.flatten() else {
        return Ok(false);
    };
    let fields: Vec<&str> = first.text.split('\t').map(str::trim).collect();
    let columns: Vec<&Column> = [&options.text].into_iter().chain(&options.text_pair).collect();
    let is_in_header = |column: &&Column| options.header && fields.contains(&column.to_string().as_str());
    let is_numbered = |column: &&Column| column.index().is_ok_and(|index| index < fields.len());
    let is_found = columns.iter().all(|column| is_in_header(column) || is_numbered(column));
    let refuse = |found: String, expected: &str| Err(Error::line(&input.path, first.number, found, expected));
    match options.source {
        _ if fields.len() > 1 && is_found && options.source != ColumnSource::Usual => Ok(true),
        _ if fields.len() > 1 && columns.iter().all(is_in_header) => Ok(true),
        ColumnSource::Given if fields.len() > 1 => Ok(true),
        ColumnSource::Given => refuse(
            "a line without tabs".into(),
            "a table with the given column (omit --text and --text-pair if each line is a text)",
        ),
        ColumnSource::Remembered if columns.len() == 1 && fields.contains(&TEXT) && fields.len() > 1 => Ok(true),
        ColumnSource::Remembered if fields.len() > columns.len() => refuse(
            format!("{} tab-separated fields: {}", fields.len(), excerpt(&first.text)),
            "one text per line, or a table with the columns used in training (name its columns with --text and, if it \
             has no header, pass --no-header; to treat each line as a text, pipe the file to -)",
        ),
        _ => Ok(false),
    }
}

impl TableOptions {
    /// Whether the first line of a file has tab-separated fields, one of which is the name of the text column. Returns
    /// false for pipes, without reading them.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn is_in_header(&self, input: &Input) -> Result<bool> {
        if !self.header || input.is_stdin() || !input.path.is_file() {
            return Ok(false);
        }
        let first = input.lines()?.next().transpose()?.map(|line| line.text).unwrap_or_default();
        let text = self.text.to_string();
        Ok(first.contains('\t') && first.split('\t').any(|name| name.trim() == text))
    }
}

/// Whether a record looks like a header: at least two distinct words, each made of letters, digits and `_ - #`, with at
/// least one letter.
fn is_like_a_header(names: &[&str]) -> bool {
    let is_name = |name: &&str| {
        name.chars().all(|character| character.is_alphanumeric() || "_-#".contains(character))
            && name.chars().any(char::is_alphabetic)
    };
    let is_new = |index: usize| !names[..index].contains(&names[index]);
    names.len() > 1 && names.iter().all(is_name) && (0..names.len()).all(is_new)
}

fn shown(record: &Record) -> String {
    excerpt(&record.fields.join("\t"))
}

/// The beginning of a line, quoted, with tabs made visible.
fn excerpt(line: &str) -> String {
    let start: String = line.chars().take(SHOWN).collect();
    let more = if start.len() < line.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

/// Formats a list of names for a message.
pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::input::read_inputs;

    fn name(name: &str) -> Column {
        Column::Name(name.to_string())
    }

    fn options(text: &str, pair: Option<&str>, header: bool, source: ColumnSource) -> TableOptions {
        let column = |name: &str| Column::parse(name, header).unwrap();
        TableOptions { text_pair: pair.map(column), header, source, ..TableOptions::texts(column(text)) }
    }

    /// Reads the texts of a file, pairs joined by `|`, or returns the error message without the directory.
    fn read(file: &str, content: &str, options: &TableOptions) -> std::result::Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        let text = |row: crate::input::table::Row| match row.pair {
            Some(pair) => format!("{}|{pair}", row.text),
            None => row.text,
        };
        let rows: Result<Vec<_>> = read_inputs(&path, options).and_then(|rows| rows.collect());
        let tell = |error: Error| error.to_string().split(file).nth(1).unwrap_or_default().to_string();
        rows.map(|rows| rows.into_iter().map(text).collect()).map_err(tell)
    }

    use ColumnSource::{Given, Remembered, Usual};

    /// Reported bug: a tab-separated table named .txt gave one answer too many, and the columns of training were
    /// ignored.
    #[test]
    fn a_txt_file_with_the_columns_of_training_is_a_table() {
        let table = "id\tone\ttwo\n1\ta\tb\n2\tc\td\n";
        for (text, pair, header, source, expected) in [
            ("one", Some("two"), true, Remembered, vec!["a|b", "c|d"]),
            ("one", None, true, Given, vec!["a", "c"]),
            ("2", None, true, Given, vec!["a", "c"]),
            ("2", None, false, Given, vec!["one", "a", "c"]),
            ("2", Some("3"), false, Remembered, vec!["one|two", "a|b", "c|d"]),
        ] {
            let found = read("x.txt", table, &options(text, pair, header, source));
            assert_eq!(found.unwrap(), expected, "{text} {pair:?}");
        }
        let pairs = options("one", Some("two"), true, Remembered);
        assert_eq!(read("x.txt", "a\tb\nc\td\n", &pairs).unwrap(), ["a|b", "c|d"], "a pair on each line");
        assert_eq!(read("x.txt", "one\ttwo\nc\td\n", &pairs).unwrap(), ["c|d"], "with a header");
    }

    #[test]
    fn a_txt_file_without_the_columns_is_refused_or_lines() {
        for (content, text, source, expected) in [
            ("ham\tGo on\nspam\tWin\n", "text", Remembered, Err(":1: found 2 tab-separated fields")),
            ("ham\tGo on\nspam\tWin\n", "text", Given, Err(":1: found no column `text`, expected one of `ham`")),
            ("one\ntwo\tthree\n", "text", Given, Err(":1: found a line without tabs")),
            ("one\ntwo\tthree\n", "text", Remembered, Ok(2)),
            ("ham\tGo on\n", "text", Usual, Ok(1)),
            ("id\ttext\n1\tGo on\n", "text", Usual, Ok(1)),
            ("id\ttext\n1\tGo on\n", "sentence", Remembered, Ok(1)),
            ("text\n", "text", Remembered, Ok(1)),
        ] {
            let found = read("x.txt", content, &options(text, None, true, source));
            match expected {
                Ok(count) => assert_eq!(found.unwrap().len(), count, "{content:?}"),
                Err(expected) => assert!(found.clone().unwrap_err().contains(expected), "{content:?}: {found:?}"),
            }
        }
        let named = Input::new("x.tsv").in_format(Some(Format::Text));
        assert!(!is_table(&named, &options("text", None, true, Given)).unwrap(), "lines were asked for");
    }

    /// Reported bug: after training without a header, the header of another table was answered, and `text` in JSON was
    /// not found.
    #[test]
    fn text_is_a_second_guess_for_the_column_of_training() {
        let headless = options("2", None, false, Remembered);
        assert_eq!(read("x.csv", "text,id\na,1\n", &headless).unwrap(), ["a"]);
        assert_eq!(read("x.jsonl", "{\"text\":\"a\"}\n", &headless).unwrap(), ["a"]);
        let pairs = options("2", Some("3"), false, Remembered);
        let message = read("x.csv", "text,text_pair,id\na,b,1\n", &pairs).unwrap_err();
        assert!(message.contains(":1: found a header, although the training data had none"), "{message}");
        assert_eq!(read("x.csv", "1,a\n2,b\n", &headless).unwrap(), ["a", "b"]);
        let named = options("sentence", None, true, Remembered);
        assert_eq!(read("x.csv", "text,id\na,1\n", &named).unwrap(), ["a"]);
        for (file, content) in [("x.csv", "text,id\na,1\n"), ("x.jsonl", "{\"text\":\"a\"}\n")] {
            let message = read(file, content, &options("sentence", None, true, Given)).unwrap_err();
            assert!(message.contains("found no column `sentence`, expected one of `text`"), "{message}");
        }
    }

    #[test]
    fn names_look_like_a_header() {
        for (names, expected) in [
            (vec!["id", "sentence_A"], true),
            (vec!["#1", "Quality"], false),
            (vec!["id", "a text"], false),
            (vec!["x", "x"], false),
            (vec!["text"], false),
            (vec!["gj04", "1", "", "One."], false),
        ] {
            assert_eq!(is_like_a_header(&names), expected, "{names:?}");
        }
        assert_eq!(quoted(&["a", "b"]), "`a`, `b`");
        assert_eq!(name("2").index().unwrap(), 1);
    }
}
