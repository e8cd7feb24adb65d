//! Reads the rows of `.parquet` files, as published on the Hugging Face Hub: text, numbers, Booleans, and lists and
//! structs of these, compressed with Snappy, zstd or gzip.
//!
//! Whatever the size of the file, rows are read one at a time and pages a few at a time, from the selected columns
//! only. Standard input is first read to its end, since the metadata of a parquet file comes last.

#[cfg(feature = "parquet")]
mod cells;
#[cfg(feature = "parquet")]
mod reading;

use std::path::Path;
use std::sync::Arc;

use bert_model::{Error, Result};
use serde_json::{Map, Value};

use super::kind::FileKind;
use super::source::Input;
use crate::lines::{Line, Lines};

/// An open file, whose column names are known.
pub struct Parquet {
    #[cfg(feature = "parquet")]
    file: reading::Opened,
    path: Arc<Path>,
}

/// Iterates over the selected columns of each row.
pub struct ParquetRows {
    #[cfg(feature = "parquet")]
    rows: reading::Rows,
    path: Arc<Path>,
    read: u64,
    has_failed: bool,
}

impl Parquet {
    /// Opens a file, or reads standard input to its end.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened; [`Error::File`] if it is not a parquet file, is compressed as a
    /// whole, or this build lacks the cargo feature `parquet`.
    pub fn open(input: &Input) -> Result<Self> {
        let path: Arc<Path> = if input.is_stdin() { Path::new("<stdin>").into() } else { input.path.as_path().into() };
        if FileKind::of(&path).compression.is_some() {
            let expected = "an uncompressed file: parquet compresses its columns itself";
            return Err(Error::file(&*path, "a compressed .parquet file", expected));
        }
        #[cfg(feature = "parquet")]
        return Ok(Self { file: reading::open(input, &path)?, path });
        #[cfg(not(feature = "parquet"))]
        Err(Error::file(&*path, "a parquet file, which this build cannot read", "a build with `--features parquet`"))
    }

    /// The name of the file, for messages.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// The column names, in file order.
    pub fn columns(&self) -> Vec<String> {
        #[cfg(feature = "parquet")]
        return self.file.columns();
        #[cfg(not(feature = "parquet"))]
        Vec::new()
    }

    /// The rows, formatted as lines of `.jsonl`.
    ///
    /// # Errors
    /// As [`Parquet::rows`].
    pub fn lines(self) -> Result<Lines> {
        let columns = self.columns();
        let (path, rows) = (self.path.clone(), self.rows(&columns)?);
        let line = move |row: Result<(u64, Vec<Value>)>| {
            let (number, cells) = row?;
            let object: Map<String, Value> = columns.iter().cloned().zip(cells).collect();
            Ok(Line { number, text: Value::Object(object).to_string() })
        };
        Ok(Lines::of_rows(path, rows.map(line)))
    }

    /// The rows, restricted to these columns of the file, in this order.
    ///
    /// # Errors
    /// [`Error::File`] if the file lacks a column (the message lists those it has) or is inconsistent.
    pub fn rows(self, columns: &[String]) -> Result<ParquetRows> {
        let known = self.columns();
        if let Some(missing) = columns.iter().find(|column| !known.contains(column)) {
            let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            return Err(Error::file(
                &*self.path,
                format!("no column `{missing}`"),
                format!("one of {}", known.join(", ")),
            ));
        }
        Ok(ParquetRows {
            #[cfg(feature = "parquet")]
            rows: reading::rows(self.file, columns, &self.path)?,
            path: self.path,
            read: 0,
            has_failed: false,
        })
    }
}

impl ParquetRows {
    /// The name of the file, for messages.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    #[cfg(feature = "parquet")]
    fn next_row(&mut self) -> Result<Option<Vec<Value>>> {
        self.rows.next_row().map_err(|found| damaged(&self.path, self.read + 1, &found))
    }

    #[cfg(not(feature = "parquet"))]
    fn next_row(&mut self) -> Result<Option<Vec<Value>>> {
        Ok(None)
    }
}

/// Yields the number of each row, from 1, and its cells. Iteration ends after the first error.
impl Iterator for ParquetRows {
    type Item = Result<(u64, Vec<Value>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let row = self.next_row().transpose()?;
        self.has_failed = row.is_err();
        self.read += 1;
        Some(row.map(|row| (self.read, row)))
    }
}

/// The error for a row that cannot be read.
#[cfg(feature = "parquet")]
fn damaged(path: &Path, row: u64, found: &str) -> Error {
    Error::line(path, row, format!("damaged data ({found})"), "an intact parquet file: copy it again")
}

#[cfg(all(test, feature = "parquet"))]
mod tests;
