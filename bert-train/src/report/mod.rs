//! Writes `report.html`, a self-contained page about a run that needs neither network nor scripts.
//!
//! A [`Report`] is a list of titled blocks: `table` (figures, settings as `facts`, tables), `chart` rendered
//! by `figure` and `plot` on the axes of `scale`, `matrix`, and texts as `example` or `marked`.
//! Each block is rendered when it is added; all external text passes through `escape`.

mod chart;
mod escape;
mod example;
mod facts;
mod figure;
mod marked;
mod matrix;
mod plot;
mod scale;
mod table;

use std::path::Path;

use bert_model::Result;
use bert_model::file::replace_file;
use serde_json::Value;

pub use chart::Chart;
pub use example::{MaskedSentence, ReportExample};
pub use facts::facts;
pub use marked::{Mark, MarkedText};
pub use table::Cell;

const STYLE: &str = include_str!("style.css");

/// Minimum number of blocks for a table of contents.
const CONTENTS_FROM: usize = 4;

/// A report being assembled from titled blocks.
#[derive(Debug, Clone)]
pub struct Report {
    title: String,
    subtitle: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    title: String,
    html: String,
}

impl Report {
    /// An empty report, titled with the program's name and subtitled with the run's.
    pub fn new(title: impl Into<String>, subtitle: impl Into<String>) -> Self {
        Self { title: title.into(), subtitle: subtitle.into(), blocks: Vec::new() }
    }

    /// Adds a paragraph of text.
    pub fn note(&mut self, title: &str, text: &str) -> &mut Self {
        self.add(title, escape::paragraph(text))
    }

    /// Adds a few headline results in large print, as `(name, value)`.
    pub fn figures<K: AsRef<str>, V: AsRef<str>>(&mut self, title: &str, figures: &[(K, V)]) -> &mut Self {
        self.add(title, table::figures_html(figures))
    }

    /// Adds settings and other facts, as `(name, value)`.
    pub fn facts<K: AsRef<str>, V: AsRef<str>>(&mut self, title: &str, facts: &[(K, V)]) -> &mut Self {
        self.add(title, table::facts_html(facts))
    }

    /// Adds a table; numbers are right-aligned.
    pub fn table(&mut self, title: &str, headers: &[&str], rows: Vec<Vec<Cell>>) -> &mut Self {
        self.add(title, table::table_html(headers, &rows))
    }

    /// Adds a line chart, under its own title.
    pub fn chart(&mut self, chart: Chart) -> &mut Self {
        let html = chart.html(&format!("chart-{}", self.blocks.len() + 1));
        self.add(&chart.title, html)
    }

    /// Adds charts of learning rate and gradient norm from the records of `metrics.jsonl`.
    pub fn optimizer_charts(&mut self, metrics: &[Value]) -> &mut Self {
        let steps = |name: &str| points(metrics, |record| record[name].as_f64());
        self.chart(Chart::new("Learning rate", "step", "rate").series("learning rate", steps("lr")));
        self.chart(
            Chart::new("Gradient norm, before clipping", "step", "norm")
                .log()
                .smoothed()
                .series("norm", steps("grad_norm")),
        )
    }

    /// Adds a confusion matrix with `counts[actual][predicted]`.
    pub fn matrix<L: AsRef<str>>(&mut self, title: &str, labels: &[L], counts: &[Vec<u64>]) -> &mut Self {
        self.add(title, matrix::matrix_html(labels, counts))
    }

    /// Adds texts with predicted and expected labels.
    pub fn examples(&mut self, title: &str, examples: &[ReportExample]) -> &mut Self {
        self.add(title, example::examples_html(examples))
    }

    /// Adds texts with highlighted spans.
    pub fn marked(&mut self, title: &str, texts: &[MarkedText]) -> &mut Self {
        self.add(title, marked::marked_html(texts))
    }

    /// Adds sentences with the top predictions for their masks.
    pub fn filled_masks(&mut self, title: &str, sentences: &[MaskedSentence]) -> &mut Self {
        self.add(title, example::filled_masks_html(sentences))
    }

    fn add(&mut self, title: &str, html: String) -> &mut Self {
        self.blocks.push(Block { title: title.into(), html });
        self
    }

    /// Renders the whole page.
    pub fn to_html(&self) -> String {
        let (title, subtitle) = (escape::escape(&self.title), escape::escape(&self.subtitle));
        // The policy forbids scripts and all external resources, whatever a text may contain.
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title} · {subtitle}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <header>\n<h1>{title}</h1>\n<p class=\"subtitle\"><bdi>{subtitle}</bdi></p>\n{}</header>\n",
            self.contents()
        );
        for (index, block) in self.blocks.iter().enumerate() {
            let title = escape::inline(&block.title);
            let number = index + 1;
            html += &format!(
                "<section aria-labelledby=\"part-{number}\">\n<h2 id=\"part-{number}\">{title}</h2>\n{}</section>\n",
                block.html
            );
        }
        html + "</main>\n</body>\n</html>\n"
    }

    fn contents(&self) -> String {
        if self.blocks.len() < CONTENTS_FROM {
            return String::new();
        }
        let link = |(index, block): (usize, &Block)| {
            format!("<li><a href=\"#part-{}\">{}</a></li>\n", index + 1, escape::inline(&block.title))
        };
        let links: String = self.blocks.iter().enumerate().map(link).collect();
        format!("<nav aria-label=\"Contents\"><ul>\n{links}</ul></nav>\n")
    }

    /// Writes the page, replacing an older one atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        replace_file(path, self.to_html().as_bytes())
    }
}

/// A series from the records of `metrics.jsonl`: the step of each record that has a value, and the
/// value.
pub fn points(metrics: &[Value], value: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    metrics.iter().filter_map(|record| Some((record["step"].as_f64()?, value(record)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report with hostile text everywhere text is accepted.
    fn report(text: &str) -> Report {
        let mut report = Report::new(text, text);
        report.note(text, text).figures(text, &[(text, text)]).facts(text, &[(text, text)]);
        report.table(text, &[text], vec![vec![text.into()]]);
        report.chart(Chart::new(text, text, text).series(text, vec![(0.0, 1.0), (1.0, 2.0)]));
        report.matrix(text, &[text, "b", "c"], &[vec![1, 2, 0], vec![3, 4, 0], vec![0, 0, 1]]);
        report.examples(text, &[ReportExample::new(text, text, text).part(text, text)]);
        report.marked(text, &[MarkedText::new(text).lead(text).span(0, 3, text, Mark::Correct)]);
        report.filled_masks(text, &[MaskedSentence::new(text).mask(vec![(text.into(), 0.5)]).expected(text)]);
        report
    }

    #[test]
    fn nothing_gets_through_unescaped() {
        let html = report("\"'><script>alert(1)</script></style><img src=x>&\0").to_html();
        for markup in ["<script", "<img", "alert(1)<", "\0", "\"'>"] {
            assert!(!html.contains(markup), "{markup}");
        }
        assert_eq!(html.matches("</style>").count(), 1);
        // The number of tags does not depend on the text: it opened and closed none.
        let tags = |html: &str| html.matches('<').count();
        assert_eq!(tags(&html), tags(&report("plain text").to_html()));
    }

    #[test]
    fn the_page_loads_nothing() {
        let html = report("text").to_html();
        for address in ["http:", "https:", "://", "url(", "@import", "src=", "<link", "<script"] {
            assert!(!html.contains(address), "{address}");
        }
    }

    #[test]
    fn every_identifier_is_unique() {
        let mut report = report("text");
        report.chart(Chart::new("again", "x", "y").series("a", vec![(0.0, 1.0)]));
        let html = report.to_html();
        let mut identifiers: Vec<_> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let all = identifiers.len();
        identifiers.sort_unstable();
        identifiers.dedup();
        assert_eq!(identifiers.len(), all);
    }

    #[test]
    fn the_same_report_is_the_same_bytes() {
        assert_eq!(report("text").to_html(), report("text").to_html());
    }

    #[test]
    fn writing_replaces_the_old_page_or_says_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        report("first").write(&path).unwrap();
        report("second").write(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("second"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = report("third").write(directory.path().join("no/report.html")).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
    }
}
