//! Exact nearest-neighbor search: compares every vector with every query and keeps the best ones.
//!
//! Cosines and dot products are first computed in blocks, as the product of two matrices. That is fast, but its
//! rounding depends on the place in the block. So it only finds the vectors that may be among the best, which are then
//! compared one by one.

use std::cmp::Ordering;

use bert_model::pipeline::Similarity;
use burn::tensor::{Device, Tensor, TensorData};

/// Number of queries and of vectors in a product. Queries, vectors and products should fit the cache of a core.
const QUERIES: usize = 256;
const ROWS: usize = 512;

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

    /// A score below which no vector is added.
    pub fn least(&self) -> f32 {
        match self.hits.len() == self.limit {
            true => self.hits.last().map_or(f32::INFINITY, |hit| hit.score),
            false => f32::NEG_INFINITY,
        }
    }

    /// Returns the hits, best first.
    pub fn into_hits(self) -> Vec<Hit<P>> {
        self.hits
    }
}

/// Queries to compare with any number of vectors of the same width W.
pub struct Queries {
    similarity: Similarity,
    /// The queries, [prepared](Similarity::prepare).
    vectors: Vec<Vec<f32>>,
    /// The queries as columns of matrices `[W, at most QUERIES]`; none if the similarity is not a product.
    blocks: Vec<Tensor<2>>,
    /// The greatest length of a query.
    longest: f32,
}

impl Queries {
    /// Prepares queries.
    pub fn new(mut vectors: Vec<Vec<f32>>, similarity: Similarity) -> Self {
        vectors.iter_mut().for_each(|vector| similarity.prepare(vector));
        let longest = vectors.iter().map(|vector| length(vector)).fold(0.0, f32::max);
        let block = |vectors: &[Vec<f32>]| matrix(vectors.concat(), vectors.len()).transpose();
        let blocks = match similarity {
            Similarity::Cosine | Similarity::Dot => vectors.chunks(QUERIES).map(block).collect(),
            _ => Vec::new(),
        };
        Self { similarity, vectors, blocks, longest }
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are no queries.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// The width of the vectors; `None` if there are no queries.
    pub fn width(&self) -> Option<usize> {
        self.vectors.first().map(Vec::len)
    }

    /// Finds the best `limit` of the vectors `rows` (row after row), by index, for each query. Vectors whose score is
    /// below the query's `least` score are left out. The rows are prepared in place.
    pub fn compare(&self, rows: &mut [f32], least: &[f32], limit: usize) -> Vec<Best<()>> {
        let width = self.width().unwrap_or_default().max(1);
        rows.chunks_mut(width).for_each(|row| self.similarity.prepare(row));
        let mut least = least.to_vec();
        let mut best = vec![Best::new(limit); self.len()];
        let mut offer = |query: usize, index: usize, row: &[f32], least: &mut f32| {
            best[query].offer(self.similarity.of_prepared(&self.vectors[query], row), index, || ());
            *least = least.max(best[query].least());
        };
        for (block, rows) in rows.chunks(ROWS * width).enumerate() {
            let first = block * ROWS;
            if self.blocks.is_empty() {
                for (index, row) in rows.chunks(width).enumerate() {
                    least.iter_mut().enumerate().for_each(|(query, least)| offer(query, first + index, row, least));
                }
                continue;
            }
            // The rounding error of a sum of W products is at most W · ε times the lengths of the vectors.
            let longest = rows.chunks(width).map(length).fold(0.0, f32::max);
            let error = 2.0 * width as f32 * f32::EPSILON * longest * self.longest;
            let matrix = matrix(rows.to_vec(), rows.len() / width);
            for (part, (queries, least)) in self.blocks.iter().zip(least.chunks_mut(QUERIES)).enumerate() {
                let products = matrix.clone().matmul(queries.clone()).into_data();
                let mut products = products.iter::<f32>();
                for (index, row) in rows.chunks(width).enumerate() {
                    for (query, (least, product)) in least.iter_mut().zip(products.by_ref()).enumerate() {
                        // Not a number, from infinite products, is no reason to leave a vector out.
                        if product.partial_cmp(&(*least - error)) != Some(Ordering::Less) {
                            offer(part * QUERIES + query, first + index, row, least);
                        }
                    }
                }
            }
        }
        best
    }
}

/// The length of a vector.
fn length(vector: &[f32]) -> f32 {
    Similarity::Dot.of_prepared(vector, vector).sqrt()
}

/// A matrix with this many rows.
fn matrix(values: Vec<f32>, rows: usize) -> Tensor<2> {
    let width = values.len() / rows.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), &Device::flex())
}

/// Finds the best `limit` of `documents`, by index, for each question. All vectors have the same width.
pub fn nearest(
    questions: &[Vec<f32>],
    documents: &[Vec<f32>],
    similarity: Similarity,
    limit: usize,
) -> Vec<Vec<Hit<()>>> {
    let least = vec![f32::NEG_INFINITY; questions.len()];
    let best = Queries::new(questions.to_vec(), similarity).compare(&mut documents.concat(), &least, limit);
    best.into_iter().map(Best::into_hits).collect()
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

    /// Blocks of any shape find what a plain loop finds, with the same scores, also among equal vectors.
    #[test]
    fn blocks_find_what_a_loop_finds() {
        let random = |seed: usize, count: usize, width: usize| -> Vec<Vec<f32>> {
            let number = |at: usize| ((at + seed) as u32).wrapping_mul(2_654_435_761) >> 20;
            let mut vectors: Vec<Vec<f32>> =
                (0..count).map(|i| (0..width).map(|j| number(i * width + j) as f32 / 512.0 - 4.0).collect()).collect();
            for copy in (0..count).step_by(7) {
                vectors[copy] = vectors[copy / 2].clone();
            }
            vectors
        };
        for (queries, rows, width) in [(1, 1, 1), (3, 2 * ROWS + 1, 19), (QUERIES + 1, ROWS, 64), (2, 0, 5)] {
            let (questions, documents) = (random(1, queries, width), random(9, rows, width));
            for similarity in [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan] {
                let found = nearest(&questions, &documents, similarity, 5);
                for (question, found) in questions.iter().zip(found) {
                    let mut best = Best::new(5);
                    for (index, document) in documents.iter().enumerate() {
                        best.offer(similarity.of(question, document), index, || ());
                    }
                    assert_eq!(found, best.into_hits(), "{similarity:?} {queries} {rows} {width}");
                }
            }
        }
    }

    #[test]
    fn what_is_below_the_least_score_is_left_out() {
        let queries = Queries::new(vec![vec![1.0, 0.0]], Similarity::Cosine);
        let best = queries.compare(&mut [1.0, 1.0, 0.0, 1.0, 2.0, 0.0], &[0.9], 3);
        assert_eq!(best[0].clone().into_hits(), [Hit { score: 1.0, index: 2, payload: () }]);
        assert_eq!(best[0].least(), f32::NEG_INFINITY);
    }
}
