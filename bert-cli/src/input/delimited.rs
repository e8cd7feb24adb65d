//! Reads records of separated values: CSV (RFC 4180: quoted fields may contain commas, quotation marks and newlines)
//! and TSV as written by GLUE (a tab always ends a field, a newline always ends a record, a quotation mark is an
//! ordinary character).
//!
//! This reader exists because records must carry the line on which they start, and a quotation mark that is never
//! closed must be an error there, rather than a last field as large as the rest of the file.

use bert_model::{Error, Result};

use crate::lines::Lines;

/// Maximum length of a record, in bytes. A longer one has a quoted field that was never closed.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// How fields are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Fields separated by commas, with quotation marks (RFC 4180).
    Csv,
    /// Fields separated by tabs, without quoting.
    Tsv,
}

/// One record; `line` is its first line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The record's first line, from 1.
    pub line: u64,
    /// The fields, without quotation marks.
    pub fields: Vec<String>,
}

/// Iterates over the records of a file; empty lines are skipped.
pub struct Records {
    /// The lines of the file.
    pub lines: Lines,
    /// How the fields are separated.
    pub dialect: Dialect,
}

impl Records {
    fn next_record(&mut self) -> Option<Result<Record>> {
        let first = match self.lines.find(|line| !matches!(line, Ok(line) if line.text.is_empty()))? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let fields = match self.dialect {
            Dialect::Tsv => Ok(first.text.split('\t').map(str::to_string).collect()),
            Dialect::Csv => self.csv_fields(&first.text, first.number),
        };
        Some(fields.map(|fields| Record { line: first.number, fields }))
    }

    /// Splits a record that starts with `first`, with as many further lines as its quoted fields span.
    fn csv_fields(&mut self, first: &str, line: u64) -> Result<Vec<String>> {
        let mut fields = CsvFields::default();
        fields.push_line(first);
        let mut bytes = first.len();
        while fields.quoted {
            match self.lines.next().transpose()? {
                Some(next) if bytes < MAX_RECORD_BYTES => {
                    bytes += 1 + next.text.len();
                    fields.current.push('\n');
                    fields.push_line(&next.text);
                }
                _ => {
                    return Err(Error::line(self.lines.path(), line, "an unclosed quotation mark", "a closing one"));
                }
            }
        }
        fields.finish_field();
        Ok(fields.done)
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record()
    }
}

/// A CSV record under construction.
#[derive(Default)]
struct CsvFields {
    done: Vec<String>,
    current: String,
    quoted: bool,
}

impl CsvFields {
    fn push_line(&mut self, line: &str) {
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if self.quoted && characters.next_if_eq(&'"').is_some() => self.current.push('"'),
                '"' if self.quoted => self.quoted = false,
                // A quotation mark quotes a field only at its start: `5" pipe` is text.
                '"' if self.current.is_empty() => self.quoted = true,
                ',' if !self.quoted => self.finish_field(),
                other => self.current.push(other),
            }
        }
    }

    fn finish_field(&mut self) {
        self.done.push(std::mem::take(&mut self.current));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(dialect: Dialect, text: &'static str) -> Vec<Result<Record>> {
        Records { lines: Lines::of(text), dialect }.collect()
    }

    fn fields(dialect: Dialect, text: &'static str) -> Vec<Vec<String>> {
        records(dialect, text).into_iter().map(|record| record.unwrap().fields).collect()
    }

    #[test]
    fn csv_quoting() {
        let text = "a,\"b, \"\"c\"\"\r\nd\",\r\n\"\",5\" pipe,\"\"\"\"\n";
        assert_eq!(fields(Dialect::Csv, text), [["a", "b, \"c\"\nd", ""], ["", "5\" pipe", "\""]]);
    }

    #[test]
    fn tsv_has_no_quoting() {
        assert_eq!(fields(Dialect::Tsv, "\" a\tb\"\r\n\tc\n"), [["\" a", "b\""], ["", "c"]]);
    }

    #[test]
    fn records_know_their_first_line() {
        let lines: Vec<u64> =
            records(Dialect::Csv, "a\n\n\"b\r\nc\"\r\n\r\nd\n").into_iter().map(|r| r.unwrap().line).collect();
        assert_eq!(lines, [1, 3, 6]);
    }

    /// Quoted fields that are closed and reopened on every line form one record, which must not grow without limit.
    #[test]
    fn a_record_has_a_bound() {
        let line = format!("\",{},\"\n", "a".repeat(1 << 20));
        let text: &str = Box::leak(format!("\"\n{}\"\nb\n", line.repeat(20)).into_boxed_str());
        let error = records(Dialect::Csv, text).swap_remove(0).unwrap_err();
        assert_eq!(error.to_string(), "x:1: found an unclosed quotation mark, expected a closing one");
    }

    #[test]
    fn an_unclosed_quotation_mark_is_found_where_it_opens() {
        let error = records(Dialect::Csv, "a,b\nc,\"d\ne,f\n").pop().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "x:2: found an unclosed quotation mark, expected a closing one");
    }
}
