//! Reads pairs of texts that belong together, or have a score of how well they match, from a table with one pair per
//! row.

use bert_cli::input::columns::{Cells, Column, Table};
use bert_cli::input::header::ColumnSource;
use bert_cli::input::source::Input;
use bert_model::Result;

/// Which columns to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairOptions {
    /// The first text.
    pub text: Column,
    /// The second text.
    pub text_pair: Column,
    /// Columns of negatives: texts that do not belong to the first one.
    pub negatives: Vec<Column>,
    /// Column of a number that says how well the two texts match.
    pub score: Option<Column>,
    /// Whether the first line names the columns.
    pub header: bool,
    /// Where the column names come from.
    pub source: ColumnSource,
}

/// A pair as written in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRow {
    /// The first text, the second one, and the negatives.
    pub texts: Vec<String>,
    /// How well the first two texts match; `None` if the row has no score, or scores are not read.
    pub score: Option<f64>,
}

/// Reads all pairs of a `.csv`, `.tsv` or `.jsonl` file, compressed or not.
///
/// # Errors
/// Those of [`Table::open`], and [`bert_model::Error::Line`] for a score that is not a number.
pub fn read_pairs(input: &Input, options: &PairOptions) -> Result<Vec<PairRow>> {
    let texts = [&options.text, &options.text_pair].into_iter().chain(&options.negatives);
    let columns: Vec<Column> = texts.chain(&options.score).cloned().collect();
    let count = 2 + options.negatives.len();
    let row = |cells: Result<Cells>| {
        let cells = cells?;
        let texts = (0..count).map(|index| cells.text(index)).collect::<Result<Vec<_>>>()?;
        let score = options.score.is_some().then(|| {
            let text = cells.text(count)?;
            if text.trim().is_empty() {
                return Ok(None);
            }
            let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
            number.map(Some).ok_or_else(|| cells.error(count, format!("{text:?}"), "a number"))
        });
        Ok(PairRow { texts, score: score.transpose()?.flatten() })
    };
    Table::open(input, &columns, options.header, options.source)?.map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &str, negatives: &[&str], score: Option<&str>) -> Result<Vec<PairRow>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.csv");
        fs::write(&path, content).unwrap();
        let name = |name: &str| Column::Name(name.to_string());
        let options = PairOptions {
            text: name("a"),
            text_pair: name("b"),
            negatives: negatives.iter().map(|negative| name(negative)).collect(),
            score: score.map(name),
            header: true,
            source: ColumnSource::Given,
        };
        read_pairs(&Input::new(&path), &options)
    }

    #[test]
    fn pairs_have_negatives_or_scores() {
        let content = "b,a,n,m,s\n1,2,3,4,0.5\n";
        let rows = read(content, &["m", "n"], None).unwrap();
        assert_eq!(rows, [PairRow { texts: ["2", "1", "4", "3"].map(String::from).to_vec(), score: None }]);
        let rows = read(content, &[], Some("s")).unwrap();
        assert_eq!(rows, [PairRow { texts: ["2", "1"].map(String::from).to_vec(), score: Some(0.5) }]);
        let message = read("a,b,s\n1,2,high\n", &[], Some("s")).unwrap_err().to_string();
        assert!(message.ends_with("x.csv:2: found \"high\" in column `s`, expected a number"), "{message}");
    }
}
