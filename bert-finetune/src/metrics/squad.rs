//! Exact match and F1 of answers, as the official scripts of SQuAD v1.1 and v2.0 count them.
//!
//! Both compare answers after lowercasing and without ASCII punctuation, articles and extra whitespace. F1 is that of
//! the two bags of words. A prediction gets the best score over the given answers. All scores are percentages, 0 to
//! 100.
//!
//! For v2.0 a prediction comes with a score for "no answer", in BERT the difference score(null) − score(best span); a
//! question counts as not answered where that is above a threshold, and the best threshold for the data is found too.

use std::collections::HashMap;

use serde::Serialize;

/// A predicted answer beside the right ones.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedAnswer<'a> {
    pub prediction: &'a str,
    /// Empty if the question has no answer.
    pub answers: Vec<&'a str>,
    /// How much speaks for "no answer"; v1.1 has no use for it.
    pub no_answer_score: f64,
}

/// Means over some questions, in percent; 0 over none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SquadScores {
    pub exact_match: f64,
    pub f1: f64,
    pub examples: u64,
}

/// What v2.0 adds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SquadV2Scores {
    /// Over all questions, at the given threshold.
    #[serde(flatten)]
    pub all: SquadScores,
    /// Over the questions that have an answer, at the given threshold.
    pub has_answer: SquadScores,
    /// Over the others.
    pub no_answer: SquadScores,
    /// The best exact match that any threshold gives, and the threshold.
    pub best_exact_match: f64,
    pub best_exact_match_threshold: f64,
    /// The best F1 that any threshold gives, and the threshold.
    pub best_f1: f64,
    pub best_f1_threshold: f64,
    /// The threshold to use from now on: between the best one, which is a question's own score, and the next higher
    /// score, so that a rounding error does not turn an answer.
    pub no_answer_threshold: f64,
}

/// Scores as `evaluate-v1.1.py` computes them: every question has an answer.
pub fn squad_v1(predicted: &[PredictedAnswer]) -> SquadScores {
    mean(predicted.iter().map(|predicted| {
        let best = best_score(predicted.prediction, &predicted.answers);
        // Where nothing is left of both answers, v1.1 finds no common word.
        let f1 = if normalize(predicted.prediction).is_empty() { 0.0 } else { best.f1 };
        Score { f1, ..best }
    }))
}

/// Scores as `evaluate-v2.0.py` computes them. `prediction` is the best span even where "no answer" scores higher:
/// `threshold` decides that here.
pub fn squad_v2(predicted: &[PredictedAnswer], threshold: f64) -> SquadV2Scores {
    let raw: Vec<Score> = predicted.iter().map(raw_score).collect();
    let decided: Vec<Score> = predicted
        .iter()
        .zip(&raw)
        .map(|(predicted, &raw)| match predicted.no_answer_score > threshold {
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

/// The lowest score above `threshold`, or something above if there is none.
fn next_score(predicted: &[PredictedAnswer], threshold: f64) -> f64 {
    let higher = predicted.iter().map(|predicted| predicted.no_answer_score).filter(|score| *score > threshold);
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

/// v2.0's score: answers of which nothing is left after normalization do not count; without any, the right one is
/// empty.
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

/// F1 of two bags of words; if one is empty, 1 where both are.
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

/// Lower case, no ASCII punctuation, no articles, single spaces: what the official scripts compare.
pub fn normalize(answer: &str) -> String {
    let lower = answer.to_lowercase();
    let unpunctuated: String = lower.chars().filter(|character| !character.is_ascii_punctuation()).collect();
    without_articles(&unpunctuated).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A space for each `a`, `an`, `the` between word boundaries; a word is a run of letters and digits, so that of
/// `the—end` the end stays.
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

/// The best mean score, in percent, that a threshold gives, and that threshold.
///
/// As the official script does it: starting from "no answer" everywhere, questions are answered in the order of their
/// no-answer scores, and the best moment is kept. Its threshold for "no answer" everywhere is 0, which is right for
/// probabilities; differences of scores may be lower, and then so is the threshold here.
fn best_threshold(predicted: &[PredictedAnswer], raw: &[Score], part: fn(&Score) -> f64) -> (f64, f64) {
    let mut order: Vec<(&PredictedAnswer, &Score)> = predicted.iter().zip(raw).collect();
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
            let judge = |index: usize| PredictedAnswer {
                prediction: &predictions[index],
                answers: answers[index].iter().map(String::as_str).collect(),
                no_answer_score: no_answer[index],
            };
            let predicted: Vec<PredictedAnswer> = (0..predictions.len()).map(judge).collect();
            let v1 = serde_json::to_value(squad_v1(&predicted)).unwrap();
            let v2 = serde_json::to_value(squad_v2(&predicted, golden::field(&case, "threshold"))).unwrap();
            golden::assert_scores(&case["v1"], &v1);
            golden::assert_scores(&case["v2"], &v2);
        }
    }

    #[test]
    fn answering_nothing_needs_a_threshold_below_every_score() {
        let predicted = PredictedAnswer { prediction: "guess", answers: Vec::new(), no_answer_score: -3.0 };
        let scores = squad_v2(&[predicted], -2.0);
        assert_eq!((scores.all.exact_match, scores.best_exact_match), (0.0, 100.0));
        assert!(scores.best_exact_match_threshold < -3.0);
    }
}
