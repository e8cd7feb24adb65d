//! Texts that both programs are asked about: `--input FILE` (`.txt`, `.jsonl`, `.csv`, `.tsv`) or `-`, the standard input.
//!
//! [`table`] reads rows of texts and labels, through [`columns`] and [`delimited`] and, like everything that reads text
//! here, [`crate::lines`].

pub mod columns;
pub mod delimited;
pub mod table;

use std::path::Path;

use bert_model::{Error, Result};

use self::table::{Row, TableOptions, read_table};
use crate::lines::{Line, Lines};

/// What an input is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// `-`: one text a line from the standard input.
    Stdin,
    /// `.txt`: one text a line.
    Lines,
    /// `.jsonl`, `.csv`, `.tsv`: texts in columns.
    Table,
}

impl InputKind {
    /// Told by the name.
    ///
    /// # Errors
    /// [`Error::File`] for another extension.
    pub fn of(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdin);
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "txt" => Ok(Self::Lines),
            "jsonl" | "csv" | "tsv" => Ok(Self::Table),
            _ => {
                let expected = "`.txt`, `.jsonl`, `.csv`, `.tsv`, or `-` for the standard input";
                Err(Error::file(path, format!("the extension `{extension}`"), expected))
            }
        }
    }
}

/// Texts, or pairs of them, read one at a time. Labels in a table are left alone, and no row is: each has an answer.
///
/// Every line of `.txt` and of the standard input is a text, empty ones too, so that the answers are as many as the
/// lines. If `options` ask for a pair, a tab separates its two texts there.
///
/// # Errors
/// Those of [`InputKind::of`], [`Lines::open`] and [`read_table`]. Rows carry their own.
pub fn read_inputs(path: &Path, options: &TableOptions) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send>> {
    let lines = match InputKind::of(path)? {
        InputKind::Table => {
            let unlabeled = TableOptions { label: None, skip_short_rows: false, ..options.clone() };
            return Ok(Box::new(read_table(path, &unlabeled)?));
        }
        InputKind::Lines => Lines::open(path)?,
        InputKind::Stdin => Lines::stdin(),
    };
    let (path, pairs) = (lines.path().clone(), options.text_pair.is_some());
    Ok(Box::new(lines.map(move |line| row(line?, pairs, &path))))
}

fn row(line: Line, pairs: bool, path: &Path) -> Result<Row> {
    let Line { number, text } = line;
    if !pairs {
        return Ok(Row { line: number, text, pair: None, labels: Vec::new() });
    }
    let Some((first, second)) = text.split_once('\t') else {
        return Err(Error::line(path, number, "one text", "two with a tab between, for this model judges pairs"));
    };
    Ok(Row { line: number, text: first.to_string(), pair: Some(second.to_string()), labels: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::columns::Column;
    use super::*;

    fn read(file: &str, content: &str, text_pair: Option<&str>) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        let name = |name: &str| Column::Name(name.to_string());
        let text_pair = text_pair.map(name);
        let options = TableOptions { text: name("text"), text_pair, label: None, header: true, skip_short_rows: false };
        read_inputs(&path, &options)?.collect()
    }

    #[test]
    fn lines_keep_their_number() {
        let rows = read("x.txt", "a\tb\r\n\nc", None).unwrap();
        let texts: Vec<_> = rows.iter().map(|row| (row.line, &*row.text)).collect();
        assert_eq!(texts, [(1, "a\tb"), (2, ""), (3, "c")]);
    }

    #[test]
    fn pairs() {
        assert_eq!(read("x.txt", "a\tb\n", Some("b")).unwrap()[0].pair.as_deref(), Some("b"));
        assert!(read("x.txt", "a b\n", Some("b")).unwrap_err().to_string().contains("x.txt:1: found one text"));
        assert_eq!(read("x.csv", "label,b,text\n?,y,x\n", Some("b")).unwrap()[0].pair.as_deref(), Some("y"));
    }

    #[test]
    fn kinds_by_extension() {
        assert_eq!(InputKind::of(Path::new("-")).unwrap(), InputKind::Stdin);
        assert_eq!(InputKind::of(Path::new("X.TSV")).unwrap(), InputKind::Table);
        assert!(InputKind::of(Path::new("x.pdf")).unwrap_err().to_string().contains("the extension `pdf`"));
    }
}
