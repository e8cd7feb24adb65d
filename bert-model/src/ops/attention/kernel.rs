//! The attention kernel of flex: forward and backward pass of one head of one sequence, a block of queries at a time.

use std::ops::Range;

use burn::prelude::*;
use pulp::Arch;

use crate::ops::dropout::{Mask, attention_index, factor};
use crate::ops::flex::{softmax_row, sum_of};
use crate::ops::gemm::{View, Write, matmul};

/// Scores in a block of queries: as many as a core's second-level cache holds beside the operands.
const BLOCK_SCORES: usize = 1 << 16;

/// The sizes and the dropout mask of one call.
pub(in crate::ops) struct Kernel {
    /// T.
    pub tokens: usize,
    /// H = A·D.
    pub width: usize,
    /// D.
    pub head_size: usize,
    heads: usize,
    /// Elements from a token's query, key or value to the next token's: H, or more if they lie side by side.
    row: usize,
    /// 1 / √D.
    scale: f32,
    dropout: Mask,
}

/// Some queries of one head of one sequence.
struct Block {
    batch: usize,
    head: usize,
    queries: Range<usize>,
}

impl Kernel {
    /// For inputs of shape `[B, T, H]`.
    pub fn new(shape: &Shape, heads: usize, dropout: Mask) -> Self {
        let (tokens, width) = (shape[1], shape[2]);
        let head_size = width / heads;
        Self { tokens, width, head_size, heads, row: width, scale: 1.0 / (head_size as f32).sqrt(), dropout }
    }

    /// The same, for queries, keys and values that are `row` elements apart.
    pub fn with_row(self, row: usize) -> Self {
        Self { row, ..self }
    }

    /// A head `[T, D]` within its sequence `[T, H]`.
    pub fn head(&self, head: usize) -> View {
        View { start: head * self.head_size, row: self.width, column: 1 }
    }

    /// A head `[T, D]` of the queries, keys or values within the whole batch `[B, T, H]`.
    fn head_in_batch(&self, batch: usize, head: usize) -> View {
        View { start: head * self.head_size + batch * self.tokens * self.row, row: self.row, column: 1 }
    }

    /// The queries of a head in blocks whose scores stay in the cache.
    fn blocks(&self, batch: usize, head: usize) -> impl Iterator<Item = Block> {
        let (tokens, count) = (self.tokens, (BLOCK_SCORES / self.tokens.max(1)).max(1));
        let queries = (0..tokens).step_by(count).map(move |first| first..tokens.min(first + count));
        queries.map(move |queries| Block { batch, head, queries })
    }

    /// Computes the context vectors of one head. `q`, `k` and `v` are `[B, T, H]`; `mask` `[B, T]` is added to the
    /// scores; `output` is a slice and where the head's `[T, D]` lies in it.
    pub fn forward(
        &self,
        (batch, head): (usize, usize),
        [q, k, v, mask]: [&[f32]; 4],
        output: (&mut [f32], View),
        scratch: &mut Vec<f32>,
    ) {
        let tokens = self.tokens;
        for block in self.blocks(batch, head) {
            let count = block.queries.len();
            scratch.resize(count * tokens, 0.0);
            self.probabilities(&block, [q, k, mask], scratch);
            if self.dropout.p > 0 {
                self.apply_dropout(&block, scratch);
            }
            matmul(
                [count, self.head_size, tokens],
                Write::Replace,
                (&mut *output.0, output.1.skip_rows(block.queries.start)),
                (scratch, View::row_major(tokens)),
                (v, self.head_in_batch(batch, head)),
            );
        }
    }

    /// Adds to the gradients of queries, keys and values of one sequence, `[T, H]` each. `q`, `k`, `v` and `mask` are
    /// as in the forward pass; `g` `[B, T, H]` is the gradient of its output.
    pub fn backward(
        &self,
        (batch, head): (usize, usize),
        [q, k, v, mask, g]: [&[f32]; 5],
        [dq, dk, dv]: [&mut [f32]; 3],
        scratch: &mut Vec<f32>,
    ) {
        let (t, d) = (self.tokens, self.head_size);
        let (in_batch, in_sequence) = (self.head_in_batch(batch, head), self.head(head));
        let square = View::row_major(t);
        let is_all_padding = mask[batch * t..][..t].iter().all(|&mask| mask < 0.0);
        for block in self.blocks(batch, head) {
            let (count, start) = (block.queries.len(), block.queries.start);
            scratch.resize(3 * count * t, 0.0);
            let (probabilities, rest) = scratch.split_at_mut(count * t);
            let (dropped, dscores) = rest.split_at_mut(count * t);
            self.probabilities(&block, [q, k, mask], probabilities);
            let gradient = (g, in_batch.skip_rows(start));
            matmul([count, t, d], Write::Replace, (&mut *dscores, square), gradient, (v, in_batch.transposed()));
            self.softmax_backward(&block, probabilities, dropped, dscores);
            matmul([t, d, count], Write::Add, (&mut *dv, in_sequence), (dropped, square.transposed()), gradient);
            if is_all_padding {
                // The probabilities are uniform, whatever queries and keys are: these have no gradient.
                continue;
            }
            let target = (&mut *dq, in_sequence.skip_rows(start));
            matmul([count, d, t], Write::Add, target, (dscores, square), (k, in_batch));
            let queries = (q, in_batch.skip_rows(start));
            matmul([t, d, count], Write::Add, (&mut *dk, in_sequence), (dscores, square.transposed()), queries);
        }
    }

    /// The attention probabilities of a block of queries, before dropout: `[queries, T]`.
    fn probabilities(&self, block: &Block, [q, k, mask]: [&[f32]; 3], scores: &mut [f32]) {
        let (t, head) = (self.tokens, self.head_in_batch(block.batch, block.head));
        matmul(
            [block.queries.len(), t, self.head_size],
            Write::Replace,
            (scores, View::row_major(t)),
            (q, head.skip_rows(block.queries.start)),
            (k, head.transposed()),
        );
        let (mask, factor) = (&mask[block.batch * t..][..t], self.scale);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in scores.chunks_exact_mut(t) {
                    for (x, &mask) in row.iter_mut().zip(mask) {
                        *x = *x * factor + mask;
                    }
                    softmax_row(row);
                }
            },
        );
    }

    /// Applies dropout to a block of probabilities `[queries, T]`.
    fn apply_dropout(&self, block: &Block, probabilities: &mut [f32]) {
        let key = self.dropout.key_of(block.batch, block.head, self.heads);
        let (t, p, scale) = (self.tokens, self.dropout.p, self.dropout.scale());
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (row, query) in probabilities.chunks_exact_mut(t).zip(block.queries.clone()) {
                    let first = attention_index(query, 0);
                    for (to, x) in row.iter_mut().enumerate() {
                        *x *= factor(key, first | to as u32, p, scale);
                    }
                }
            },
        );
    }

    /// The backward pass of scaling, softmax and dropout for a block `[queries, T]`. `gradient` holds the gradient of
    /// the probabilities after dropout and receives that of the scores; `dropped` receives the probabilities after
    /// dropout.
    fn softmax_backward(&self, block: &Block, probabilities: &[f32], dropped: &mut [f32], gradient: &mut [f32]) {
        let t = self.tokens;
        let (key, p) = (self.dropout.key_of(block.batch, block.head, self.heads), self.dropout.p);
        let scale = if p > 0 { self.dropout.scale() } else { 1.0 };
        let softmax_scale = self.scale;
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows =
                    probabilities.chunks_exact(t).zip(dropped.chunks_exact_mut(t)).zip(gradient.chunks_exact_mut(t));
                for (((probabilities, dropped), gradient), query) in rows.zip(block.queries.clone()) {
                    let first = attention_index(query, 0);
                    if p > 0 {
                        for (column, gradient) in gradient.iter_mut().enumerate() {
                            let factor = factor(key, first | column as u32, p, scale);
                            dropped[column] = probabilities[column] * factor;
                            *gradient *= factor * probabilities[column];
                        }
                    } else {
                        dropped.copy_from_slice(probabilities);
                        for (gradient, p) in gradient.iter_mut().zip(probabilities) {
                            *gradient *= p;
                        }
                    }
                    // The gradient of softmax is p·(g − Σ g·p); `gradient` is g·p here.
                    let sum = sum_of(gradient, |x| x);
                    for (gradient, p) in gradient.iter_mut().zip(probabilities) {
                        *gradient = (*gradient - p * sum) * softmax_scale;
                    }
                }
            },
        );
    }
}
