//! The wanted columns of a table, row by row, whatever the table is written in.
//!
//! `.csv` and `.tsv` have their columns' names in a header, or have no header and are addressed by number; `.jsonl` has
//! one object per line and its keys are the columns; `.parquet` knows its columns. A cell is a [`serde_json::Value`]: text
//! in the first two, anything in the others. Rows are read one at a time.

use std::{fmt, path::Path, sync::Arc};

use bert_model::{Error, Result};
use serde_json::{Map, Value};

use super::delimited::{Dialect, Record, Records};
use super::kind::{FileKind, Format, Input};
use super::parquet::{Parquet, ParquetRows};
use crate::lines::{Line, Lines};

/// How a user names a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// A name of the header; if the header lacks it and it is a number, that number.
    Name(String),
    /// From 1.
    Number(usize),
}

impl Column {
    /// Reads a command-line argument; without a header only a number makes sense.
    ///
    /// # Errors
    /// [`Error::Setting`] for a name, or 0, where there is no header.
    pub fn parse(argument: &str, header: bool) -> Result<Self> {
        if header {
            return Ok(Self::Name(argument.to_string()));
        }
        number_from_1(argument).map(|index| Self::Number(index + 1))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The index, from 0, that a number from 1 stands for.
fn position(number: &str) -> Option<usize> {
    number.parse::<usize>().ok()?.checked_sub(1)
}

/// The index of a column where nothing but a number can name it.
fn number_from_1(column: &str) -> Result<usize> {
    let advice = || Error::Setting(format!("column `{column}`: with `--no-header` a column is a number, from 1"));
    position(column).ok_or_else(advice)
}

/// One row's wanted cells, in the order in which they were asked for.
pub struct Cells {
    /// The line on which the row starts, or the number of the row in `.parquet`, from 1.
    pub line: u64,
    /// The cells; text unless the file is `.jsonl` or `.parquet`.
    pub values: Vec<Value>,
    names: Arc<[String]>,
    path: Arc<Path>,
}

impl Cells {
    /// The cell as text: a string as it is, a number or truth value as it is written, nothing as the empty text.
    ///
    /// # Errors
    /// [`Error::Line`] if it is a list or an object.
    pub fn text(&self, index: usize) -> Result<String> {
        scalar(&self.values[index]).ok_or_else(|| self.error(index, "a list or an object", "text or a number"))
    }

    /// The name of the column with this index.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// What is wrong with the cell.
    pub fn error(&self, index: usize, found: impl fmt::Display, expected: impl Into<String>) -> Error {
        Error::line(&self.path, self.line, format!("{found} in column `{}`", self.names[index]), expected)
    }
}

/// The text of a value that is no list and no object.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The rows of a table, cut down to some columns. A table without any row is an error.
pub struct Table {
    path: Arc<Path>,
    names: Arc<[String]>,
    source: Source,
    skip_short: bool,
    read: u64,
    skipped: u64,
}

enum Source {
    Delimited(Delimited),
    Json(Lines),
    Parquet(ParquetRows),
}

/// Where in a record the wanted columns are.
struct Delimited {
    records: Records,
    /// The first record, where it is no header.
    first: Option<Record>,
    positions: Vec<usize>,
    width: usize,
}

impl Table {
    /// Opens a `.csv`, `.tsv`, `.jsonl` or `.parquet` file and finds the columns in its header; the
    /// standard input is read as `.jsonl` unless it has another format.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for another extension or an empty file; [`Error::Line`] for a column that the
    /// header lacks (the message lists those it has).
    pub fn open(input: impl Into<Input>, columns: &[Column], header: bool) -> Result<Self> {
        let input = input.into();
        let dialect = match input.format {
            Some(Format::Csv) => Some(Dialect::Csv),
            // SICK's files are tables with tabs, too.
            Some(Format::Tsv | Format::Text) => Some(Dialect::Tsv),
            Some(Format::JsonLines) => None,
            Some(Format::Parquet) => return Self::parquet(&input, columns),
            None if input.is_stdin() => None,
            _ => {
                let expected = "`.csv`, `.tsv`, `.txt` (tabs) or `.jsonl`, each also `.gz` or `.zst`, or `.parquet`";
                return Err(FileKind::error(&input.path, expected));
            }
        };
        let lines = input.lines()?;
        let path = lines.path().clone();
        let Some(dialect) = dialect else {
            let names = columns.iter().map(Column::to_string).collect();
            return Ok(Self::new(&path, names, Source::Json(lines)));
        };
        let mut records = Records { lines, dialect };
        match records.next().transpose()? {
            None => Err(Error::file(&*path, "an empty file", "a table")),
            Some(first) if header => Self::with_header(&path, records, first, columns),
            Some(first) => Self::without_header(&path, records, first, columns),
        }
    }

    fn parquet(input: &Input, columns: &[Column]) -> Result<Self> {
        let file = Parquet::open(input)?;
        let (path, known) = (file.path().clone(), file.columns());
        // A name that is none may be a number; what is neither is named by the reader.
        let wanted: Vec<String> = columns.iter().map(|column| named(column, &known)).collect();
        Ok(Self::new(&path, wanted.clone().into(), Source::Parquet(file.rows(&wanted)?)))
    }

    fn with_header(path: &Path, records: Records, header: Record, columns: &[Column]) -> Result<Self> {
        let names: Vec<&str> = header.fields.iter().map(|name| name.trim()).collect();
        let find = |column: &Column| {
            let found = match column {
                Column::Name(name) => names.iter().position(|other| other == name).or_else(|| position(name)),
                Column::Number(number) => number.checked_sub(1),
            };
            found.filter(|&position| position < names.len()).ok_or_else(|| {
                let found = format!("no column `{column}`");
                Error::line(
                    path,
                    header.line,
                    found,
                    format!("one of {} (`--no-header` if there is none)", quoted(&names)),
                )
            })
        };
        let positions = columns.iter().map(find).collect::<Result<Vec<_>>>()?;
        let wanted = positions.iter().map(|&position| names[position].to_string()).collect();
        let width = names.len();
        Ok(Self::new(path, wanted, Source::Delimited(Delimited { records, first: None, positions, width })))
    }

    fn without_header(path: &Path, records: Records, first: Record, columns: &[Column]) -> Result<Self> {
        let positions = columns.iter().map(|column| number_from_1(&column.to_string())).collect::<Result<Vec<_>>>()?;
        let names = columns.iter().map(Column::to_string).collect();
        let wanted = positions.iter().map(|position| position + 1).max().unwrap_or_default();
        let width = match records.dialect {
            Dialect::Csv => wanted.max(first.fields.len()),
            Dialect::Tsv => wanted,
        };
        Ok(Self::new(path, names, Source::Delimited(Delimited { records, first: Some(first), positions, width })))
    }

    fn new(path: &Path, names: Arc<[String]>, source: Source) -> Self {
        Self { path: path.into(), names, source, skip_short: false, read: 0, skipped: 0 }
    }

    /// Passes over rows with too few fields instead of refusing them: GLUE's own readers drop such rows of QQP.
    pub fn skip_short_rows(mut self, skip: bool) -> Self {
        self.skip_short = skip;
        self
    }

    /// The number of rows passed over so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The line and the wanted values of the next row, or `None` at the end.
    fn next_row(&mut self) -> Result<Option<(u64, Vec<Value>)>> {
        match &mut self.source {
            Source::Json(lines) => {
                let line = lines.find(|line| !matches!(line, Ok(line) if line.text.trim().is_empty())).transpose()?;
                line.map(|line| Ok((line.number, json_values(&line, &self.names, &self.path)?))).transpose()
            }
            Source::Parquet(rows) => rows.next().transpose(),
            Source::Delimited(source) => loop {
                match source.next_record()? {
                    Some(record) if self.skip_short && record.fields.len() < source.width => self.skipped += 1,
                    Some(record) => return Ok(Some((record.line, source.values(record, &self.path)?))),
                    None => return Ok(None),
                }
            },
        }
    }
}

impl Iterator for Table {
    type Item = Result<Cells>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_row().transpose();
        if row.is_none() && self.read == 0 {
            self.read = 1;
            return Some(Err(Error::file(&*self.path, "no rows", "at least one")));
        }
        self.read += 1;
        let cells = |(line, values)| Cells { line, values, names: self.names.clone(), path: self.path.clone() };
        Some(row?.map(cells))
    }
}

impl Delimited {
    fn next_record(&mut self) -> Result<Option<Record>> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.records.next().transpose(),
        }
    }

    /// The wanted fields, if the record has as many as it should. A TSV record may have more, as some of GLUE's do; a
    /// CSV record with more most likely has a text with a comma and without quotation marks.
    fn values(&self, record: Record, path: &Path) -> Result<Vec<Value>> {
        let found = record.fields.len();
        let (wrong, expected) = match self.records.dialect {
            Dialect::Csv => (found != self.width, "is a text with commas not in quotation marks?"),
            Dialect::Tsv => (found < self.width, "separated by tabs"),
        };
        if wrong {
            let (found, expected) = (format!("{found} field(s)"), format!("{} ({expected})", self.width));
            return Err(Error::line(path, record.line, found, expected));
        }
        // Cloned, since one column may be asked for twice.
        let field = |&position: &usize| Value::String(record.fields[position].clone());
        Ok(self.positions.iter().map(field).collect())
    }
}

fn json_values(line: &Line, names: &[String], path: &Path) -> Result<Vec<Value>> {
    let wrong = |found: String, expected: String| Error::line(path, line.number, found, expected);
    let object: Map<String, Value> = serde_json::from_str(&line.text)
        .map_err(|error| wrong(json_reason(&error), "one JSON object per line".into()))?;
    let value = |name: &String| {
        object.get(name).cloned().ok_or_else(|| {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            wrong(format!("no column `{name}`"), format!("one of {}", quoted(&keys)))
        })
    };
    names.iter().map(value).collect()
}

/// What is wrong with a line of JSON. Its column is kept; the line that serde counts is always 1 here.
pub fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("broken JSON ({reason}, column {})", error.column())
}

/// The name of a column where all have names.
fn named(column: &Column, known: &[String]) -> String {
    let text = column.to_string();
    match known.contains(&text) {
        true => text,
        false => position(&text).and_then(|index| known.get(index).cloned()).unwrap_or(text),
    }
}

/// A list of names for a message.
fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
