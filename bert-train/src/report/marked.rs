//! Texts with highlighted spans: entities in a sentence, an answer in its context.
//!
//! Missed and spurious spans often overlap ("New York" and "New York City"). So the text is split
//! at every span boundary, each piece is styled by all spans that cover it, and a span's label
//! follows its end.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::escape::{escape, folded_list, inline};
use super::scale::grouped;

/// Number of texts shown before the rest is folded.
const SHOWN: usize = 12;
/// An unmarked stretch longer than this is elided except for its ends.
const LONGEST_PLAIN: usize = 500;
/// Number of code points kept at either end of an elided stretch.
const KEPT: usize = 200;

/// How a span compares to the expected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Predicted and expected.
    Correct,
    /// Expected but not predicted.
    Missed,
    /// Predicted but not expected.
    Spurious,
    /// Predicted, with nothing to compare to.
    Plain,
}

impl Mark {
    const ALL: [Self; 4] = [Self::Correct, Self::Missed, Self::Spurious, Self::Plain];

    /// Style class, symbol (for those who cannot tell the colors apart) and name.
    fn look(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Correct => ("correct", "✓", "correct"),
            Self::Missed => ("missed", "–", "missed"),
            Self::Spurious => ("spurious", "+", "spurious"),
            Self::Plain => ("plain", "", "found"),
        }
    }
}

/// A marked part of a text, in code points.
#[derive(Debug, Clone)]
struct MarkedSpan {
    range: Range<usize>,
    label: String,
    mark: Mark,
}

/// A text with highlighted spans.
#[derive(Debug, Clone)]
pub struct MarkedText {
    lead: Option<String>,
    text: String,
    spans: Vec<MarkedSpan>,
}

impl MarkedText {
    /// A text without marked spans.
    pub fn new(text: impl Into<String>) -> Self {
        Self { lead: None, text: text.into(), spans: Vec::new() }
    }

    /// Adds a line above the text, such as the question.
    #[must_use]
    pub fn lead(mut self, lead: impl Into<String>) -> Self {
        self.lead = Some(lead.into());
        self
    }

    /// Marks the code points `start..end`; a part beyond the end of the text is ignored.
    #[must_use]
    pub fn span(mut self, start: usize, end: usize, label: impl Into<String>, mark: Mark) -> Self {
        self.spans.push(MarkedSpan { range: start..end, label: label.into(), mark });
        self
    }

    /// Joins the words of a sentence, marking spans `(first word, end word, label, mark)` with an
    /// exclusive end.
    pub fn from_words<W: AsRef<str>>(words: &[W], spans: &[(usize, usize, &str, Mark)]) -> Self {
        let mut starts = vec![0];
        for word in words {
            starts.push(starts[starts.len() - 1] + word.as_ref().chars().count() + 1);
        }
        let text = words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let mut marked = Self::new(text);
        for (first, after, label, mark) in spans {
            let after = (*after).min(words.len());
            if *first < after {
                // Exclude the space after the last word.
                marked = marked.span(starts[*first], starts[after] - 1, *label, *mark);
            }
        }
        marked
    }

    fn html(&self) -> String {
        let characters: Vec<char> = self.text.chars().collect();
        let mut spans: Vec<MarkedSpan> = self.spans.clone();
        spans.iter_mut().for_each(|span| span.range.end = span.range.end.min(characters.len()));
        spans.retain(|span| span.range.start < span.range.end);
        let mut cuts: Vec<usize> = spans.iter().flat_map(|span| [span.range.start, span.range.end]).collect();
        cuts.extend([0, characters.len()]);
        cuts.sort_unstable();
        cuts.dedup();

        let mut html = String::from("<li>");
        if let Some(lead) = &self.lead {
            html += &format!("<p class=\"lead\" dir=\"auto\">{}</p>\n", escape(lead));
        }
        html += "<p class=\"text\" dir=\"auto\">";
        for piece in cuts.windows(2) {
            let (start, end) = (piece[0], piece[1]);
            let covers = |mark: Mark| spans.iter().any(|span| span.mark == mark && span.range.contains(&start));
            let classes: Vec<_> =
                Mark::ALL.into_iter().filter(|mark| covers(*mark)).map(|mark| mark.look().0).collect();
            if classes.is_empty() {
                html += &plain(&characters[start..end], start == 0, end == characters.len());
            } else {
                let text: String = characters[start..end].iter().collect();
                html += &format!("<mark class=\"{}\">{}</mark>", classes.join(" "), escape(&text));
            }
            for span in spans.iter().filter(|span| span.range.end == end) {
                html += &tag(span.mark, &span.label);
            }
        }
        html + "</p></li>\n"
    }
}

/// Renders an unmarked stretch, elided if it is long: only the text near a mark matters.
fn plain(characters: &[char], is_first: bool, is_last: bool) -> String {
    let text = |characters: &[char]| escape(&characters.iter().collect::<String>());
    if characters.len() <= LONGEST_PLAIN {
        return text(characters);
    }
    // Before the first mark and after the last one only one end is near a mark; without any mark,
    // keep the beginning.
    let head = if is_first && !is_last { 0 } else { KEPT };
    let tail = if is_last { 0 } else { KEPT };
    let left_out = grouped(&(characters.len() - head - tail).to_string());
    format!(
        "{}<span class=\"aside\"> … {left_out} characters … </span>{}",
        text(&characters[..head]),
        text(&characters[characters.len() - tail..])
    )
}

fn tag(mark: Mark, label: &str) -> String {
    let (class, sign, name) = mark.look();
    if label.is_empty() && sign.is_empty() {
        return String::new();
    }
    // A no-break space keeps symbol and label on one line.
    let gap = if label.is_empty() || sign.is_empty() { "" } else { "\u{a0}" };
    format!("<span class=\"tag {class}\" title=\"{name}\">{sign}{gap}{}</span>", inline(label))
}

pub(super) fn marked_html(texts: &[MarkedText]) -> String {
    let is_used = |mark: &Mark| texts.iter().any(|text| text.spans.iter().any(|span| span.mark == *mark));
    let used: Vec<Mark> = Mark::ALL.into_iter().filter(is_used).collect();
    let entry = |mark: &Mark| {
        let (class, sign, name) = mark.look();
        format!("<li><mark class=\"{class}\">{name}</mark><span class=\"tag {class}\">{sign}</span></li>\n")
    };
    let legend = match used.as_slice() {
        [] | [Mark::Plain] => String::new(),
        used => format!("<ul class=\"legend\">\n{}</ul>\n", used.iter().map(entry).collect::<String>()),
    };
    legend + &folded_list(&texts.iter().map(MarkedText::html).collect::<Vec<_>>(), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_code_points() {
        let html = MarkedText::new("Zoë à <Köln>").span(6, 12, "LOC", Mark::Correct).html();
        assert!(html.contains("Zoë à <mark class=\"correct\">&lt;Köln&gt;</mark>"), "{html}");
        assert!(html.contains("✓\u{a0}<bdi>LOC</bdi>"), "{html}");
    }

    #[test]
    fn overlapping_spans_are_cut_into_pieces() {
        let text = MarkedText::new("New York City").span(0, 13, "LOC", Mark::Missed).span(0, 8, "ORG", Mark::Spurious);
        let html = text.html();
        assert!(html.contains("<mark class=\"missed spurious\">New York</mark>"), "{html}");
        assert!(html.contains("<mark class=\"missed\"> City</mark>"), "{html}");
    }

    #[test]
    fn words_become_spans_of_the_joined_text() {
        let spans = [(1, 3, "PER", Mark::Plain), (3, 9, "X", Mark::Plain), (7, 8, "Y", Mark::Plain)];
        let html = MarkedText::from_words(&["by", "Åsa", "Berg", "."], &spans).html();
        assert!(html.contains("by <mark class=\"plain\">Åsa Berg</mark>"), "{html}");
        assert!(html.contains(" <mark class=\"plain\">.</mark>") && !html.contains(">Y<"), "{html}");
    }

    #[test]
    fn impossible_spans_are_ignored() {
        let text = MarkedText::new("abc").span(5, 9, "a", Mark::Missed).span(2, 1, "b", Mark::Missed);
        let html = text.span(1, usize::MAX, "c", Mark::Missed).html();
        assert_eq!(html.matches("<mark").count(), 1);
        assert!(html.contains("a<mark class=\"missed\">bc</mark>"), "{html}");
        assert!(MarkedText::new("").span(0, 1, "a", Mark::Plain).html().contains("<li>"));
    }

    #[test]
    fn long_unmarked_stretches_are_left_out() {
        let html = MarkedText::new("x".repeat(3000)).span(1500, 1510, "answer", Mark::Correct).html();
        assert_eq!(html.matches("1,300 characters").count(), 1, "{html}");
        assert_eq!(html.matches("1,290 characters").count(), 1, "{html}");
        assert!(MarkedText::new("x".repeat(3000)).html().contains("2,800 characters"));
    }

    #[test]
    fn labels_are_escaped() {
        let html = marked_html(&[MarkedText::new("a").lead("<q>").span(0, 1, "<l>", Mark::Spurious)]);
        assert!(!html.contains("<q>") && !html.contains("<l>"), "{html}");
    }
}
