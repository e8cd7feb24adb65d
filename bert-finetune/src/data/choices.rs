//! Reads multiple-choice examples (SWAG, COPA, CosmosQA): a text, optionally a second one such as a question, and
//! several choices, exactly one of which is correct.
//!
//! Choices have a column each, or a list in one column of a `.jsonl` file. For the file formats, see
//! [`bert_cli::input::columns`].

use bert_cli::input::columns::{Cells, Column, Table, scalar};
use bert_cli::input::header::ColumnSource;
use bert_cli::input::source::Input;
use bert_model::{Error, Result};
use serde_json::Value;

use super::is_unlabeled;

/// The columns to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceOptions {
    /// The text that the choices continue.
    pub text: Column,
    /// An optional second text, such as a question, joined to the first.
    pub text_pair: Option<Column>,
    /// One column per choice, or a single column with a list.
    pub choices: Vec<Column>,
    /// The correct choice: its index from 0 or the name of its column. `None` reads unlabeled examples.
    pub label: Option<Column>,
    /// Whether the first line has column names; irrelevant for `.jsonl`.
    pub header: bool,
    /// Where the column names come from.
    pub source: ColumnSource,
}

/// One multiple-choice example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceRow {
    /// Line on which the row starts, from 1.
    pub line: u64,
    /// The text that the choices continue.
    pub text: String,
    /// The second text, if its column is read.
    pub pair: Option<String>,
    /// The choices, at least two.
    pub choices: Vec<String>,
    /// Index of the correct choice, if labels are read and the row has one.
    pub label: Option<usize>,
}

/// Opens a `.csv`, `.tsv` or `.jsonl` file, or standard input (`-`, as `.jsonl`). Rows are read one at a time.
///
/// # Errors
/// Those of [`Table::open`], and [`Error::Usage`] without choices. A row yields an error if it has fewer than two
/// choices or an invalid label.
pub fn read_choices(
    input: impl Into<Input>,
    options: &ChoiceOptions,
) -> Result<Box<dyn Iterator<Item = Result<ChoiceRow>> + Send>> {
    if options.choices.is_empty() {
        let expected = "the columns of the choices, such as --choices ending0,ending1";
        return Err(Error::Usage(format!("--choices: found none, expected {expected}")));
    }
    let columns: Vec<Column> = [&options.text]
        .into_iter()
        .chain(&options.text_pair)
        .chain(&options.choices)
        .chain(&options.label)
        .cloned()
        .collect();
    let layout = Layout {
        has_pair: options.text_pair.is_some(),
        choices: options.choices.len(),
        has_label: options.label.is_some(),
        has_names: options.header,
    };
    let table = Table::open(input, &columns, options.header, options.source)?;
    Ok(Box::new(table.map(move |cells| layout.row(&cells?))))
}

/// The layout of a row's cells: text, pair, choices and label, in that order.
#[derive(Clone, Copy)]
struct Layout {
    has_pair: bool,
    choices: usize,
    has_label: bool,
    /// Whether columns have names, by which a label may refer to a choice.
    has_names: bool,
}

impl Layout {
    fn first_choice(self) -> usize {
        1 + usize::from(self.has_pair)
    }

    fn row(self, cells: &Cells) -> Result<ChoiceRow> {
        let pair = self.has_pair.then(|| cells.text(1)).transpose()?;
        let choices = self.choices(cells)?;
        if choices.len() < 2 {
            return Err(cells.error(self.first_choice(), "fewer than two choices", "two or more"));
        }
        let label = if self.has_label { self.label(cells, choices.len())? } else { None };
        Ok(ChoiceRow { line: cells.line, text: cells.text(0)?, pair, choices, label })
    }

    fn choices(self, cells: &Cells) -> Result<Vec<String>> {
        let first = self.first_choice();
        match &cells.values[first] {
            Value::Array(list) if self.choices == 1 => {
                let choices: Option<Vec<String>> = list.iter().map(scalar).collect();
                choices.ok_or_else(|| cells.error(first, "a nested list", "a list of texts"))
            }
            _ => (first..first + self.choices).map(|index| cells.text(index)).collect(),
        }
    }

    /// The correct choice; `None` if the cell is empty or contains a mark for unlabeled rows.
    fn label(self, cells: &Cells, count: usize) -> Result<Option<usize>> {
        let first = self.first_choice();
        let index = first + self.choices;
        let label = cells.text(index)?;
        let label = label.trim();
        let has_names = self.has_names && self.choices > 1;
        let named = (0..self.choices).find(|&choice| has_names && cells.name(first + choice) == label);
        if named.is_none() && is_unlabeled(label) {
            return Ok(None);
        }
        let choice = named.or_else(|| label.parse().ok()).filter(|&choice| choice < count).ok_or_else(|| {
            let expected = format!("a choice's number from 0 to {} or its column's name", count - 1);
            cells.error(index, format!("`{label}`"), expected)
        })?;
        Ok(Some(choice))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn options(choices: &[&str]) -> ChoiceOptions {
        let name = |name: &str| Column::Name(name.to_string());
        ChoiceOptions {
            text: name("text"),
            text_pair: None,
            choices: choices.iter().map(|choice| name(choice)).collect(),
            label: Some(name("label")),
            header: true,
            source: ColumnSource::Usual,
        }
    }

    /// Without names, a label is an index, even if it is also the number of a choice's column.
    #[test]
    fn labels_of_a_table_without_a_header_are_indices() {
        let number = Column::Number;
        let options = ChoiceOptions {
            text: number(1),
            choices: [2, 3, 4, 5].map(number).to_vec(),
            label: Some(number(6)),
            header: false,
            ..options(&[])
        };
        let rows = read("x.csv", "t,a,b,c,d,2\nt,a,b,c,d,0\nt,a,b,c,d,3\n", &options).unwrap();
        assert_eq!(rows.iter().map(|row| row.label).collect::<Vec<_>>(), [Some(2), Some(0), Some(3)]);
    }

    fn read(file: &str, content: &str, options: &ChoiceOptions) -> Result<Vec<ChoiceRow>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        read_choices(&path, options)?.collect()
    }

    #[test]
    fn labels_are_numbers_or_names() {
        let rows = read("x.csv", "text,a,b,label\n\"two\nlines\",x,y,1\nt,x,y,a\n", &options(&["a", "b"])).unwrap();
        assert_eq!((&*rows[0].text, rows[0].label), ("two\nlines", Some(1)));
        assert_eq!((rows[1].label, rows[1].line), (Some(0), 4));
    }

    /// Published test files have no labels, or −1.
    #[test]
    fn a_row_may_have_no_label() {
        let rows = read("x.csv", "text,a,b,label\nt,x,y,\nt,x,y,-1\nt,x,y,-\nt,x,y,1\n", &options(&["a", "b"]));
        assert_eq!(rows.unwrap().iter().map(|row| row.label).collect::<Vec<_>>(), [None, None, None, Some(1)]);
    }

    #[test]
    fn a_list_of_choices() {
        let mut options = options(&["endings"]);
        options.text_pair = Some(Column::Name("start".to_string()));
        let json = r#"{"text":"t","start":"s","endings":["x","y","z"],"label":2}"#;
        let rows = read("x.jsonl", json, &options).unwrap();
        assert_eq!((rows[0].choices.len(), rows[0].label, rows[0].pair.as_deref()), (3, Some(2), Some("s")));
    }

    #[test]
    fn errors_name_the_place() {
        let cases = [
            (
                "text,a,b,label\nt,x,y,2\n",
                "x.csv:2: found `2` in column `label`, expected a choice's number from 0 to 1",
            ),
            ("text,a,label\nt,x,0\n", "x.csv:1: found no column `b`, expected one of `text`, `a`, `label`"),
        ];
        for (content, expected) in cases {
            let message = read("x.csv", content, &options(&["a", "b"])).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\nis not\n{expected}");
        }
        let message = read("x.csv", "text,a,label\nt,x,0\n", &options(&["a"])).unwrap_err().to_string();
        assert!(message.contains("x.csv:2: found fewer than two choices in column `a`"), "{message}");
    }
}
