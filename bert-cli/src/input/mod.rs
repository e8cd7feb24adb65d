//! Reads the input texts of the programs: `--input FILE` (`.txt`, `.jsonl`, `.csv`, `.tsv`, each also `.gz` and `.zst`;
//! `.parquet`), or `-` for standard input.
//!
//! [`kind`] determines the format of a file, [`source`] opens it; [`table`] reads rows of texts and labels, using
//! [`columns`], [`delimited`] and, like everything here that reads text, [`crate::lines`]; [`parquet`] reads columnar
//! files. [`keep`] copies additional columns into the answers.

pub mod columns;
pub mod delimited;
pub mod header;
pub mod keep;
pub mod kind;
pub mod parquet;
pub mod source;
pub mod table;

use std::path::Path;

use bert_model::{Error, Result};

use self::delimited::{Dialect, Records};
use self::header::is_table;
use self::kind::Format;
use self::source::Input;
use self::table::{Row, TableOptions, read_table};
use crate::lines::Line;

/// Reads texts, or pairs of texts, one at a time. Labels in a table are ignored, and no row is skipped, so every row
/// gets an answer.
///
/// Every line of `.txt` and of standard input (unless it has another format) is a text, including empty lines, so that
/// there are as many answers as lines. If `options` ask for a pair, a tab separates its two texts. A `.txt` file that
/// contains the columns of `options`, separated by tabs, is a table.
///
/// # Errors
/// [`Error::File`] for any other extension; those of [`Input::lines`] and [`read_table`]. Rows yield their own errors.
pub fn read_inputs(
    input: impl Into<Input>,
    options: &TableOptions,
) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send>> {
    let input = input.into();
    match input.format {
        Some(Format::Text) if !is_table(&input, options)? => {}
        None if input.is_stdin() => {}
        Some(Format::JsonLines | Format::Parquet | Format::Csv | Format::Tsv | Format::Text) => {
            let unlabeled = TableOptions { label: None, skip_short_rows: false, ..options.clone() };
            return Ok(Box::new(read_table(&input, &unlabeled)?));
        }
        _ => {
            let expected =
                "`.txt`, `.jsonl`, `.csv`, `.tsv` (each also `.gz` or `.zst`), `.parquet`, or --input-format";
            return Err(input.error(expected));
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
    let fields = text.matches('\t').count() + 1;
    let Some((first, second)) = text.split_once('\t').filter(|_| fields == 2) else {
        let found = if fields == 1 { "one text".into() } else { format!("{fields} fields separated by tabs") };
        let expected = "two texts separated by a tab, because this model takes pairs; a table may be a .tsv file, or \
                        standard input with --input-format tsv";
        return Err(Error::line(path, number, found, expected));
    };
    Ok(Row { line: number, text: first.to_string(), pair: Some(second.to_string()), labels: Vec::new() })
}

/// The number of rows of a text file, for progress display. `None` if it cannot be known in advance: the input can be
/// read only once or not at all, or has another format.
pub fn count_rows(input: &Input, header: bool) -> Option<u64> {
    if input.is_stdin() || !input.is_regular_file() {
        return None;
    }
    let lines = input.lines().ok()?;
    let all = match input.format? {
        Format::Text if input.table_format().is_some() => return None,
        Format::Text => lines.map_while(Result::ok).count(),
        Format::JsonLines => lines.map_while(Result::ok).filter(|line| !line.text.trim().is_empty()).count(),
        Format::Csv => Records { lines, dialect: Dialect::Csv }.map_while(Result::ok).count(),
        Format::Tsv => Records { lines, dialect: Dialect::Tsv }.map_while(Result::ok).count(),
        _ => return None,
    } as u64;
    let is_header = header && input.format.is_some_and(Format::has_header);
    Some(all.saturating_sub(u64::from(is_header)))
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
        let table = read("x.txt", "1\ta\tb\n", Some("b")).unwrap_err().to_string();
        assert!(table.contains("found 3 fields separated by tabs, expected two texts"), "{table}");
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
        let input = Input::new(path).in_format(Some(Format::Csv));
        assert_eq!(read_inputs(&input, &options(None)).unwrap().next().unwrap().unwrap().text, "one");
    }

    #[test]
    fn rows_are_counted_as_they_are_read() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content, count) in [
            ("x.txt", "one\n\ntwo", 3),
            ("x.csv", "id,text\n1,\"one\nand\"\n\n2,two\n", 2),
            ("x.tsv", "text\none\ntwo\n", 2),
            ("x.jsonl", "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n", 2),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            let read = read_inputs(&path, &options(None)).unwrap().count();
            assert_eq!((read, count_rows(&Input::new(&path), true)), (count, Some(count as u64)), "{name}");
        }
        assert_eq!(count_rows(&Input::new("-"), true), None);
    }

    #[test]
    fn columns_are_carried_along_by_name_number_or_field() {
        let directory = tempfile::tempdir().unwrap();
        let kept = |file: &str, content: &str, column: &str, header: bool| {
            let path = directory.path().join(file);
            fs::write(&path, content).unwrap();
            let (input, mut rows) = Input::new(path).keeping(vec![column.into()]);
            let text = if header { Column::Name("text".into()) } else { Column::Number(2) };
            let options = TableOptions { header, ..TableOptions::texts(text) };
            let texts = read_inputs(input, &options).unwrap().map(|row| row.unwrap().text);
            texts.map(|text| format!("{text} {:?}", rows.next_row().unwrap())).collect::<Vec<_>>()
        };
        for (file, content, column, header, cells) in [
            ("x.csv", "id,text\na,one\nb,two\n", "id", true, [r#"("id", String("a"))"#, r#"("id", String("b"))"#]),
            ("x.tsv", "a\tone\nb\ttwo\n", "1", false, [r#"("1", String("a"))"#, r#"("1", String("b"))"#]),
            (
                "x.jsonl",
                "{\"text\":\"one\",\"id\":1}\n{\"text\":\"two\",\"id\":[]}\n",
                "id",
                true,
                [r#"("id", Number(1))"#, r#"("id", Array [])"#],
            ),
        ] {
            let found = kept(file, content, column, header);
            let expected = |(index, text): (usize, &str)| {
                format!("{text} KeptRow {{ row: Some({}), cells: [{}] }}", index + 1, cells[index])
            };
            assert_eq!(found, ["one", "two"].into_iter().enumerate().map(expected).collect::<Vec<_>>(), "{file}");
        }
    }

    #[test]
    fn another_extension_is_refused() {
        let message = read("x.pdf", "", None).unwrap_err().to_string();
        assert!(message.contains("the extension `pdf`"), "{message}");
    }
}
