//! From the scores of all windows to a ranking of spans (google-research/bert, `run_squad.py`, `write_predictions`).

use std::ops::Range;

use super::{Candidate, QuestionProcessor, QuestionWindow};
use crate::text::CodePoints;

/// Starts and ends of a window that are paired, and spans that are kept.
const N_BEST: usize = 20;
/// Longest answer, in WordPieces.
const MAX_ANSWER: usize = 30;

/// Start and end scores of every position of a window.
pub type SpanScores = (Vec<f32>, Vec<f32>);

/// A span of a question's text.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AnswerSpan {
    /// Where it starts, in code points.
    pub start: usize,
    /// Where it ends, in code points, exclusive.
    pub end: usize,
    /// The sum of its start and end score.
    pub score: f32,
    /// Its probability among all candidates.
    pub probability: f64,
}

/// All candidates of a question.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RankedSpans {
    /// Best first, at most 20; none if the text has no WordPiece.
    pub spans: Vec<AnswerSpan>,
    /// How much higher "no answer" scores than the best span.
    pub no_answer_score: f64,
    /// The probability of "no answer"; 0 where every question has one.
    pub no_answer_probability: f64,
}

impl AnswerSpan {
    /// What stands there in the question's text.
    pub(super) fn of(&self, text: &str) -> Candidate {
        let &Self { start, end, probability, .. } = self;
        Candidate { text: CodePoints::new(text).slice(text, start, end).to_string(), score: probability, start, end }
    }
}

impl RankedSpans {
    /// "No answer" as one of the candidates.
    pub(super) fn no_answer(&self) -> Candidate {
        Candidate { text: String::new(), score: self.no_answer_probability, start: 0, end: 0 }
    }

    /// The best span; an empty one if there is none.
    pub fn best_span(&self) -> AnswerSpan {
        self.spans.first().copied().unwrap_or(AnswerSpan { start: 0, end: 0, score: f32::MIN, probability: 0.0 })
    }
}

impl QuestionProcessor {
    /// Whether "no answer" is the answer.
    pub fn is_unanswered(&self, ranked: &RankedSpans) -> bool {
        ranked.spans.is_empty() || self.no_answer_threshold.is_some_and(|threshold| ranked.no_answer_score > threshold)
    }

    /// All candidates of a question from the scores of its windows.
    pub fn rank(&self, windows: &[QuestionWindow], scores: &[SpanScores]) -> RankedSpans {
        let mut spans = Vec::new();
        let mut null = f32::INFINITY;
        for (window, (start_scores, end_scores)) in windows.iter().zip(scores) {
            null = null.min(start_scores[0] + end_scores[0]);
            let positions = window.text_start..window.text_start + window.pieces.len();
            let (starts, ends) =
                (best_positions(start_scores, positions.clone()), best_positions(end_scores, positions));
            for &first in &starts {
                let ((start, _), has_most_context) = window.pieces[first - window.text_start];
                for &last in ends.iter().filter(|&&last| last >= first && last - first < MAX_ANSWER && has_most_context)
                {
                    let ((_, end), _) = window.pieces[last - window.text_start];
                    spans.push(AnswerSpan {
                        start,
                        end,
                        score: start_scores[first] + end_scores[last],
                        probability: 0.0,
                    });
                }
            }
        }
        spans.sort_by(|a, b| b.score.total_cmp(&a.score));
        let best = spans.first().map_or(f32::MIN, |span| span.score);
        // Softmax over the candidates and, where it is allowed, "no answer".
        let against = self.no_answer_threshold.map(|_| null);
        let top = against.map_or(best, |null| null.max(best));
        let weight = |score: f32| f64::from(score - top).exp();
        let total: f64 = spans.iter().map(|span| weight(span.score)).chain(against.map(weight)).sum();
        spans.truncate(N_BEST);
        spans.iter_mut().for_each(|span| span.probability = weight(span.score) / total);
        RankedSpans {
            spans,
            no_answer_score: f64::from(null) - f64::from(best),
            no_answer_probability: against.map_or(0.0, |null| weight(null) / total),
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

/// The positions of the highest scores within a range, best first.
fn best_positions(scores: &[f32], positions: Range<usize>) -> Vec<usize> {
    let mut positions: Vec<usize> = positions.collect();
    positions.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    positions.truncate(N_BEST);
    positions
}
