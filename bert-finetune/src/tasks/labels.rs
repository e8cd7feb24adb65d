//! Collects the labels of data files.

use std::collections::BTreeSet;
use std::path::Path;

use bert_cli::input::table::{LabelColumns, Row, TableOptions, read_table};
use bert_cli::warning::warn_once;
use bert_model::{Error, Result};

use crate::data::is_unlabeled;
use crate::description::Description;

/// The index of a label. If all labels have names, a number is taken as an index.
pub(super) fn label_index(label: &str, labels: &[String]) -> Option<usize> {
    let is_named = || labels.iter().all(|label| label.parse::<f64>().is_err());
    let by_number = || label.parse().ok().filter(|&number| number < labels.len() && is_named());
    labels.iter().position(|known| known == label).or_else(by_number)
}

/// The classes of a training file, without labels that mark unlabeled rows.
pub(super) fn classes(description: &Description, table: &TableOptions, training: &Path) -> Result<Vec<String>> {
    let table_rows = read_table(training, table)?;
    let names = table_rows.label_names().to_vec();
    let rows: Vec<Row> = table_rows.collect::<Result<_>>()?;
    let mut found = label_names(&rows);
    let all = found.clone();
    found.retain(|label| !is_mark(label, &all));
    if found == ["-1", "0", "1"] {
        if description.numbered_classes {
            found.remove(0);
        } else {
            let file = training.display();
            warn_once(format!("{file}: the label -1 is learned as a class; if it marks unlabeled rows, remove them"));
        }
    }
    Ok(match &table.label {
        // A named column is a label even if no training text has it.
        Some(LabelColumns::Indicators(_)) => {
            found.retain(|label| names.contains(label) || !is_unlabeled(label));
            if found.iter().all(|label| names.contains(label)) { names } else { found }
        }
        _ => found,
    })
}

/// Whether a label marks unlabeled rows, judging by the other labels: `-` unless there is a `+`, and −1 alongside names
/// or alongside 0, 1, 2 and so on. −1, 0 and 1 form a scale, and `x` and `-` are two classes.
fn is_mark(label: &str, labels: &[String]) -> bool {
    let classes: Vec<&String> = labels.iter().filter(|other| !is_unlabeled(other)).collect();
    let values: Option<Vec<f64>> = classes.iter().map(|class| class.parse().ok()).collect();
    let are_named = classes.iter().all(|class| class.parse::<f64>().is_err());
    let are_numbered = values.is_some_and(|mut values| {
        values.sort_by(f64::total_cmp);
        values.len() > 2 && values.iter().enumerate().all(|(index, &value)| value == index as f64)
    });
    let is_missing = match label {
        "-" => labels.iter().all(|other| other != "+") && classes.len() > 1,
        _ => are_named || are_numbered,
    };
    is_unlabeled(label) && is_missing && !classes.is_empty()
}

/// The classes of a data file in a stable order: by value if all are numbers, else alphabetically.
fn label_names(rows: &[Row]) -> Vec<String> {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| &row.labels).collect();
    let mut labels: Vec<String> = names.into_iter().cloned().collect();
    if let Ok(values) = labels.iter().map(|label| label.parse()).collect::<Result<Vec<f64>, _>>() {
        let mut numbered: Vec<(f64, String)> = values.into_iter().zip(labels).collect();
        numbered.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        labels = numbered.into_iter().map(|(_, label)| label).collect();
    }
    labels
}

/// Returns the labels of a training file if there are at least `count`, else an error.
pub(super) fn at_least(count: usize, labels: Vec<String>, training: &Path) -> Result<Vec<String>> {
    if labels.len() >= count {
        return Ok(labels);
    }
    let found = labels.first().map_or("no labels".to_string(), |label| format!("one label only, {label:?}"));
    let expected = if count > 1 { "at least two classes to tell apart" } else { "at least one label" };
    Err(Error::file(training, found, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_one_order_and_there_once() {
        let names = |labels: &[&str]| {
            let row = |label: &&str| Row { line: 1, text: String::new(), pair: None, labels: vec![label.to_string()] };
            label_names(&labels.iter().map(row).collect::<Vec<_>>())
        };
        assert_eq!(names(&["10", "9", "-1", "9"]), ["-1", "9", "10"]);
        assert_eq!(names(&["10", "9", "1a"]), ["10", "1a", "9"]);
        assert_eq!(names(&["1.0", "1", "1.0", "0", "1"]), ["0", "1", "1.0"]);
    }

    /// Reported bug: SNLI's rows without a gold label were learned as a fourth class.
    #[test]
    fn a_mark_of_rows_without_a_label_is_no_class() {
        for (labels, marks) in [
            ("entailment neutral contradiction -", "-"),
            ("0 1 2 -1", "-1"),
            ("0.0 1.0 2.0 -1.0", "-1.0"),
            ("yes no -1", "-1"),
            ("yes no - -1", "- -1"),
            ("-1 0 1", ""),
            ("-1 1", ""),
            ("-2 -1 0 1 2", ""),
            ("+ -", ""),
            ("+ - 0", ""),
            ("x -", ""),
            ("x -1", "-1"),
        ] {
            let labels: Vec<String> = labels.split(' ').map(str::to_string).collect();
            let found: Vec<&str> = labels.iter().map(String::as_str).filter(|label| is_mark(label, &labels)).collect();
            assert_eq!(found.join(" "), marks, "{labels:?}");
        }
    }
}
