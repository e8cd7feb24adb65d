//! Evaluates embeddings: correlates similarities with scores, or searches for the texts that belong together.

use serde_json::{Value, json};

use super::EmbeddingTask;
use crate::data::pairs::PairRow;
use crate::metrics::regression::{pearson, spearman};
use crate::metrics::retrieval::{Questions, retrieval};
use crate::nearest::nearest;
use crate::report::{Mistake, worst};

/// The vectors of the texts of each example.
type Vectors = [Vec<Vec<Vec<f32>>>];

/// Number of hits for each question.
const HITS: usize = 10;

impl EmbeddingTask {
    /// The correlations of similarities with scores.
    pub(super) fn score_metrics(&self, examples: &[PairRow], outputs: &Vectors) -> Value {
        let scored = |(example, outputs): (&PairRow, &Vec<Vec<Vec<f32>>>)| {
            example.score.map(|score| (score, self.similarity(&outputs[0])))
        };
        let (gold, found): (Vec<f64>, Vec<f64>) = examples.iter().zip(outputs).filter_map(scored).unzip();
        let errors = gold.iter().zip(&found).map(|(gold, found)| (self.scaled(*gold) - found).powi(2));
        let loss = errors.sum::<f64>() / gold.len().max(1) as f64;
        json!({"spearman": spearman(&gold, &found), "pearson": pearson(&gold, &found), "loss": loss})
    }

    /// The retrieval metrics of a search for each first text among all second texts.
    pub(super) fn retrieval_metrics(&self, examples: &[PairRow], outputs: &Vectors) -> Value {
        let (questions, hits) = self.search(examples, outputs);
        let hits: Vec<Vec<usize>> = hits.iter().map(|hits| hits.iter().map(|(index, _)| *index).collect()).collect();
        json!(retrieval(&hits, &questions.answers))
    }

    /// Finds the nearest second texts of each first text. Equal texts are searched for, and found, only once.
    fn search(&self, examples: &[PairRow], outputs: &Vectors) -> (Questions, Vec<Vec<(usize, f32)>>) {
        let found = Questions::of(examples.iter().map(|row| (row.texts[0].as_str(), row.texts[1].as_str())));
        let vectors = |pairs: &[usize], text: usize| -> Vec<Vec<f32>> {
            pairs.iter().map(|&pair| outputs[pair][0][text].clone()).collect()
        };
        let (questions, documents) = (vectors(&found.questions, 0), vectors(&found.documents, 1));
        let hits = nearest(&questions, &documents, self.description().similarity, HITS);
        let hits = hits.into_iter().map(|hits| hits.into_iter().map(|hit| (hit.index, hit.score)).collect());
        (found, hits.collect())
    }

    /// Pairs whose similarity is far from their score.
    pub(super) fn wrong_scores(&self, examples: &[PairRow], outputs: &Vectors) -> Vec<Mistake> {
        let mistake = |(example, outputs): (&PairRow, &Vec<Vec<Vec<f32>>>)| {
            let (gold, found) = (self.scaled(example.score?), self.similarity(&outputs[0]));
            let mistake = Mistake::Label {
                text: example.texts[0].clone(),
                parts: vec![("second text".into(), example.texts[1].clone())],
                expected: format!("{gold:.2}"),
                predicted: format!("{found:.2}"),
                probability: None,
            };
            Some(((gold - found).abs(), mistake))
        };
        worst(examples.iter().zip(outputs).filter_map(mistake).collect())
    }

    /// Questions whose first hit is not an answer, with that hit.
    pub(super) fn wrong_hits(&self, examples: &[PairRow], outputs: &Vectors) -> Vec<Mistake> {
        let (questions, hits) = self.search(examples, outputs);
        let mistake = |(question, hits): (usize, &Vec<(usize, f32)>)| {
            let answers = &questions.answers[question];
            let (wrong, score) = *hits.first().filter(|(hit, _)| !answers.contains(hit))?;
            let pair = questions.questions[question];
            let own = self.similarity(&outputs[pair][0]);
            let place = hits.iter().position(|(hit, _)| answers.contains(hit));
            let place = place.map_or(format!("below rank {HITS}"), |place| format!("at rank {}", place + 1));
            let mistake = Mistake::Label {
                text: examples[pair].texts[0].clone(),
                parts: vec![("expected hit".into(), format!("{place}, similarity {own:.3}"))],
                expected: examples[pair].texts[1].clone(),
                predicted: examples[questions.documents[wrong]].texts[1].clone(),
                probability: None,
            };
            Some((f64::from(score) - own, mistake))
        };
        worst(hits.iter().enumerate().filter_map(mistake).collect())
    }
}
