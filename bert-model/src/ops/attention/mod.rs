//! Scaled dot-product attention in A heads (Vaswani et al. 2017, §3.2): `softmax(Q·Kᵀ / √D + mask) · V` in each head,
//! with dropout on the probabilities.
//!
//! This file has the formula in burn's operations, for every backend. On flex a fused kernel computes a block of
//! queries of one head at a time, as many as have their scores in the cache: no `[B, A, T, T]` tensor is ever stored,
//! and the backward pass recomputes the probabilities instead of keeping them.

mod flex;
mod kernel;

use burn::backend::Dispatch;
use burn::prelude::*;
use burn::tensor::DType;

use super::dropout::{Mask, attention_index, factor};
use super::{is_fast, softmax};
use flex::AttentionOps;
pub(super) use flex::contexts;
pub(super) use kernel::Kernel;

/// Multi-head attention without its projections (Vaswani et al. 2017, §3.2.1 and §3.2.2): for each query, the mean of
/// the values, weighted by the softmax of the scaled scores.
///
/// `dropout` is the probability of zeroing an attention probability; `None` for no dropout.
///
/// # Shapes
/// - `query`, `key`, `value` and output: `[B, T, H]`, the heads concatenated along H
/// - `padding`: `[B, T]`, true for padding tokens, which get no attention
///
/// # Panics
/// If the shapes do not match, or H is not a multiple of `heads`.
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

/// Multi-head self-attention without the output projection (Vaswani et al. 2017, §3.2.2): projects the hidden states to
/// queries, keys and values, in this order of `projections` (weight, bias), and applies [`attention()`].
///
/// # Shapes
/// - `hidden` and output: `[B, T, H]`
/// - weights: `[H, H]`, biases: `[H]`
/// - `padding`, `dropout`: see [`attention()`]
///
/// # Panics
/// If the shapes do not match, or H is not a multiple of `heads`.
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

/// The formula in burn's operations, for every backend.
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
        let factors = dropout_factors(mask, batch, heads, tokens, &query.device());
        let dtype = probabilities.dtype();
        probabilities = probabilities * factors.cast(dtype);
    }
    let context = probabilities.matmul(split_heads(value, heads));
    context.swap_dims(1, 2).reshape([batch, tokens, width])
}

/// The dropout factor (0 or 1 / (1 − p)) of every attention probability: `[B, A, T, T]`.
fn dropout_factors(mask: Mask, batch: usize, heads: usize, tokens: usize, device: &Device) -> Tensor<4> {
    let scale = mask.scale();
    let pairs = (0..batch).flat_map(|sequence| (0..heads).map(move |head| mask.key_of(sequence, head, heads)));
    let indices = || (0..tokens).flat_map(|from| (0..tokens).map(move |to| attention_index(from, to)));
    let factors: Vec<f32> =
        pairs.flat_map(|key| indices().map(move |index| factor(key, index, mask.p, scale))).collect();
    Tensor::from_data(TensorData::new(factors, [batch, heads, tokens, tokens]), device)
}

/// The attention probabilities `softmax(Q·Kᵀ / √D + mask)`, before dropout. Row `i` of each head sums to 1 and says how
/// much token `i` attends to each token.
///
/// # Shapes
/// - `query`, `key`: `[B, T, H]`
/// - `padding`: `[B, T]`, true for padding tokens
/// - output: `[B, A, T, T]` (query, key)
pub fn probabilities(query: Tensor<3>, key: Tensor<3>, padding: Tensor<2, Bool>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = query.dims();
    let head_size = (width / heads) as f64;
    let scores = split_heads(query, heads).matmul(split_heads(key, heads).transpose()) / head_size.sqrt();
    let lowest = lowest_score(scores.dtype());
    let padding = padding.unsqueeze_dims::<4>(&[1, 1]).expand([batch, heads, tokens, tokens]);
    softmax(scores.mask_fill(padding, lowest))
}

/// Reshapes `[B, T, H]` to `[B, A, T, D]`.
fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// The score of a padding token. It is finite, so that the probabilities of a sequence of nothing but padding are
/// uniform, as in Hugging Face's BERT, rather than NaN.
pub(super) fn lowest_score(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -6e4,
        _ => -1e30,
    }
}
