//! Texts that both programs are asked about: `--input FILE` (`.txt`, `.jsonl`, `.csv`, `.tsv`, each
//! also `.gz` and `.zst`; `.parquet`) or `-`, the standard input.
//!
//! [`kind`] tells what a file holds; [`table`] reads rows of texts and labels, through [`columns`]
//! and [`delimited`] and, like everything that reads text here, [`crate::lines`]; [`parquet`] reads columns.

pub mod columns;
pub mod delimited;
pub mod kind;
pub mod parquet;
pub mod table;

use std::path::Path;

use bert_model::{Error, Result};

use self::kind::{FileKind, Format, Input};
use self::table::{Row, TableOptions, read_table};
use crate::lines::Line;

/// Texts, or pairs of them, read one at a time. Labels in a table are left alone, and no row is: each has an answer.
///
/// Every line of `.txt` and of the standard input (unless it has another format) is a text, empty ones too, so that the
/// answers are as many as the lines. If `options` ask for a pair, a tab separates its two texts there.
///
/// # Errors
/// [`Error::File`] for another extension; those of [`Input::lines`] and [`read_table`]. Rows carry their own.
pub fn read_inputs(
    input: impl Into<Input>,
    options: &TableOptions,
) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send>> {
    let input = input.into();
    match input.format {
        Some(Format::Text) => {}
        None if input.is_stdin() => {}
        Some(Format::JsonLines | Format::Csv | Format::Tsv | Format::Parquet) => {
            let unlabeled = TableOptions { label: None, skip_short_rows: false, ..options.clone() };
            return Ok(Box::new(read_table(&input, &unlabeled)?));
        }
        _ => {
            let expected = "`.txt`, `.jsonl`, `.csv`, `.tsv` (each also `.gz` or `.zst`), `.parquet`, or `-` for the standard input";
            return Err(FileKind::error(&input.path, expected));
        }
    }
    let lines = input.lines()?;
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

    fn options(text_pair: Option<&str>) -> TableOptions {
        let name = |name: &str| Column::Name(name.to_string());
        TableOptions { text_pair: text_pair.map(name), ..TableOptions::texts(name("text")) }
    }

    fn read(file: &str, content: &str, text_pair: Option<&str>) -> Result<Vec<Row>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        read_inputs(&path, &options(text_pair))?.collect()
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
    fn every_format_may_be_compressed() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("x.txt.zst", "one\ntwo\n"),
            ("x.csv.zst", "id,text\n1,one\n2,two\n"),
            ("x.TSV.ZST", "text\tid\none\t1\ntwo\t2\n"),
            ("x.jsonl.zst", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n"),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, zstd::encode_all(content.as_bytes(), 1).unwrap()).unwrap();
            let texts: Vec<String> = read_inputs(&path, &options(None)).unwrap().map(|row| row.unwrap().text).collect();
            assert_eq!(texts, ["one", "two"], "{name}");
        }
    }

    #[test]
    fn a_format_that_is_named_counts_more_than_the_extension() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.txt");
        fs::write(&path, "text,id\none,1\n").unwrap();
        let input = Input { path, format: Some(Format::Csv) };
        assert_eq!(read_inputs(&input, &options(None)).unwrap().next().unwrap().unwrap().text, "one");
    }

    #[test]
    fn another_extension_is_refused() {
        let message = read("x.pdf", "", None).unwrap_err().to_string();
        assert!(message.contains("the extension `pdf`"), "{message}");
    }
}
