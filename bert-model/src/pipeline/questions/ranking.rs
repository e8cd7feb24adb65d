//! Ranks spans by the scores of all windows (google-research/bert, `run_squad.py`, `write_predictions`).

use std::ops::Range;

use super::{Candidate, QuestionProcessor, QuestionWindow};
use crate::text::slices;

/// Number of starts and ends per window that are paired, and number of spans that are kept.
const N_BEST: usize = 20;
/// Maximum length of an answer, in WordPieces.
const MAX_ANSWER: usize = 30;

/// Start and end logits of every position of a window, `[T]` each, padding included.
pub type SpanScores = (Vec<f32>, Vec<f32>);

/// A span of a question's text.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AnswerSpan {
    /// Start of the span, in code points.
    pub start: usize,
    /// End of the span, in code points, exclusive.
    pub end: usize,
    /// The sum of its start and its end logit.
    pub score: f32,
    /// Its probability among all candidates.
    pub probability: f64,
}

/// All candidate answers to a question.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RankedSpans {
    /// The best spans, best first, at most 20; empty if the text has no WordPieces.
    pub spans: Vec<AnswerSpan>,
    /// The score of "no answer" minus that of the best span; infinite if there is no span.
    pub no_answer_score: f64,
    /// The probability of "no answer"; 0 if every question gets an answer.
    pub no_answer_probability: f64,
}

impl AnswerSpan {
    /// Converts the span of `text` to a candidate.
    pub(super) fn of(&self, text: &str) -> Candidate {
        let &Self { start, end, probability, .. } = self;
        let text = slices(text, [(start, end)]).next().unwrap_or_default();
        Candidate { text: text.to_string(), score: probability, start, end }
    }
}

impl RankedSpans {
    /// Converts "no answer" to a candidate.
    pub(super) fn no_answer(&self) -> Candidate {
        Candidate { text: String::new(), score: self.no_answer_probability, start: 0, end: 0 }
    }

    /// The best span; `None` if the text has no WordPieces.
    pub fn best_span(&self) -> Option<AnswerSpan> {
        self.spans.first().copied()
    }
}

impl QuestionProcessor {
    /// Decides on the answer: a span, or `None` for "no answer". All answers and metrics are based on this function.
    pub fn decide(&self, ranked: &RankedSpans) -> Option<AnswerSpan> {
        let is_none = self.no_answer_threshold.is_some_and(|threshold| ranked.no_answer_score > threshold);
        ranked.best_span().filter(|_| !is_none)
    }

    /// Ranks all candidates of a question by the scores of its windows.
    pub fn rank(&self, windows: &[QuestionWindow], scores: &[SpanScores]) -> RankedSpans {
        // All candidates of a long text would take more memory than the text, so only the best are kept.
        let candidates = || windows.iter().zip(scores).flat_map(|(window, scores)| spans_of(window, scores));
        let mut spans: Vec<AnswerSpan> = Vec::new();
        for span in candidates() {
            let place = spans.partition_point(|better| better.score.total_cmp(&span.score).is_ge());
            if place < N_BEST {
                spans.insert(place, span);
                spans.truncate(N_BEST);
            }
        }
        let no_answer = scores.iter().map(|(start, end)| start[0] + end[0]).fold(f32::INFINITY, f32::min);
        let best = spans.first().map(|span| span.score);
        // Softmax over the candidates, including "no answer" if that is allowed.
        let against = self.no_answer_threshold.map(|_| no_answer);
        let top = best.into_iter().chain(against).fold(f32::NEG_INFINITY, f32::max);
        let weight = |score: f32| f64::from(score - top).exp();
        let total: f64 = candidates().map(|span| weight(span.score)).chain(against.map(weight)).sum();
        spans.iter_mut().for_each(|span| span.probability = weight(span.score) / total);
        RankedSpans {
            spans,
            no_answer_score: best.map_or(f64::INFINITY, |best| f64::from(no_answer) - f64::from(best)),
            no_answer_probability: against.map_or(0.0, |no_answer| weight(no_answer) / total),
        }
    }

    /// The best candidates of a text, best first.
    pub(super) fn best_candidates(&self, text: &str, ranked: &RankedSpans) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = ranked.spans.iter().map(|span| span.of(text)).collect();
        if self.no_answer_threshold.is_some() {
            let place = ranked.spans.partition_point(|span| span.probability >= ranked.no_answer_probability);
            candidates.insert(place, ranked.no_answer());
        }
        candidates.truncate(self.candidates);
        candidates
    }
}

/// The spans of a window that are considered there, without probabilities.
fn spans_of(window: &QuestionWindow, (start_scores, end_scores): &SpanScores) -> Vec<AnswerSpan> {
    let positions = window.text_start..window.text_start + window.has_most_context.len();
    let places = window.places();
    let ends = best_positions(end_scores, positions.clone());
    let mut spans = Vec::new();
    for first in best_positions(start_scores, positions) {
        if !window.has_most_context[first - window.text_start] {
            continue;
        }
        let may_end = |last: &&usize| **last >= first && **last - first < MAX_ANSWER;
        for &last in ends.iter().filter(may_end) {
            let (start, end) = (places[first - window.text_start].0, places[last - window.text_start].1);
            spans.push(AnswerSpan { start, end, score: start_scores[first] + end_scores[last], probability: 0.0 });
        }
    }
    spans
}

/// The positions of the highest scores within a range, best first.
fn best_positions(scores: &[f32], positions: Range<usize>) -> Vec<usize> {
    let mut positions: Vec<usize> = positions.collect();
    positions.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    positions.truncate(N_BEST);
    positions
}
