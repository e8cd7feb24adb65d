//! Exact nearest-neighbor search: compares every vector and keeps the best ones.

use std::cmp::Ordering;

use bert_model::pipeline::Similarity;

/// A vector that was found, identified by the index of its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit<P> {
    /// The similarity to the query.
    pub score: f32,
    /// The index of the vector, from 0.
    pub index: usize,
    /// Additional data of the vector, such as its text.
    pub payload: P,
}

/// The best `limit` hits so far. Among equal scores, the lower index is better.
#[derive(Debug, Clone)]
pub struct Best<P> {
    limit: usize,
    /// The hits, best first.
    hits: Vec<Hit<P>>,
}

impl<P> Best<P> {
    /// Creates an empty list.
    pub fn new(limit: usize) -> Self {
        Self { limit, hits: Vec::new() }
    }

    /// Adds a vector if it is among the best; `payload` is only called in that case.
    pub fn offer(&mut self, score: f32, index: usize, payload: impl FnOnce() -> P) {
        let is_before = |hit: &Hit<P>| {
            let order = hit.score.total_cmp(&score).then(index.cmp(&hit.index));
            order == Ordering::Greater
        };
        if self.hits.len() == self.limit && self.hits.last().is_none_or(is_before) {
            return;
        }
        let place = self.hits.partition_point(is_before);
        self.hits.insert(place, Hit { score, index, payload: payload() });
        self.hits.truncate(self.limit);
    }

    /// Returns the hits, best first.
    pub fn into_hits(self) -> Vec<Hit<P>> {
        self.hits
    }
}

/// Finds the best `limit` of `documents`, by index, for each question. All vectors have the same width.
pub fn nearest(
    questions: &[Vec<f32>],
    documents: &[Vec<f32>],
    similarity: Similarity,
    limit: usize,
) -> Vec<Vec<Hit<()>>> {
    let prepared = |vectors: &[Vec<f32>]| {
        let mut vectors = vectors.to_vec();
        vectors.iter_mut().for_each(|vector| similarity.prepare(vector));
        vectors
    };
    let documents = prepared(documents);
    let find = |question: Vec<f32>| {
        let mut best = Best::new(limit);
        for (index, document) in documents.iter().enumerate() {
            best.offer(similarity.of_prepared(&question, document), index, || ());
        }
        best.into_hits()
    };
    prepared(questions).into_iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_whatever_their_order() {
        let scores: Vec<f32> =
            (0..200_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32 / 16.0).map(f32::floor).collect();
        let mut best = Best::new(7);
        for (index, &score) in scores.iter().enumerate() {
            best.offer(score, index, || index);
        }
        let mut expected: Vec<usize> = (0..scores.len()).collect();
        expected.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let found: Vec<usize> = best.into_hits().into_iter().map(|hit| hit.index).collect();
        assert_eq!(found, expected[..7]);
        let mut none = Best::new(0);
        none.offer(1.0, 0, || ());
        assert!(none.into_hits().is_empty());
    }

    #[test]
    fn cosine_does_not_look_at_the_length() {
        let documents = [vec![0.0, 9.0], vec![0.1, 0.0], vec![3.0, 3.0]];
        let found = nearest(&[vec![2.0, 0.0]], &documents, Similarity::Cosine, 2);
        let indices: Vec<usize> = found[0].iter().map(|hit| hit.index).collect();
        assert_eq!(indices, [1, 2]);
        let found = nearest(&[vec![2.0, 0.0]], &documents, Similarity::Dot, 1);
        assert_eq!(found[0][0].index, 2);
    }
}
