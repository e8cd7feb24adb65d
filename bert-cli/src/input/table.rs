//! Reads texts with labels from a table: each row has one text or a pair, and a class, a number, or any number of
//! labels.
//!
//! [`super::columns`] handles the file formats; this module converts cells to texts and labels. Multi-label data comes
//! in three forms: a JSON list, one cell with separators (`joy|surprise`), or a column of 0 and 1 for each label.

use bert_model::{Error, Result};
use serde_json::Value;

use super::columns::{Cells, Column, Table, scalar};
use super::header::ColumnSource;
use super::source::Input;

/// The separators to try if none is given, in this order: the first one that occurs in the cell splits it.
const SEPARATORS: [char; 3] = ['|', ';', ','];

/// Which columns to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// The column of the text.
    pub text: Column,
    /// The column of the second text of a pair.
    pub text_pair: Option<Column>,
    /// The labels; `None` reads texts only.
    pub label: Option<LabelColumns>,
    /// Whether the first line names the columns; ignored for `.jsonl`.
    pub header: bool,
    /// Whether rows with too few fields are skipped (and counted) instead of rejected.
    pub skip_short_rows: bool,
    /// Where the column names come from.
    pub source: ColumnSource,
}

/// The columns that contain a row's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelColumns {
    /// A class or a number.
    One(Column),
    /// Any number of labels in one cell: a JSON list, or text with separators (by default the first of `|`, `;` and `,`
    /// that occurs).
    List {
        /// The column of the labels.
        column: Column,
        /// The separator; `None` to detect it.
        separator: Option<char>,
    },
    /// One column per label, with 1 (`true`) or 0 (`false`, empty); the column's name is the label.
    Indicators(Vec<Column>),
}

impl TableOptions {
    /// Reads the texts of one column, named by a header.
    pub fn texts(text: Column) -> Self {
        Self { text, text_pair: None, label: None, header: true, skip_short_rows: false, source: ColumnSource::Usual }
    }
}

impl LabelColumns {
    /// Parses `--label` of the multi-label task: one column, or several separated by commas, one for each label.
    ///
    /// # Errors
    /// Those of [`Column::parse`].
    pub fn parse_multi(argument: &str, header: bool) -> Result<Self> {
        let mut columns =
            argument.split(',').map(|column| Column::parse(column, header)).collect::<Result<Vec<_>>>()?;
        Ok(match columns.len() {
            1 => Self::List { column: columns.remove(0), separator: None },
            _ => Self::Indicators(columns),
        })
    }

    fn columns(&self) -> &[Column] {
        match self {
            Self::One(column) | Self::List { column, .. } => std::slice::from_ref(column),
            Self::Indicators(columns) => columns,
        }
    }
}

/// An example as written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line on which the row starts, from 1.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text, if pairs are read.
    pub pair: Option<String>,
    /// The labels: at most one for [`LabelColumns::One`] (none if the cell is empty), any number for the other
    /// variants, none if labels are not read.
    pub labels: Vec<String>,
}

/// Iterates over the rows of a table, reading one at a time.
pub struct Rows {
    table: Table,
    options: TableOptions,
}

/// Opens a `.csv`, `.tsv` or `.jsonl` file, compressed or not, or a `.parquet` file.
///
/// # Errors
/// Those of [`Table::open`]. A row yields an error for too few fields, malformed JSON, or a label of the wrong form.
pub fn read_table(input: impl Into<Input>, options: &TableOptions) -> Result<Rows> {
    let labels = options.label.iter().flat_map(LabelColumns::columns);
    let columns: Vec<Column> = [&options.text].into_iter().chain(&options.text_pair).chain(labels).cloned().collect();
    let table = Table::open(input, &columns, options.header, options.source)?;
    let table = table.skip_short_rows(options.skip_short_rows);
    Ok(Rows { table, options: options.clone() })
}

impl Rows {
    /// The names of the label columns; their numbers in a table without a header.
    pub fn label_names(&self) -> &[String] {
        &self.table.names()[1 + usize::from(self.options.text_pair.is_some())..]
    }

    /// The number of rows with too few fields that were skipped so far.
    pub fn skipped(&self) -> u64 {
        self.table.skipped()
    }

    fn row(&self, cells: &Cells) -> Result<Row> {
        let has_pair = self.options.text_pair.is_some();
        let pair = has_pair.then(|| cells.text(1)).transpose()?;
        let first_label = 1 + usize::from(has_pair);
        let labels = match &self.options.label {
            None => Vec::new(),
            Some(LabelColumns::One(_)) => one_label(cells, first_label)?.into_iter().collect(),
            Some(LabelColumns::List { separator, .. }) => listed_labels(cells, first_label, *separator)?,
            Some(LabelColumns::Indicators(columns)) => indicated_labels(cells, first_label, columns.len())?,
        };
        Ok(Row { line: cells.line, text: cells.text(0)?, pair, labels })
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let cells = self.table.next()?;
        Some(cells.and_then(|cells| self.row(&cells)))
    }
}

/// The class or number in a cell; `None` if the cell is empty.
fn one_label(cells: &Cells, index: usize) -> Result<Option<String>> {
    let label = cells.text(index)?.trim().to_string();
    Ok((!label.is_empty()).then_some(label))
}

fn listed_labels(cells: &Cells, index: usize, separator: Option<char>) -> Result<Vec<String>> {
    let labels = match &cells.values[index] {
        Value::Array(labels) => json_labels(labels).ok_or_else(|| list_error(cells, index))?,
        Value::Object(_) => return Err(list_error(cells, index)),
        _ => {
            let text = cells.text(index)?;
            let list = serde_json::from_str::<Vec<Value>>(&text).ok();
            list.and_then(|list| json_labels(&list)).unwrap_or_else(|| separated(&text, separator))
        }
    };
    // A list of 0 and 1 for each label does not say which label is which.
    match labels.iter().enumerate().find(|(place, label)| labels[..*place].contains(label)) {
        Some((_, label)) => Err(cells.error(
            index,
            format!("the label `{label}` twice"),
            "the names of the labels that apply (for a column of 0 and 1 per label, pass `--label COL,COL…`)",
        )),
        None => Ok(labels),
    }
}

fn json_labels(labels: &[Value]) -> Option<Vec<String>> {
    labels.iter().map(scalar).collect()
}

fn separated(text: &str, separator: Option<char>) -> Vec<String> {
    let separator = separator.or_else(|| SEPARATORS.into_iter().find(|&separator| text.contains(separator)));
    let labels: Vec<&str> = match separator {
        Some(separator) => text.split(separator).collect(),
        None => vec![text],
    };
    labels.into_iter().map(str::trim).filter(|label| !label.is_empty()).map(str::to_string).collect()
}

fn list_error(cells: &Cells, index: usize) -> Error {
    cells.error(index, "another kind of value", "a list of labels, or labels separated by `|`")
}

/// The labels whose columns contain 1. A −1 marks a row without a label (as in the test file of Jigsaw's toxic
/// comments); it is then returned as the only label.
fn indicated_labels(cells: &Cells, first: usize, count: usize) -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for index in first..first + count {
        let text = cells.text(index)?;
        match text.trim().to_lowercase().as_str() {
            "1" | "1.0" | "true" => labels.push(cells.name(index).to_string()),
            "" | "0" | "0.0" | "false" => {}
            "-1" | "-1.0" => return Ok(vec![text.trim().to_string()]),
            _ => return Err(cells.error(index, format!("`{text}`"), "1 or 0")),
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn name(name: &str) -> Column {
        Column::Name(name.to_string())
    }

    fn options(label: LabelColumns) -> TableOptions {
        TableOptions { label: Some(label), ..TableOptions::texts(name("text")) }
    }

    fn read(file: &str, content: &str, options: &TableOptions) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        read_table(&path, options)?.collect()
    }

    /// The reader's message about a bad file, without the directory.
    fn message(file: &str, content: &str, options: &TableOptions) -> String {
        let message = read(file, content, options).unwrap_err().to_string();
        message[message.find(file).unwrap_or_default()..].to_string()
    }

    fn labels(file: &str, content: &str, label: LabelColumns) -> Vec<Vec<String>> {
        read(file, content, &options(label)).unwrap().into_iter().map(|row| row.labels).collect()
    }

    #[test]
    fn the_same_rows_from_every_format() {
        let mut options = options(LabelColumns::One(name("label")));
        options.text_pair = Some(name("pair"));
        let files = [
            ("x.csv", "\u{feff}label,text,pair\r\n1,\"a, b\",\r\n2,c,\"d\"\r\n"),
            ("x.tsv", "\u{feff}label\ttext\tpair\r\n1\ta, b\t\r\n2\tc\td\textra\r\n"),
            (
                "x.jsonl",
                "{\"text\":\"a, b\",\"pair\":null,\"label\":1}\n\n{\"text\":\"c\",\"pair\":\"d\",\"label\":\"2\"}\n",
            ),
        ];
        for (file, content) in files {
            let rows = read(file, content, &options).unwrap();
            let fields: Vec<_> = rows.iter().map(|r| (&*r.text, r.pair.as_deref(), &*r.labels[0])).collect();
            assert_eq!(fields, [("a, b", Some(""), "1"), ("c", Some("d"), "2")], "{file}");
        }
    }

    #[test]
    fn columns_by_number() {
        let cola = TableOptions {
            text: Column::Number(4),
            label: Some(LabelColumns::One(Column::Number(2))),
            header: false,
            ..options(LabelColumns::One(name("label")))
        };
        let rows = read("x.tsv", "gj04\t1\t\tOne.\ngj04\t0\t*\t\"Two.\n", &cola).unwrap();
        assert_eq!((&*rows[1].text, &*rows[1].labels[0], rows[1].line), ("\"Two.", "0", 2));
        let numbered = TableOptions { text: name("2"), ..options(LabelColumns::One(name("1"))) };
        assert_eq!(read("x.csv", "a,b\nx,y\n", &numbered).unwrap()[0].text, "y");
        assert!(Column::parse("text", false).unwrap_err().to_string().contains("`--no-header`"));
        assert!(Column::parse("0", false).is_err());
    }

    #[test]
    fn errors_name_the_place() {
        let options = options(LabelColumns::One(name("label")));
        let cases = [
            ("x.csv", "", "x.csv: found an empty file, expected a table"),
            ("x.csv", "text,label\n", "x.csv: found no rows, expected at least one"),
            (
                "x.csv",
                "id,text\n1,a\n",
                "x.csv:1: found no column `label`, expected one of `id`, `text` (`--no-header`",
            ),
            (
                "x.csv",
                "text,label\na,1\nb, c,1\n",
                "x.csv:3: found 3 field(s), expected 2 (is there an unquoted text with commas",
            ),
            ("x.tsv", "text\tlabel\n\na\n", "x.tsv:3: found 1 field(s), expected 2 (separated by tabs)"),
            ("x.jsonl", "{\"text\":\"a\"}\n", "x.jsonl:1: found no column `label`, expected one of `text`"),
            (
                "x.jsonl",
                "\n{\"text\":",
                "x.jsonl:2: found broken JSON (EOF while parsing a value, column 8), expected one",
            ),
            ("x.jsonl", "{\"text\":[],\"label\":1}", "x.jsonl:1: found a list or an object in column `text`, expected"),
            ("x.xlsx", "", "x.xlsx: found the extension `xlsx`, expected `.csv`, `.tsv`, `.txt` (tabs) or `.jsonl`"),
        ];
        for (file, content, expected) in cases {
            let message = message(file, content, &options);
            assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
        }
    }

    #[test]
    fn short_rows_may_be_passed_over() {
        let options = TableOptions { skip_short_rows: true, ..options(LabelColumns::One(name("label"))) };
        assert_eq!(read("x.tsv", "text\tlabel\na\nb\t1\n", &options).unwrap().len(), 1);
    }

    #[test]
    fn many_labels_in_three_shapes() {
        let list = || LabelColumns::List { column: name("label"), separator: None };
        let expected = [vec!["joy", "fear"], vec![], vec!["joy"]];
        assert_eq!(labels("x.tsv", "text\tlabel\na\tjoy|fear\nb\t\nc\tjoy\n", list()), expected);
        assert_eq!(labels("x.csv", "text,label\na,\"joy, fear\"\nb,[]\nc,\"[\"\"joy\"\"]\"\n", list()), expected);
        let json = r#"{"text":"a","label":["joy","fear"]}
                      {"text":"b","label":[]}
                      {"text":"c","label":"joy"}"#;
        assert_eq!(labels("x.jsonl", json, list()), expected);
        let indicators = LabelColumns::parse_multi("joy,fear", true).unwrap();
        assert_eq!(labels("x.csv", "text,joy,fear\na,1,1\nb,0,0\nc,1.0,\n", indicators), expected);
        let many_hot = r#"{"text":"a","label":[0.0,1.0,0.0]}"#;
        let message = message("x.jsonl", many_hot, &options(list()));
        assert!(message.starts_with("x.jsonl:1: found the label `0.0` twice in column `label`, expected"), "{message}");
        let explicit = LabelColumns::List { column: name("label"), separator: Some('/') };
        assert_eq!(labels("x.tsv", "text\tlabel\na\tfood, drink/art\n", explicit), [["food, drink", "art"]]);
    }
}
