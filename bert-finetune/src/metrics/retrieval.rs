//! Retrieval metrics, computed from the rank of the correct documents like sentence-transformers'
//! `InformationRetrievalEvaluator`.

use std::collections::HashMap;

use serde::Serialize;

/// Number of hits that count.
const DEPTH: usize = 10;

/// How well questions retrieve their answers. All scores are means over the questions, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retrieval {
    /// Fraction of questions whose first hit is an answer.
    pub accuracy_at_1: f64,
    /// 1 / the rank of the first answer among the top ten hits, or 0 if there is none.
    pub mrr_at_10: f64,
    /// Normalized discounted cumulative gain of the top ten hits.
    pub ndcg_at_10: f64,
    /// Fraction of a question's answers that are among the top ten hits.
    pub recall_at_10: f64,
}

/// Retrieval data made from pairs of texts: each first text is a question to all second texts. Equal texts are one
/// question, or one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// For each question, the index of a pair whose first text it is.
    pub questions: Vec<usize>,
    /// For each document, the index of a pair whose second text it is.
    pub documents: Vec<usize>,
    /// For each question, the indices of the documents that answer it.
    pub answers: Vec<Vec<usize>>,
}

impl Questions {
    /// Collects questions and documents from pairs, in order.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut found = Self { questions: Vec::new(), documents: Vec::new(), answers: Vec::new() };
        let (mut first, mut second): (HashMap<&str, usize>, HashMap<&str, usize>) = Default::default();
        for (pair, (question, document)) in pairs.enumerate() {
            let question = *first.entry(question).or_insert_with(|| {
                found.questions.push(pair);
                found.answers.push(Vec::new());
                found.questions.len() - 1
            });
            let document = *second.entry(document).or_insert_with(|| {
                found.documents.push(pair);
                found.documents.len() - 1
            });
            if !found.answers[question].contains(&document) {
                found.answers[question].push(document);
            }
        }
        found
    }
}

/// Compares hits with the answers. Hits are ordered best first; each question must have at least ten, if there are as
/// many documents.
pub fn retrieval(hits: &[Vec<usize>], answers: &[Vec<usize>]) -> Retrieval {
    let each = |figure: &dyn Fn(&[bool], usize) -> f64| {
        let figures = hits.iter().zip(answers).map(|(hits, answers)| {
            let right: Vec<bool> = hits.iter().take(DEPTH).map(|hit| answers.contains(hit)).collect();
            figure(&right, answers.len())
        });
        figures.sum::<f64>() / hits.len().max(1) as f64
    };
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    Retrieval {
        accuracy_at_1: each(&|right, _| f64::from(right.first() == Some(&true))),
        mrr_at_10: each(&|right, _| right.iter().position(|&is| is).map_or(0.0, |place| 1.0 / (place as f64 + 1.0))),
        ndcg_at_10: each(&|right, answers| {
            let found: f64 = right.iter().enumerate().filter(|(_, is)| **is).map(|(place, _)| gain(place)).sum();
            found / (0..answers.min(DEPTH)).map(gain).sum::<f64>()
        }),
        recall_at_10: each(&|right, answers| right.iter().filter(|is| **is).count() as f64 / answers as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_question_or_one_document() {
        let pairs = [("a", "x"), ("b", "y"), ("a", "y"), ("c", "x"), ("a", "x")];
        let found = Questions::of(pairs.into_iter());
        assert_eq!((found.questions, found.documents), (vec![0, 1, 3], vec![0, 1]));
        assert_eq!(found.answers, [vec![0, 1], vec![1], vec![0]]);
    }

    #[test]
    fn places_count_as_they_should() {
        let hits = [vec![3, 1, 2], vec![0, 1, 2], (0..12).collect()];
        let answers = [vec![1], vec![0, 2], vec![11]];
        let found = retrieval(&hits, &answers);
        assert_eq!(found.accuracy_at_1, 1.0 / 3.0);
        assert!((found.mrr_at_10 - (0.5 + 1.0 + 0.0) / 3.0).abs() < 1e-12);
        let ndcg = [1.0 / 3_f64.log2(), (1.0 + 0.5) / (1.0 + 1.0 / 3_f64.log2()), 0.0];
        assert!((found.ndcg_at_10 - ndcg.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert!((found.recall_at_10 - (1.0 + 1.0 + 0.0) / 3.0).abs() < 1e-12);
    }
}
