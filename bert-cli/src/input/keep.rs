//! Copies input columns (`--keep`) and row numbers into a command's answers.
//!
//! Readers send one [`KeptRow`] per row, in row order, over a separate channel, so that tasks need not know about
//! columns that they do not use.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use bert_model::{Error, Result};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// The sending end: the columns to keep, and the channel for their cells.
#[derive(Debug, Clone)]
pub struct Keep {
    /// Names of columns, or numbers from 1, in the order in which they were requested.
    pub columns: Vec<String>,
    rows: Sender<KeptRow>,
}

/// The row that an answer belongs to: its number and the kept cells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeptRow {
    /// The row number, from 1; `None` for a text given as an argument.
    pub row: Option<u64>,
    /// The kept cells with the names of their columns, in the order in which they were requested.
    pub cells: Vec<(String, Value)>,
}

/// The receiving end of a [`Keep`].
#[derive(Debug)]
pub struct KeptRows {
    rows: Receiver<KeptRow>,
    has_columns: bool,
    taken: u64,
}

/// Creates a [`Keep`] for these columns, and the receiver of its rows.
pub fn keep(columns: Vec<String>) -> (Keep, KeptRows) {
    let (sender, receiver) = channel();
    let has_columns = !columns.is_empty();
    (Keep { columns, rows: sender }, KeptRows { rows: receiver, has_columns, taken: 0 })
}

impl Keep {
    /// Sends the kept cells of a row. Does nothing if the receiver was dropped.
    pub fn send(&self, row: u64, cells: Vec<(String, Value)>) {
        let _ = self.rows.send(KeptRow { row: Some(row), cells });
    }

    /// Sends the kept fields of a JSON object in line `line` of `path`. A missing field is null, except in the first
    /// row, where it means that the name is wrong.
    ///
    /// # Errors
    /// [`Error::Line`] if the first object lacks a field.
    pub fn send_fields(&self, row: u64, object: &Map<String, Value>, path: &Path, line: u64) -> Result<()> {
        let mut cells = Vec::new();
        for name in &self.columns {
            let value = match object.get(name) {
                Some(value) => value.clone(),
                None if row > 1 => Value::Null,
                None => {
                    let names: Vec<String> = object.keys().map(|key| format!("`{key}`")).collect();
                    let found = format!("no field `{name}` for --keep");
                    return Err(Error::line(path, line, found, format!("one of {}", names.join(", "))));
                }
            };
            cells.push((name.clone(), value));
        }
        self.send(row, cells);
        Ok(())
    }
}

impl KeptRows {
    /// Receives the kept cells of the next row, which must already have been read.
    ///
    /// # Errors
    /// [`Error::Usage`] if columns were requested from a kind of file that has none.
    pub fn next_row(&mut self) -> Result<KeptRow> {
        self.taken += 1;
        match self.rows.try_recv() {
            Ok(row) => Ok(row),
            Err(_) if self.has_columns => {
                Err(Error::Usage("--keep has no effect here: the input has no columns".into()))
            }
            Err(_) => Ok(KeptRow { row: Some(self.taken), cells: Vec::new() }),
        }
    }
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a, A> {
    #[serde(flatten)]
    front: Map<String, Value>,
    #[serde(flatten)]
    answer: &'a A,
}

impl KeptRow {
    /// Writes an answer, a JSON object, as a line of JSON, with the row number and the kept cells in front. A cell
    /// whose name is already used, by the answer or another cell, becomes `input_NAME`.
    ///
    /// # Errors
    /// If the answer cannot be expressed in JSON, or `output` cannot be written.
    pub fn write_line(&self, answer: &impl Serialize, output: &mut impl Write) -> io::Result<()> {
        let mut front = Map::new();
        if let Some(row) = self.row {
            front.insert("row".into(), row.into());
        }
        if !self.cells.is_empty() {
            let fields: BTreeMap<String, IgnoredAny> = serde_json::from_str(&serde_json::to_string(answer)?)?;
            for (name, value) in &self.cells {
                let mut name = name.clone();
                while name == "row" || fields.contains_key(&name) || front.contains_key(&name) {
                    name.insert_str(0, "input_");
                }
                front.insert(name, value.clone());
            }
        }
        // Written as it is serialized: an answer may have many times the size of its text.
        serde_json::to_writer(&mut *output, &Line { front, answer })?;
        output.write_all(b"\n")
    }

    /// Puts the kept cells in front of a plain answer, separated by tabs. Tabs and line breaks within a cell become
    /// spaces.
    pub fn plain(&self, answer: &str) -> String {
        let cell = |value: &Value| match value {
            Value::String(text) => text.replace(['\t', '\n', '\r'], " "),
            other => other.to_string(),
        };
        let cells: String = self.cells.iter().map(|(_, value)| cell(value) + "\t").collect();
        cells + answer
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn cells(value: Value) -> Vec<(String, Value)> {
        object(value).into_iter().collect()
    }

    #[test]
    fn answers_carry_their_row_and_lose_no_cell_to_a_field_of_the_same_name() {
        let row = KeptRow { row: Some(7), cells: cells(json!({"id": "a\tb", "label": [1], "row": 2})) };
        let line = |row: &KeptRow, answer: Value| {
            let mut line = Vec::new();
            row.write_line(&answer, &mut line).unwrap();
            String::from_utf8(line).unwrap()
        };
        let expected = json!({"row": 7, "id": "a\tb", "input_label": [1], "input_row": 2, "label": "good"});
        assert_eq!(line(&row, json!({"label": "good"})), format!("{expected}\n"));
        assert_eq!(row.plain("good 0.98"), "a b\t[1]\t2\tgood 0.98");
        let names = cells(json!({"input_label": 1, "label": 2}));
        let row = KeptRow { row: None, cells: [names, cells(json!({"label": 3}))].concat() };
        let expected = json!({"input_label": 1, "input_input_label": 2, "input_input_input_label": 3, "label": "good"});
        assert_eq!(line(&row, json!({"label": "good"})), format!("{expected}\n"));
        assert_eq!(line(&KeptRow::default(), json!({"label": "good"})), "{\"label\":\"good\"}\n");
        assert_eq!(line(&KeptRow { row: Some(1), ..KeptRow::default() }, json!({})), "{\"row\":1}\n");
    }

    #[test]
    fn a_field_may_be_missing_in_a_later_line_and_not_in_the_first() {
        let (keep, mut rows) = keep(vec!["id".into()]);
        let path = Path::new("x.jsonl");
        keep.send_fields(1, &object(json!({"id": {"a": 1}})), path, 3).unwrap();
        keep.send_fields(2, &object(json!({"text": "x"})), path, 4).unwrap();
        let ids: Vec<Value> = (0..2).map(|_| rows.next_row().unwrap().cells.remove(0).1).collect();
        assert_eq!(ids, [json!({"a": 1}), Value::Null]);
        let message = keep.send_fields(1, &object(json!({"text": "x"})), path, 3).unwrap_err().to_string();
        assert_eq!(message, "x.jsonl:3: found no field `id` for --keep, expected one of `text`");
    }

    #[test]
    fn rows_are_counted_where_the_reader_passes_none_on() {
        let (_keep, mut rows) = keep(Vec::new());
        assert_eq!([rows.next_row().unwrap().row, rows.next_row().unwrap().row], [Some(1), Some(2)]);
        let (_keep, mut rows) = keep(vec!["1".into()]);
        assert!(rows.next_row().is_err());
    }
}
