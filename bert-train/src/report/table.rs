//! Name-value pairs and tables: headline figures, settings, numbers.

use super::escape::{escape, inline};
use super::scale::{figure, grouped, percent};

/// A table cell: left-aligned text or a right-aligned number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    is_number: bool,
}

impl Cell {
    /// A number with this many decimals; a dash if it is not finite.
    pub fn fixed(value: f64, decimals: usize) -> Self {
        let text = if value.is_finite() { format!("{value:.decimals$}").replace('-', "−") } else { "–".into() };
        Self { text, is_number: true }
    }

    /// A fraction, as a percentage.
    pub fn percent(share: f64) -> Self {
        Self { text: percent(share), is_number: true }
    }

    fn html(&self, tag: &str) -> String {
        let class = if self.is_number { " class=\"number\"" } else { "" };
        format!("<{tag}{class}>{}</{tag}>", inline(&self.text))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_string())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, is_number: false }
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::from(text.clone())
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self { text: grouped(&count.to_string()), is_number: true }
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::from(count as u64)
    }
}

/// Formats the number to about four digits; use [`Cell::fixed`] for a column of equal decimals.
impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self { text: figure(value), is_number: true }
    }
}

/// Renders a table with a header row; short rows are padded with empty cells.
pub(super) fn table_html(headers: &[&str], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return "<p class=\"aside\">No rows.</p>\n".into();
    }
    let empty = Cell::from("");
    let columns = rows.iter().map(Vec::len).chain([headers.len()]).max().unwrap_or(0);
    let mut html = String::from("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
    for column in 0..columns {
        // A header is aligned like the numbers below it.
        let is_number = rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.is_number));
        let class = if is_number { " class=\"number\"" } else { "" };
        html += &format!("<th scope=\"col\"{class}>{}</th>", inline(headers.get(column).copied().unwrap_or_default()));
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        let cells: String = (0..columns).map(|column| row.get(column).unwrap_or(&empty).html("td")).collect();
        html += &format!("<tr>{cells}</tr>\n");
    }
    html + "</tbody></table></div>\n"
}

/// Renders names and values side by side, in as many columns as fit.
pub(super) fn facts_html<K: AsRef<str>, V: AsRef<str>>(facts: &[(K, V)]) -> String {
    pairs_html("facts", facts)
}

/// Renders a few large values with small names.
pub(super) fn figures_html<K: AsRef<str>, V: AsRef<str>>(figures: &[(K, V)]) -> String {
    pairs_html("figures", figures)
}

fn pairs_html<K: AsRef<str>, V: AsRef<str>>(class: &str, pairs: &[(K, V)]) -> String {
    if pairs.is_empty() {
        return "<p class=\"aside\">None.</p>\n".into();
    }
    let pair = |(name, value): &(K, V)| {
        format!("<div><dt>{}</dt><dd dir=\"auto\">{}</dd></div>\n", inline(name.as_ref()), escape(value.as_ref()))
    };
    format!("<dl class=\"{class}\">\n{}</dl>\n", pairs.iter().map(pair).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_texts_left() {
        let html = table_html(&["label", "f1"], &[vec!["spam".into(), Cell::fixed(0.91, 3)]]);
        assert!(html.contains("<th scope=\"col\"><bdi>label"), "{html}");
        assert!(html.contains("<th scope=\"col\" class=\"number\"><bdi>f1"), "{html}");
        assert!(html.contains("<td class=\"number\"><bdi>0.910</bdi></td>"), "{html}");
    }

    #[test]
    fn cells_write_numbers_for_people() {
        assert_eq!(Cell::from(1_234_567_u64).text, "1,234,567");
        assert_eq!(Cell::fixed(f64::NAN, 3).text, "–");
        assert_eq!(Cell::percent(0.5).text, "50.0 %");
        assert_eq!(Cell::fixed(-0.25, 2).text, "−0.25");
    }

    #[test]
    fn ragged_and_empty_tables_hold() {
        let html = table_html(&["a"], &[vec![1_u64.into(), 2_u64.into()], vec![]]);
        assert_eq!(html.matches("<td").count(), 4);
        assert!(table_html(&["a"], &[]).contains("No rows"));
        assert!(facts_html::<&str, &str>(&[]).contains("None"));
    }

    #[test]
    fn facts_are_escaped() {
        let html = facts_html(&[("<a>", "\"<b>\"")]);
        assert!(html.contains("&lt;a&gt;") && html.contains("&quot;&lt;b&gt;&quot;"), "{html}");
    }
}
