//! Exact match and F1 of answers, computed like the official scripts of SQuAD v1.1 and v2.0.
//!
//! Both scripts compare answers in lowercase, without ASCII punctuation, articles and extra whitespace. F1 compares two
//! bags of words. A prediction gets its best score over the annotated answers. Results are percentages, 0 to 100.
//!
//! In v2.0 a question may be left unanswered. That decision is made elsewhere; this module only counts. It also
//! computes the best threshold of the no-answer score, which in BERT is the difference score(null) − score(best span).

use std::collections::HashMap;

use serde::Serialize;

/// A predicted answer and the annotated ones.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedAnswer<'a> {
    /// The best span, even where the question is left unanswered.
    pub prediction: &'a str,
    /// Whether the question is left unanswered.
    pub is_unanswered: bool,
    /// The annotated answers; empty if the question has none.
    pub answers: Vec<&'a str>,
    /// No-answer score: higher means that "no answer" is more likely; infinite if nothing can be an answer. Unused in
    /// v1.1.
    pub no_answer_score: f64,
}

/// Means over a set of questions, in percent; 0 for an empty set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SquadScores {
    /// Percentage of predictions equal to an annotated answer, after normalization.
    pub exact_match: f64,
    /// Mean F1 of the bags of words, in percent.
    pub f1: f64,
    /// Number of questions.
    pub examples: u64,
}

/// The scores of SQuAD v2.0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SquadV2Scores {
    /// Over all questions, as answered.
    #[serde(flatten)]
    pub all: SquadScores,
    /// Over the questions that have an answer, as answered.
    pub has_answer: SquadScores,
    /// Over the questions without an answer, as answered.
    pub no_answer: SquadScores,
    /// The best exact match that any threshold achieves.
    pub best_exact_match: f64,
    /// The threshold of `best_exact_match`.
    pub best_exact_match_threshold: f64,
    /// The best F1 that any threshold achieves.
    pub best_f1: f64,
    /// The threshold of `best_f1`.
    pub best_f1_threshold: f64,
    /// The threshold to use for new questions: halfway between the best one, which is the score of
    /// a question, and the next higher score, so that rounding errors do not flip an answer.
    pub no_answer_threshold: f64,
}

/// Scores like `evaluate-v1.1.py`, where every question has an answer.
pub fn squad_v1(predicted: &[PredictedAnswer]) -> SquadScores {
    mean(predicted.iter().map(|predicted| {
        let best = best_score(predicted.prediction, &predicted.answers);
        // If normalization leaves nothing of either answer, v1.1 counts no common word.
        let f1 = if normalize(predicted.prediction).is_empty() { 0.0 } else { best.f1 };
        Score { f1, ..best }
    }))
}

/// Scores like `evaluate-v2.0.py`.
pub fn squad_v2(predicted: &[PredictedAnswer]) -> SquadV2Scores {
    let raw: Vec<Score> = predicted.iter().map(raw_score).collect();
    let decided: Vec<Score> = predicted
        .iter()
        .zip(&raw)
        .map(|(predicted, &raw)| match predicted.is_unanswered {
            true => Score::all_or_nothing(!predicted.has_answer()),
            false => raw,
        })
        .collect();
    let part = |has_answer| {
        let members = predicted.iter().zip(&decided).filter(move |(predicted, _)| predicted.has_answer() == has_answer);
        mean(members.map(|(_, &score)| score))
    };
    let (best_exact_match, best_exact_match_threshold) = best_threshold(predicted, &raw, |score| score.exact);
    let (best_f1, best_f1_threshold) = best_threshold(predicted, &raw, |score| score.f1);
    SquadV2Scores {
        all: mean(decided.iter().copied()),
        has_answer: part(true),
        no_answer: part(false),
        best_exact_match,
        best_exact_match_threshold,
        best_f1,
        best_f1_threshold,
        no_answer_threshold: (best_f1_threshold + next_score(predicted, best_f1_threshold)) / 2.0,
    }
}

/// The lowest no-answer score above `threshold`, or `threshold` + 2 if there is none. Infinite scores, of texts in
/// which nothing can be an answer, do not count.
fn next_score(predicted: &[PredictedAnswer], threshold: f64) -> f64 {
    let scores = predicted.iter().map(|predicted| predicted.no_answer_score);
    let higher = scores.filter(|score| score.is_finite() && *score > threshold);
    higher.min_by(f64::total_cmp).unwrap_or(threshold + 2.0)
}

impl PredictedAnswer<'_> {
    fn has_answer(&self) -> bool {
        !self.answers.is_empty()
    }
}

/// One question's scores, 0 to 1.
#[derive(Clone, Copy)]
struct Score {
    exact: f64,
    f1: f64,
}

impl Score {
    fn all_or_nothing(right: bool) -> Self {
        let score = f64::from(u8::from(right));
        Self { exact: score, f1: score }
    }
}

fn mean(scores: impl Iterator<Item = Score>) -> SquadScores {
    let (mut exact, mut f1, mut examples) = (0.0, 0.0, 0);
    for score in scores {
        (exact, f1, examples) = (exact + score.exact, f1 + score.f1, examples + 1);
    }
    let percent = 100.0 / examples.max(1) as f64;
    SquadScores { exact_match: exact * percent, f1: f1 * percent, examples }
}

/// v2.0's score of the span: ignores annotated answers that are empty after normalization; if none
/// remains, the correct answer is the empty one.
fn raw_score(predicted: &PredictedAnswer) -> Score {
    let mut answers: Vec<&str> =
        predicted.answers.iter().copied().filter(|answer| !normalize(answer).is_empty()).collect();
    if answers.is_empty() {
        answers.push("");
    }
    best_score(predicted.prediction, &answers)
}

fn best_score(prediction: &str, answers: &[&str]) -> Score {
    let prediction = normalize(prediction);
    let scores = answers.iter().map(|answer| {
        let answer = normalize(answer);
        Score { exact: f64::from(u8::from(prediction == answer)), f1: word_f1(&prediction, &answer) }
    });
    let worst = Score { exact: 0.0, f1: 0.0 };
    scores.fold(worst, |best, score| Score { exact: best.exact.max(score.exact), f1: best.f1.max(score.f1) })
}

/// F1 of two bags of words; if either is empty, 1 if both are and 0 otherwise.
fn word_f1(prediction: &str, answer: &str) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    answer.split_whitespace().for_each(|word| *left.entry(word).or_default() += 1);
    let (mut predicted, mut common) = (0, 0);
    for word in prediction.split_whitespace() {
        predicted += 1;
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    match predicted + answer.split_whitespace().count() {
        0 => 1.0,
        words => 2.0 * f64::from(common) / words as f64,
    }
}

/// Normalizes an answer like the official scripts: lowercase, no ASCII punctuation, no articles,
/// single spaces.
pub fn normalize(answer: &str) -> String {
    let lower = answer.to_lowercase();
    let unpunctuated: String = lower.chars().filter(|character| !character.is_ascii_punctuation()).collect();
    without_articles(&unpunctuated).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces `a`, `an` and `the` between word boundaries by a space. A word is a run of letters and
/// digits, so of `the—end`, `—end` remains.
fn without_articles(text: &str) -> String {
    let is_word = |character: char| character.is_alphanumeric();
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|character| is_word(character) != is_word(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    kept
}

/// The best mean score that any threshold achieves, in percent, and that threshold.
///
/// Like the official script, starts with "no answer" everywhere, answers questions in the order of
/// their no-answer scores, and keeps the best point. The script's threshold for "no answer"
/// everywhere is 0, which is right for probabilities; score differences may be negative, and the
/// threshold here is then below the lowest.
fn best_threshold(predicted: &[PredictedAnswer], raw: &[Score], part: fn(&Score) -> f64) -> (f64, f64) {
    let is_scored = |(predicted, _): &(&PredictedAnswer, &Score)| predicted.no_answer_score.is_finite();
    let mut order: Vec<(&PredictedAnswer, &Score)> = predicted.iter().zip(raw).filter(is_scored).collect();
    order.sort_by(|(a, _), (b, _)| a.no_answer_score.total_cmp(&b.no_answer_score));
    let mut score = predicted.iter().filter(|predicted| !predicted.has_answer()).count() as f64;
    let lowest = order.first().map_or(0.0, |(predicted, _)| predicted.no_answer_score);
    let mut best = (score, lowest.next_down().min(0.0));
    for (predicted, raw) in order {
        score += match (predicted.has_answer(), predicted.prediction.is_empty()) {
            (true, _) => part(raw),
            (false, true) => 0.0,
            (false, false) => -1.0,
        };
        if score > best.0 {
            best = (score, predicted.no_answer_score);
        }
    }
    (100.0 * best.0 / predicted.len().max(1) as f64, best.1)
}

#[cfg(test)]
mod tests {
    use super::{super::golden, *};

    #[test]
    fn normalized_as_officially() {
        for case in golden::cases("squad_normalize") {
            let (text, normal): (String, String) = (golden::field(&case, "text"), golden::field(&case, "normal"));
            assert_eq!(normalize(&text), normal, "{text}");
        }
    }

    #[test]
    fn as_the_official_scripts() {
        for case in golden::cases("squad") {
            let predictions: Vec<String> = golden::field(&case, "predictions");
            let answers: Vec<Vec<String>> = golden::field(&case, "answers");
            let no_answer: Vec<f64> = golden::field(&case, "no_answer_scores");
            let threshold: f64 = golden::field(&case, "threshold");
            let judge = |index: usize| PredictedAnswer {
                prediction: &predictions[index],
                is_unanswered: no_answer[index] > threshold,
                answers: answers[index].iter().map(String::as_str).collect(),
                no_answer_score: no_answer[index],
            };
            let predicted: Vec<PredictedAnswer> = (0..predictions.len()).map(judge).collect();
            let v1 = serde_json::to_value(squad_v1(&predicted)).unwrap();
            let v2 = serde_json::to_value(squad_v2(&predicted)).unwrap();
            golden::assert_scores(&case["v1"], &v1);
            golden::assert_scores(&case["v2"], &v2);
        }
    }

    fn unanswerable(no_answer_score: f64) -> PredictedAnswer<'static> {
        PredictedAnswer { prediction: "guess", is_unanswered: false, answers: Vec::new(), no_answer_score }
    }

    #[test]
    fn answering_nothing_needs_a_threshold_below_every_score() {
        let scores = squad_v2(&[unanswerable(-3.0)]);
        assert_eq!((scores.all.exact_match, scores.best_exact_match), (0.0, 100.0));
        assert!(scores.best_exact_match_threshold < -3.0);
    }

    #[test]
    fn a_text_without_pieces_has_no_part_in_the_threshold() {
        let answered = PredictedAnswer { answers: vec!["guess"], ..unanswerable(-5.0) };
        let empty = PredictedAnswer { prediction: "", is_unanswered: true, ..unanswerable(f64::INFINITY) };
        let scores = squad_v2(&[answered.clone(), empty.clone()]);
        assert_eq!((scores.no_answer_threshold, scores.best_f1), (-4.0, 100.0));
        assert_eq!(squad_v2(&[answered, unanswerable(1.0), empty]).no_answer_threshold, -2.0);
    }
}
