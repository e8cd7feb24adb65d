//! Texts with what was predicted for them: mistakes of a classifier, and sentences with their blanks filled in.

use super::escape::{escape, folded_list, inline, paragraph};
use super::scale::percent;

/// So many are seen at once, the rest on request.
const SHOWN: usize = 10;
/// What a blank looks like in a text.
const MASK: &str = "[MASK]";

/// One text, what it should be taken for, and what it was taken for.
#[derive(Debug, Clone)]
pub struct ReportExample {
    text: String,
    parts: Vec<(String, String)>,
    expected: String,
    predicted: String,
    probability: Option<f64>,
}

impl ReportExample {
    /// A text with its expected and predicted label or value.
    pub fn new(text: impl Into<String>, expected: impl Into<String>, predicted: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            parts: Vec::new(),
            expected: expected.into(),
            predicted: predicted.into(),
            probability: None,
        }
    }

    /// The probability that the model gave to its prediction.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// Another named text that belongs to it: the second of a pair, a choice, the question.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.parts.push((name.into(), text.into()));
        self
    }

    fn html(&self) -> String {
        let class = if self.predicted == self.expected { "expected" } else { "mistaken" };
        let probability = self.probability.map_or(String::new(), |probability| format!(" {}", bar(probability)));
        let mut html = format!(
            "<li><p class=\"verdict\"><span>predicted <bdi class=\"{class}\">{}</bdi>{probability}</span> \
             <span>expected <bdi class=\"expected\">{}</bdi></span></p>\n{}",
            escape(&self.predicted),
            escape(&self.expected),
            paragraph(&self.text)
        );
        for (name, text) in &self.parts {
            html += &format!("<p class=\"part\">{}</p>\n{}", inline(name), paragraph(text));
        }
        html + "</li>\n"
    }
}

/// A sentence with `[MASK]`s, and the best predictions for each of them.
#[derive(Debug, Clone)]
pub struct MaskedSentence {
    text: String,
    masks: Vec<Mask>,
}

#[derive(Debug, Clone)]
struct Mask {
    predictions: Vec<(String, f64)>,
    expected: Option<String>,
}

impl MaskedSentence {
    /// A sentence in which every blank is written `[MASK]`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), masks: Vec::new() }
    }

    /// The predictions for the next blank, best first, as `(token, probability)`.
    #[must_use]
    pub fn mask(mut self, predictions: Vec<(String, f64)>) -> Self {
        self.masks.push(Mask { predictions, expected: None });
        self
    }

    /// The token that really stood at the last blank added.
    #[must_use]
    pub fn expected(mut self, token: impl Into<String>) -> Self {
        if let Some(mask) = self.masks.last_mut() {
            mask.expected = Some(token.into());
        }
        self
    }

    fn html(&self) -> String {
        // Blanks are numbered only where there is something to tell apart.
        let number =
            |index: usize| if self.masks.len() > 1 { format!("<sub>{}</sub>", index + 1) } else { String::new() };
        let mut sentence = String::new();
        for (index, part) in self.text.split(MASK).enumerate() {
            if index > 0 {
                sentence += &format!("<span class=\"blank\">{MASK}{}</span>", number(index - 1));
            }
            sentence += &escape(part);
        }
        let mut html = format!("<li><p class=\"text\" dir=\"auto\">{sentence}</p>\n<div class=\"blanks\">\n");
        for (index, mask) in self.masks.iter().enumerate() {
            let number = if self.masks.len() > 1 { format!(" {}", index + 1) } else { String::new() };
            html +=
                &format!("<ol class=\"tokens\" aria-label=\"predictions for blank{number}\">\n{}</ol>\n", mask.html());
        }
        html + "</div></li>\n"
    }
}

impl Mask {
    fn html(&self) -> String {
        let is_expected = |token: &str| self.expected.as_deref() == Some(token);
        let mut html = String::new();
        for (token, probability) in &self.predictions {
            let (class, tick) = if is_expected(token) { ("expected", "✓ ") } else { ("", "") };
            html += &format!("<li><span class=\"{class}\">{tick}{}</span>{}</li>\n", inline(token), bar(*probability));
        }
        match &self.expected {
            Some(token) if !self.predictions.iter().any(|(predicted, _)| predicted == token) => {
                html + &format!("<li class=\"aside\"><span>in the text: {}</span></li>\n", inline(token))
            }
            _ => html,
        }
    }
}

/// A probability as a short bar with its number.
fn bar(probability: f64) -> String {
    let share = if probability.is_finite() { probability.clamp(0.0, 1.0) } else { 0.0 };
    format!(
        "<span class=\"share\"><span class=\"bar\" style=\"--share:{share:.3}\"></span>{}</span>",
        escape(&percent(probability))
    )
}

pub(super) fn examples_html(examples: &[ReportExample]) -> String {
    folded_list(&examples.iter().map(ReportExample::html).collect::<Vec<_>>(), SHOWN)
}

pub(super) fn filled_masks_html(sentences: &[MaskedSentence]) -> String {
    folded_list(&sentences.iter().map(MaskedSentence::html).collect::<Vec<_>>(), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_an_example_is_escaped() {
        let example = ReportExample::new("<i>1", "<i>2", "<i>3").part("<i>4", "<i>5").probability(0.973);
        let html = examples_html(&[example]);
        assert!(!html.contains("<i>") && html.contains("97.3 %") && html.contains("--share:0.973"), "{html}");
    }

    #[test]
    fn blanks_are_marked_and_the_true_token_ticked() {
        let predictions = vec![("capital".to_string(), 0.9), ("<b>".to_string(), 0.0004)];
        let html =
            filled_masks_html(&[MaskedSentence::new("The [MASK] of <b>.").mask(predictions).expected("capital")]);
        assert!(html.contains("The <span class=\"blank\">[MASK]</span> of &lt;b&gt;."), "{html}");
        assert!(html.contains("✓ <bdi>capital</bdi>") && html.contains("&lt; 0.1 %"), "{html}");
        assert!(!html.contains("in the text"), "{html}");
    }

    #[test]
    fn a_true_token_that_was_not_found_is_named() {
        let sentence = MaskedSentence::new("[MASK] [MASK]").mask(vec![("a".into(), 0.5)]).expected("b").mask(vec![]);
        let html = filled_masks_html(&[sentence]);
        assert!(html.contains("in the text: <bdi>b</bdi>") && html.contains("[MASK]<sub>2</sub>"), "{html}");
    }

    #[test]
    fn impossible_probabilities_do_not_break_the_page() {
        let html = examples_html(&[ReportExample::new("a", "b", "c").probability(f64::NAN)]);
        assert!(html.contains("--share:0.000") && html.contains("–"), "{html}");
    }
}
