//! Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1): `softmax(Q·Kᵀ / √D + mask) · V` in A heads beside
//! each other, with dropout on the probabilities.
//!
//! `plain` is the formula in burn's operations. On flex one kernel goes through a head at a time, as many queries of it as
//! have their scores in the cache: nothing of the size `[B, A, T, T]` is ever written to memory, and the gradient computes
//! the probabilities again rather than keep them.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::DType;
use pulp::Arch;
use rayon::prelude::*;

use super::autodiff::{Differentiable, apply};
use super::dropout::{Mask, attention_index, factor};
use super::flex::{by_lanes, contiguous, elements, sum_of, tensor_from};
use super::gemm::{Output, View, product};
use super::math::exp_or_zero;
use super::{TensorMetadata, is_fast, softmax};

/// The attended values.
///
/// # Shapes
/// - `query`, `key`, `value` and output: `[B, T, H]`, the heads beside each other in H
/// - `padding`: `[B, T]`, true where a token must not be looked at
/// - `dropout`: the probability of zeroing an attention probability, if there is to be dropout
///
/// # Panics
/// If the shapes are others, or H is no multiple of `heads`.
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    padding: Tensor<2, Bool>,
    heads: usize,
    dropout: Option<f64>,
) -> Tensor<3> {
    let [batch, tokens, width] = query.dims();
    assert!(heads > 0 && width.is_multiple_of(heads), "{width} columns for {heads} heads");
    assert_eq!([query.dims(), query.dims()], [key.dims(), value.dims()], "shapes of query, key and value");
    assert_eq!(padding.dims(), [batch, tokens], "shape of the padding");
    let dropout = dropout.map(Mask::next);
    if !is_fast(&query) {
        return plain(query, key, value, padding, heads, dropout);
    }
    let mask = padding.float() * lowest_score(DType::F32);
    Tensor::from_dispatch(Dispatch::fast_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        mask.into_dispatch(),
        heads,
        dropout.unwrap_or(Mask::NONE),
    ))
}

/// The attended values of a sequence's own tokens, from its hidden states and the query, key and value projections
/// (weights and biases).
///
/// # Shapes
/// - `hidden` and output: `[B, T, H]`
/// - weights: `[H, H]`, biases: `[H]`
/// - `padding`, `dropout`: see [`attention`]
///
/// # Panics
/// If the shapes are others, or H is no multiple of `heads`.
pub fn self_attention(
    hidden: Tensor<3>,
    projections: [(Tensor<2>, Tensor<1>); 3],
    padding: Tensor<2, Bool>,
    heads: usize,
    dropout: Option<f64>,
) -> Tensor<3> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&hidden) {
        return super::cube::self_attention(hidden, projections, padding, heads, dropout);
    }
    let [query, key, value] = projections.map(|(weight, bias)| super::linear(hidden.clone(), weight, bias));
    attention(query, key, value, padding, heads, dropout)
}

/// The formula, for every backend.
fn plain(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    padding: Tensor<2, Bool>,
    heads: usize,
    dropout: Option<Mask>,
) -> Tensor<3> {
    let [batch, tokens, width] = query.dims();
    let mut probabilities = probabilities(query.clone(), key, padding, heads);
    if let Some(mask) = dropout {
        probabilities = probabilities * attention_factors(mask, batch, heads, tokens, &query.device());
    }
    let context = probabilities.matmul(split(value, heads));
    context.swap_dims(1, 2).reshape([batch, tokens, width])
}

/// What dropout multiplies the probabilities of a batch by: `[B, A, T, T]`.
fn attention_factors(mask: Mask, batch: usize, heads: usize, tokens: usize, device: &Device) -> Tensor<4> {
    let scale = mask.scale();
    let pairs = (0..batch).flat_map(|sequence| (0..heads).map(move |head| mask.key_of(sequence, head, heads)));
    let indices = || (0..tokens).flat_map(|from| (0..tokens).map(move |to| attention_index(from, to)));
    let factors: Vec<f32> =
        pairs.flat_map(|key| indices().map(move |index| factor(key, index, mask.p, scale))).collect();
    Tensor::from_data(TensorData::new(factors, [batch, heads, tokens, tokens]), device)
}

/// What each token looks at, before dropout: `[B, A, T, T]` (from, to). Shapes of the inputs: see [`attention`].
pub fn probabilities(query: Tensor<3>, key: Tensor<3>, padding: Tensor<2, Bool>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = query.dims();
    let head_size = (width / heads) as f64;
    let scores = split(query, heads).matmul(split(key, heads).transpose()) / head_size.sqrt();
    let lowest = lowest_score(scores.dtype());
    let padding = padding.unsqueeze_dims::<4>(&[1, 1]).expand([batch, heads, tokens, tokens]);
    softmax(scores.mask_fill(padding, lowest))
}

/// `[B, T, H]` as `[B, A, T, D]`.
fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// The score of a token that must not be looked at. It is finite, so that a row in which every token is padding
/// becomes uniform, as in Hugging Face's BERT, and not NaN.
pub(super) fn lowest_score(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -6e4,
        _ => -1e30,
    }
}

/// The fast version; `mask` `[B, T]` is added to the scores.
#[backend_extension(Flex, Autodiff)]
pub trait AttentionOps: Backend {
    /// Output: `[B, T, H]`.
    fn fast_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> FloatTensor<Self>;
}

/// The gradient of the fast version.
pub trait AttentionGradient: AttentionOps {
    /// The gradients of query, key and value.
    fn attention_gradient(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AttentionOps for Flex {
    fn fast_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> FloatTensor<Self> {
        let [query, key, value, mask] = [query, key, value, mask].map(contiguous);
        let kernel = Kernel::new(&query.shape(), heads, dropout);
        let (q, k, v, m) = (elements(&query), elements(&key), elements(&value), elements(&mask));
        let mut output = vec![0.0; q.len()];
        let (batches, row) = (query.shape()[0], kernel.tokens * kernel.width);
        if batches < rayon::current_num_threads() {
            // Fewer sequences than threads: these share the heads, which are put beside each other afterwards.
            let contexts = (0..batches * heads).into_par_iter().map_init(Vec::new, |scratch, pair| {
                let mut context = vec![0.0; kernel.tokens * kernel.head_size];
                let place = View::rows_of(kernel.head_size);
                kernel.forward(pair / heads, pair % heads, [q, k, v, m], (&mut context, place), scratch);
                context
            });
            for (pair, context) in contexts.collect::<Vec<_>>().iter().enumerate() {
                let output = &mut output[pair / heads * row..][..row];
                let tokens = output.chunks_exact_mut(kernel.width).zip(context.chunks_exact(kernel.head_size));
                for (token, context) in tokens {
                    token[pair % heads * kernel.head_size..][..kernel.head_size].copy_from_slice(context);
                }
            }
            return tensor_from(output, query.shape());
        }
        output.par_chunks_mut(row.max(1)).enumerate().for_each_init(Vec::new, |scratch, (batch, output)| {
            for head in 0..heads {
                kernel.forward(batch, head, [q, k, v, m], (&mut *output, kernel.head(head)), scratch);
            }
        });
        tensor_from(output, query.shape())
    }
}

impl AttentionGradient for Flex {
    fn attention_gradient(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [query, key, value, mask, gradient] = [query, key, value, mask, gradient].map(contiguous);
        let kernel = Kernel::new(&query.shape(), heads, dropout);
        let (q, k, v, m, g) =
            (elements(&query), elements(&key), elements(&value), elements(&mask), elements(&gradient));
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; q.len()]);
        let row = (kernel.tokens * kernel.width).max(1);
        let rows = dq.par_chunks_mut(row).zip(dk.par_chunks_mut(row)).zip(dv.par_chunks_mut(row)).enumerate();
        rows.for_each_init(Vec::new, |scratch, (batch, ((dq, dk), dv))| {
            for head in 0..heads {
                kernel.backward(batch, head, [q, k, v, m, g], [&mut *dq, &mut *dk, &mut *dv], scratch);
            }
        });
        let shape = query.shape();
        (tensor_from(dq, shape.clone()), tensor_from(dk, shape.clone()), tensor_from(dv, shape))
    }
}

/// Scores that the second-level cache of a core holds beside what is computed with them.
const CACHED: usize = 1 << 16;

/// The sizes of one call.
struct Kernel {
    tokens: usize,
    width: usize,
    heads: usize,
    head_size: usize,
    scale: f32,
    dropout: Mask,
}

impl Kernel {
    fn new(shape: &Shape, heads: usize, dropout: Mask) -> Self {
        let (tokens, width) = (shape[1], shape[2]);
        let head_size = width / heads;
        Self { tokens, width, heads, head_size, scale: 1.0 / (head_size as f32).sqrt(), dropout }
    }

    /// A head within its row of the batch, `[T, D]`.
    fn head(&self, head: usize) -> View {
        View { start: head * self.head_size, row: self.width, column: 1 }
    }

    /// A head within the whole batch.
    fn head_of(&self, batch: usize, head: usize) -> View {
        let own = self.head(head);
        View { start: own.start + batch * self.tokens * self.width, ..own }
    }

    /// The queries of a sequence in blocks whose scores stay in the cache.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let (tokens, count) = (self.tokens, (CACHED / self.tokens.max(1)).max(1));
        (0..tokens).step_by(count).map(move |first| first..tokens.min(first + count))
    }

    /// The attention probabilities of some queries of one head, before dropout: `[queries, T]`.
    fn probabilities(
        &self,
        (batch, head, queries): (usize, usize, &Range<usize>),
        [q, k, mask]: [&[f32]; 3],
        scores: &mut [f32],
    ) {
        let (t, own) = (self.tokens, self.head_of(batch, head));
        product(
            [queries.len(), t, self.head_size],
            Output::Replaced,
            (scores, View::rows_of(t)),
            (q, own.below(queries.start)),
            (k, own.transposed()),
        );
        let (mask, factor) = (&mask[batch * t..][..t], self.scale);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in scores.chunks_exact_mut(t) {
                    for (x, &mask) in row.iter_mut().zip(mask) {
                        *x = *x * factor + mask;
                    }
                    let highest = by_lanes(row, f32::NEG_INFINITY, f32::max);
                    for x in row.iter_mut() {
                        *x = exp_or_zero(*x - highest);
                    }
                    let factor = 1.0 / sum_of(row, |x| x);
                    for x in row.iter_mut() {
                        *x *= factor;
                    }
                }
            },
        );
    }

    fn forward(
        &self,
        batch: usize,
        head: usize,
        inputs: [&[f32]; 4],
        output: (&mut [f32], View),
        scratch: &mut Vec<f32>,
    ) {
        let [q, k, v, mask] = inputs;
        let (t, own) = (self.tokens, self.head_of(batch, head));
        for queries in self.blocks() {
            scratch.resize(queries.len() * t, 0.0);
            self.probabilities((batch, head, &queries), [q, k, mask], scratch);
            if self.dropout.p > 0 {
                let (key, p, scale) =
                    (self.dropout.key_of(batch, head, self.heads), self.dropout.p, self.dropout.scale());
                Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for (row, query) in scratch.chunks_exact_mut(t).zip(queries.clone()) {
                            let first = attention_index(query, 0);
                            for (to, x) in row.iter_mut().enumerate() {
                                *x *= factor(key, first | to as u32, p, scale);
                            }
                        }
                    },
                );
            }
            product(
                [queries.len(), self.head_size, t],
                Output::Replaced,
                (&mut *output.0, output.1.below(queries.start)),
                (scratch, View::rows_of(t)),
                (v, own),
            );
        }
    }

    /// Adds to the gradients of query, key and value.
    fn backward(
        &self,
        batch: usize,
        head: usize,
        inputs: [&[f32]; 5],
        gradients: [&mut [f32]; 3],
        scratch: &mut Vec<f32>,
    ) {
        let [q, k, v, mask, g] = inputs;
        let [dq, dk, dv] = gradients;
        let (t, d) = (self.tokens, self.head_size);
        let (own, place, rows_of_t) = (self.head_of(batch, head), self.head(head), View::rows_of(t));
        let is_all_padding = mask[batch * t..][..t].iter().all(|&mask| mask < 0.0);
        for queries in self.blocks() {
            let (count, start) = (queries.len(), queries.start);
            scratch.resize(3 * count * t, 0.0);
            let (probabilities, rest) = scratch.split_at_mut(count * t);
            let (dropped, change) = rest.split_at_mut(count * t);
            self.probabilities((batch, head, &queries), [q, k, mask], probabilities);
            // What dropout did to the probabilities, and the gradient of what it left.
            let (key, p) = (self.dropout.key_of(batch, head, self.heads), self.dropout.p);
            let scale = if p > 0 { self.dropout.scale() } else { 1.0 };
            let gradient = (g, own.below(start));
            product([count, t, d], Output::Replaced, (&mut *change, rows_of_t), gradient, (v, own.transposed()));
            let softmax_scale = self.scale;
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let rows =
                        probabilities.chunks_exact(t).zip(dropped.chunks_exact_mut(t)).zip(change.chunks_exact_mut(t));
                    for (index, ((probabilities, dropped), change)) in rows.enumerate() {
                        let first = attention_index(start + index, 0);
                        if p > 0 {
                            for (column, change) in change.iter_mut().enumerate() {
                                let factor = factor(key, first | column as u32, p, scale);
                                dropped[column] = probabilities[column] * factor;
                                *change *= factor * probabilities[column];
                            }
                        } else {
                            dropped.copy_from_slice(probabilities);
                            for (change, p) in change.iter_mut().zip(probabilities) {
                                *change *= p;
                            }
                        }
                        // Softmax: p·(g − Σ g·p); `change` is g·p by now.
                        let sum = sum_of(change, |x| x);
                        for (change, p) in change.iter_mut().zip(probabilities) {
                            *change = (*change - p * sum) * softmax_scale;
                        }
                    }
                },
            );
            product([t, d, count], Output::AddedTo, (&mut *dv, place), (dropped, rows_of_t.transposed()), gradient);
            if is_all_padding {
                // Nothing may be looked at: the probabilities are uniform, whatever query and key are.
                continue;
            }
            let from = (&mut *dq, place.below(start));
            product([count, d, t], Output::AddedTo, from, (change, rows_of_t), (k, own));
            let query = (q, own.below(start));
            product([t, d, count], Output::AddedTo, (&mut *dk, place), (change, rows_of_t.transposed()), query);
        }
    }
}

/// [`AttentionOps::fast_attention`] within a graph.
#[derive(Debug, Clone)]
struct FastAttention<B: Backend> {
    mask: FloatTensor<B>,
    heads: usize,
    dropout: Mask,
}

impl<B: AttentionGradient> Differentiable<B, 3> for FastAttention<B> {
    type Saved = [FloatTensor<B>; 3];

    fn forward(&self, inputs: [FloatTensor<B>; 3]) -> (FloatTensor<B>, Self::Saved) {
        let [query, key, value] = inputs.clone();
        (B::fast_attention(query, key, value, self.mask.clone(), self.heads, self.dropout), inputs)
    }

    fn backward(
        self,
        [query, key, value]: Self::Saved,
        gradient: FloatTensor<B>,
        _wanted: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let Self { mask, heads, dropout } = self;
        let (dq, dk, dv) = B::attention_gradient(query, key, value, mask, gradient, heads, dropout);
        [dq, dk, dv].map(Some)
    }
}

impl<B: AttentionGradient, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn fast_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> FloatTensor<Self> {
        apply::<_, B, C, 3>(FastAttention::<B> { mask: mask.into_primitive(), heads, dropout }, [query, key, value])
    }
}
