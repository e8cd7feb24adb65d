//! Reads selected columns of a table row by row, independently of the file format.
//!
//! Columns of `.csv` and `.tsv` are named by a header or, without one, addressed by number; `.jsonl` has one object per
//! line, whose keys are the columns. A cell is a [`serde_json::Value`]: a string in `.csv` and `.tsv`, any value in
//! `.jsonl`. Rows are read one at a time.

use std::{fmt, path::Path, sync::Arc};

use bert_model::{Error, Result};
use serde_json::{Map, Value};

use super::delimited::{Dialect, Record, Records};
use super::header::{ColumnSource, Located, TEXT, locate, locate_kept, quoted, second_guess};
use super::keep::Keep;
use super::kind::Format;
use super::source::Input;
use crate::lines::{Line, Lines};
use crate::warning::warn_once;

/// How a user names a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// A name in the header. If the header lacks it and it is a number, it means the column with that number.
    Name(String),
    /// A number, from 1.
    Number(usize),
}

impl Column {
    /// Parses a command-line argument. Without a header, only a number is valid.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name or 0 if there is no header.
    pub fn parse(argument: &str, header: bool) -> Result<Self> {
        if header {
            return Ok(Self::Name(argument.to_string()));
        }
        let number = Self::Name(argument.to_string());
        number.index().map(|index| Self::Number(index + 1))
    }

    /// The index of a numbered column, from 0.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name, and for 0.
    pub(super) fn index(&self) -> Result<usize> {
        let number = match self {
            Self::Name(name) => name.parse().ok(),
            Self::Number(number) => Some(*number),
        };
        number
            .and_then(|number: usize| number.checked_sub(1))
            .ok_or_else(|| Error::Usage(format!("column `{self}`: with `--no-header`, columns are numbered from 1")))
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

/// The selected cells of a row, in the order in which they were requested.
pub struct Cells {
    /// The line on which the row starts, from 1.
    pub line: u64,
    /// The cells; strings unless the file is `.jsonl`.
    pub values: Vec<Value>,
    names: Arc<[String]>,
    path: Arc<Path>,
}

impl Cells {
    /// The cell as text: a string unchanged, a number or Boolean as written, null as the empty string.
    ///
    /// # Errors
    /// [`Error::Line`] if the cell is a list or an object.
    pub fn text(&self, index: usize) -> Result<String> {
        scalar(&self.values[index]).ok_or_else(|| self.error(index, "a list or an object", "text or a number"))
    }

    /// The name of the column with this index.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// Creates an error about the cell.
    pub fn error(&self, index: usize, found: impl fmt::Display, expected: impl Into<String>) -> Error {
        Error::line(&self.path, self.line, format!("{found} in column `{}`", self.names[index]), expected)
    }
}

/// The text of a value, or `None` for a list or an object.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Iterates over the rows of a table, restricted to some columns. A table without rows is an error.
pub struct Table {
    path: Arc<Path>,
    names: Arc<[String]>,
    source: Source,
    /// Receives the number of each row and the cells to keep.
    keep: Option<Keep>,
    skip_short: bool,
    read: u64,
    skipped: u64,
}

enum Source {
    Delimited(Delimited),
    Json { lines: Lines, columns: ColumnSource },
}

/// The positions of the selected columns in a record.
struct Delimited {
    records: Records,
    /// The first record, unless it is a header.
    first: Option<Record>,
    positions: Vec<usize>,
    /// The least number of fields of a record.
    width: usize,
    /// Whether to tell that a record has more fields than the header: the first time.
    tells_excess: bool,
}

impl Table {
    /// Opens a `.csv`, `.tsv`, `.jsonl` or `.parquet` file and finds the columns in its header. For standard input or a
    /// file with an unknown extension, the first line decides between JSON lines and tab-separated fields.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for any other format or an empty file; [`Error::Line`] for a column that is not
    /// in the header (the message lists those that are).
    pub fn open(input: impl Into<Input>, columns: &[Column], header: bool, source: ColumnSource) -> Result<Self> {
        const EXPECTED: &str = "`.csv`, `.tsv`, `.txt` (tabs) or `.jsonl`, each also `.gz` or `.zst`, or `.parquet`";
        let input = input.into();
        if input.conversion().is_some() && !input.format.is_some_and(Format::has_columns) {
            return Err(input.error(EXPECTED));
        }
        let mut lines = input.lines()?;
        let dialect = match input.format.or_else(|| lines.sniff()) {
            Some(Format::Csv) => Some(Dialect::Csv),
            // SICK's `.txt` files are tab-separated tables, too.
            Some(Format::Tsv | Format::Text) => Some(Dialect::Tsv),
            Some(Format::JsonLines | Format::Parquet) => None,
            _ => return Err(input.error(EXPECTED)),
        };
        let path = lines.path().clone();
        let Some(dialect) = dialect else {
            let names = columns.iter().map(Column::to_string).collect();
            let rows = Source::Json { lines, columns: source };
            return Ok(Self { keep: input.keep, ..Self::new(&path, names, rows) });
        };
        let kept = input.keep.as_ref().map_or(&[][..], |keep| &keep.columns);
        let mut records = Records { lines, dialect };
        let table = match records.next().transpose()? {
            None => Err(Error::file(&*path, "an empty file", "a table")),
            Some(first) => Self::of_records(&path, records, first, (columns, kept), (header, source)),
        };
        Ok(Self { keep: input.keep, ..table? })
    }

    fn of_records(
        path: &Path,
        records: Records,
        first: Record,
        (columns, kept): (&[Column], &[String]),
        (header, source): (bool, ColumnSource),
    ) -> Result<Self> {
        let Located { mut positions, is_header } = locate(path, &first, columns, header, source)?;
        // The columns to keep come last.
        for name in kept {
            positions.push(locate_kept(path, &first, name, is_header)?);
        }
        let columns = columns.iter().map(Column::to_string).chain(kept.iter().cloned());
        let wanted = positions.iter().map(|position| position + 1).max().unwrap_or_default();
        let width = match records.dialect {
            Dialect::Tsv if !is_header => wanted,
            _ => wanted.max(first.fields.len()),
        };
        let names = positions.iter().zip(columns).map(|(&position, column)| match first.fields.get(position) {
            Some(name) if is_header => name.trim().to_string(),
            _ => column,
        });
        let names = names.collect();
        let first = (!is_header).then_some(first);
        let delimited = Delimited { records, first, positions, width, tells_excess: is_header };
        Ok(Self::new(path, names, Source::Delimited(delimited)))
    }

    fn new(path: &Path, names: Arc<[String]>, source: Source) -> Self {
        Self { path: path.into(), names, source, keep: None, skip_short: false, read: 0, skipped: 0 }
    }

    /// Skips rows with too few fields instead of rejecting them: GLUE's own readers drop such rows of QQP.
    pub fn skip_short_rows(mut self, skip: bool) -> Self {
        self.skip_short = skip;
        self
    }

    /// The names of the columns, those to keep included.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of rows skipped so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The line number and the selected values of the next row, or `None` at the end.
    fn next_row(&mut self) -> Result<Option<(u64, Vec<Value>)>> {
        match &mut self.source {
            Source::Json { lines, columns } => {
                let line = lines.find(|line| !matches!(line, Ok(line) if line.text.trim().is_empty())).transpose()?;
                let Some(line) = line else { return Ok(None) };
                let object = json_object(&line, &self.path)?;
                let values = json_values(&object, &self.names, *columns, &self.path, line.number)?;
                if let Some(keep) = &self.keep {
                    keep.send_fields(self.read + 1, &object, &self.path, line.number)?;
                }
                Ok(Some((line.number, values)))
            }
            Source::Delimited(source) => loop {
                match source.next_record()? {
                    Some(record) if self.skip_short && record.fields.len() < source.width => self.skipped += 1,
                    Some(record) => {
                        let (line, mut values) = (record.line, source.values(record, &self.path)?);
                        if let Some(keep) = &self.keep {
                            let wanted = values.len() - keep.columns.len();
                            let cells = self.names[wanted..].iter().cloned().zip(values.drain(wanted..));
                            keep.send(self.read + self.skipped + 1, cells.collect());
                        }
                        return Ok(Some((line, values)));
                    }
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

    /// The selected fields, if the record has the right number of fields. A TSV record may have more, as some of GLUE's
    /// do; a CSV record with more most likely contains an unquoted text with a comma.
    fn values(&mut self, record: Record, path: &Path) -> Result<Vec<Value>> {
        let found = record.fields.len();
        let (wrong, expected) = match self.records.dialect {
            Dialect::Csv => (found != self.width, "is there an unquoted text with commas?"),
            Dialect::Tsv => (found < self.width, "separated by tabs"),
        };
        if wrong {
            let (found, expected) = (format!("{found} field(s)"), format!("{} ({expected})", self.width));
            return Err(Error::line(path, record.line, found, expected));
        }
        if self.tells_excess && found > self.width {
            let place = format!("{}:{}", path.display(), record.line);
            warn_once(format!("{place}: {found} fields, more than in the header: those of its columns are read"));
            self.tells_excess = false;
        }
        // Cloned, since the same column may be requested twice.
        let field = |&position: &usize| Value::String(record.fields[position].clone());
        Ok(self.positions.iter().map(field).collect())
    }
}

/// Parses a line of JSON that must be an object.
///
/// # Errors
/// [`Error::Line`] if the line is not an object.
pub fn json_object(line: &Line, path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_str(&line.text)
        .map_err(|error| Error::line(path, line.number, json_reason(&error), "one JSON object per line"))
}

fn json_values(
    object: &Map<String, Value>,
    names: &[String],
    source: ColumnSource,
    path: &Path,
    line: u64,
) -> Result<Vec<Value>> {
    let guess = |index: usize, name: &String| {
        let text = object.get(TEXT).filter(|_| index == 0 && source == ColumnSource::Remembered)?;
        warn_once(second_guess(path, &Column::Name(name.clone())));
        Some(text)
    };
    let value = |(index, name): (usize, &String)| {
        object.get(name).or_else(|| guess(index, name)).cloned().ok_or_else(|| {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Error::line(path, line, format!("no column `{name}`"), format!("one of {}", quoted(&keys)))
        })
    };
    names.iter().enumerate().map(value).collect()
}

/// Describes what is wrong with a line of JSON. The column is kept; serde's line number is dropped, since it is always
/// 1 here.
pub fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("broken JSON ({reason}, column {})", error.column())
}
