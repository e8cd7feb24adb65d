//! A confusion matrix as a heat map, with correct and wrong predictions in different colors.
//!
//! Rows are true labels, columns predictions. A cell's color is its share of the row, so that rare
//! classes are as visible as common ones.

use super::escape::escape;
use super::scale::{grouped, percent};

/// Maximum number of labels shown; of more, those with the most mistakes.
const MOST_LABELS: usize = 40;
/// Number of most frequent confusions listed below the matrix.
const CONFUSIONS: usize = 5;
/// With more labels than this, or longer ones, the column headers are vertical.
const FEW_LABELS: usize = 5;
const SHORT_LABEL: usize = 8;

/// Renders the matrix `counts[actual][predicted]`; missing entries count as 0.
pub(super) fn matrix_html<L: AsRef<str>>(labels: &[L], counts: &[Vec<u64>]) -> String {
    let counts = Counts { counts, labels: labels.len() };
    let all = counts.sum(|_, _| true);
    if all == 0 {
        return "<p class=\"aside\">Nothing to count.</p>\n".into();
    }
    let right = counts.sum(|actual, predicted| actual == predicted);
    let mut html = format!(
        "<p class=\"aside\">{} of {} correct ({}). Rows: true labels; columns: predicted labels; percentages are of \
         the row.</p>\n",
        grouped(&right.to_string()),
        grouped(&all.to_string()),
        percent(right as f64 / all as f64)
    );
    let shown = counts.shown();
    if shown.len() < labels.len() {
        html += &format!(
            "<p class=\"aside\">Showing the {} labels with the most mistakes, out of {}; percentages are of \
             whole rows.</p>\n",
            shown.len(),
            labels.len()
        );
    }
    let name = |index: &usize| {
        // The style sheet truncates long names; a tooltip shows the full one.
        let name = escape(labels[*index].as_ref());
        format!("<bdi title=\"{name}\">{name}</bdi>")
    };
    let names: Vec<String> = shown.iter().map(name).collect();
    let is_upright = shown.len() > FEW_LABELS
        || shown.iter().any(|index| labels[*index].as_ref().chars().nth(SHORT_LABEL).is_some());
    let class = if is_upright { "matrix upright" } else { "matrix" };
    let head: String = names.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    html += &format!(
        "<div class=\"scroll pinned\" tabindex=\"0\"><table class=\"{class}\">\n\
         <thead><tr><td></td>{head}</tr></thead>\n<tbody>\n"
    );
    for (actual, name) in shown.iter().zip(&names) {
        let cells: String = shown.iter().map(|predicted| counts.cell(*actual, *predicted)).collect();
        html += &format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n");
    }
    html += "</tbody></table></div>\n";
    html + &counts.confusions(labels)
}

struct Counts<'a> {
    counts: &'a [Vec<u64>],
    labels: usize,
}

impl Counts<'_> {
    fn get(&self, actual: usize, predicted: usize) -> u64 {
        self.counts.get(actual).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
    }

    fn sum(&self, counted: impl Fn(usize, usize) -> bool) -> u64 {
        let mut sum = 0u64;
        for actual in 0..self.labels {
            for predicted in (0..self.labels).filter(|predicted| counted(actual, *predicted)) {
                sum = sum.saturating_add(self.get(actual, predicted));
            }
        }
        sum
    }

    fn row(&self, actual: usize) -> u64 {
        (0..self.labels).fold(0, |sum, predicted| self.get(actual, predicted).saturating_add(sum))
    }

    /// Indices of the labels to show, in ascending order.
    fn shown(&self) -> Vec<usize> {
        let mut labels: Vec<usize> = (0..self.labels).collect();
        if labels.len() > MOST_LABELS {
            let mistakes = |label: &usize| {
                let others = (0..self.labels).filter(|other| other != label);
                others.fold(0u64, |sum, other| {
                    sum.saturating_add(self.get(*label, other)).saturating_add(self.get(other, *label))
                })
            };
            labels.sort_by_cached_key(|label| std::cmp::Reverse(mistakes(label)));
            labels.truncate(MOST_LABELS);
            labels.sort_unstable();
        }
        labels
    }

    fn cell(&self, actual: usize, predicted: usize) -> String {
        let count = self.get(actual, predicted);
        if count == 0 {
            return "<td></td>".into();
        }
        let share = count as f64 / self.row(actual) as f64;
        let class = if actual == predicted { "right" } else { "wrong" };
        let number = grouped(&count.to_string());
        let percent = match share * 100.0 {
            ..0.5 => "&lt;1".into(),
            percent => format!("{percent:.0}"),
        };
        format!("<td class=\"{class}\" style=\"--share:{share:.2}\">{number}<small>{percent}%</small></td>")
    }

    /// Lists the most frequent confusions as text: a phone shows only a corner of a large matrix.
    fn confusions<L: AsRef<str>>(&self, labels: &[L]) -> String {
        let mut mistakes: Vec<(u64, usize, usize)> = Vec::new();
        for actual in 0..self.labels {
            for predicted in (0..self.labels).filter(|predicted| *predicted != actual) {
                mistakes.push((self.get(actual, predicted), actual, predicted));
            }
        }
        mistakes.retain(|mistake| mistake.0 > 0);
        mistakes.sort_by_key(|mistake| std::cmp::Reverse(mistake.0));
        let item = |(count, actual, predicted): &(u64, usize, usize)| {
            format!(
                "<li><bdi class=\"expected\">{}</bdi> predicted as <bdi class=\"mistaken\">{}</bdi> \
                 <span class=\"aside\">{}, {} of its row</span></li>\n",
                escape(labels[*actual].as_ref()),
                escape(labels[*predicted].as_ref()),
                times(*count),
                percent(*count as f64 / self.row(*actual) as f64)
            )
        };
        if mistakes.is_empty() || self.labels < 3 {
            return String::new();
        }
        let items: String = mistakes.iter().take(CONFUSIONS).map(item).collect();
        format!("<h3>Most frequent confusions</h3>\n<ol class=\"confusions\">\n{items}</ol>\n")
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".into() } else { format!("{} times", grouped(&count.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_counts_and_shares_of_their_row() {
        let html = matrix_html(&["no", "yes"], &[vec![30, 10], vec![0, 5]]);
        assert!(html.contains("35 of 45 correct (77.8 %)"), "{html}");
        assert!(html.contains("<td class=\"wrong\" style=\"--share:0.25\">10<small>25%</small></td>"), "{html}");
        assert!(html.contains("<td class=\"right\" style=\"--share:1.00\">5<small>100%</small></td>"), "{html}");
    }

    #[test]
    fn confusions_are_named_most_frequent_first() {
        let html = matrix_html(&["a", "b", "<c>"], &[vec![5, 1, 0], vec![0, 5, 3], vec![0, 0, 5]]);
        let (first, second) = (html.find("3 times, 37.5 %"), html.find("once, 16.7 %"));
        assert!(first.is_some() && second.is_some() && first < second, "{html}");
        assert!(!html.contains("<c>"));
    }

    #[test]
    fn many_labels_are_cut_to_the_worst() {
        let labels: Vec<String> = (0..60).map(|label| format!("class-{label}")).collect();
        let mut counts = vec![vec![0; 60]; 60];
        for (label, row) in counts.iter_mut().enumerate() {
            row[label] = 10;
        }
        counts[59][58] = 3;
        let html = matrix_html(&labels, &counts);
        assert!(html.contains("the 40 labels with the most mistakes, out of 60"), "{html}");
        assert_eq!(html.matches("scope=\"row\"").count(), MOST_LABELS);
        assert!(html.contains("scope=\"row\"><bdi title=\"class-59\""));
    }

    #[test]
    fn empty_and_ragged_counts_hold() {
        assert!(matrix_html::<&str>(&[], &[]).contains("Nothing"));
        assert!(matrix_html(&["a"], &[vec![0]]).contains("Nothing"));
        assert!(matrix_html(&["a", "b"], &[vec![1]]).contains("1 of 1 correct"));
        assert!(matrix_html(&["a", "b"], &[vec![u64::MAX, u64::MAX], vec![1, 1]]).contains("correct"));
    }
}
