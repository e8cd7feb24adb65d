//! Self-attention on a GPU, from the hidden states to the attended values: one product makes queries, keys and values, and
//! everything between the products (bias, heads, scale, padding, softmax, dropout) is one kernel each way.
//!
//! The probabilities are kept for the gradient, dropout is not.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::{Bool, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;

use super::dropout::{Site, factor};
use super::launch::{Rows, buffer, contiguous, element, elementwise, empty};
use super::product::{Weights, multiply, transposed};
use super::rows::{max_of_lanes, reshaped, row, sum_of_lanes, sum_rows};
use crate::ops::attention::lowest_score;
use crate::ops::autodiff::{Differentiable, apply};

/// The rows of three matrices `[I, O]` beside each other: `[I, 3·O]`.
#[cube(launch)]
fn pack<E: Float>(
    first: &[E],
    second: &[E],
    third: &[E],
    packed: &mut [E],
    width: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < packed.len() as u32 {
        let (row, column) = (at / (3u32 * width), at % (3u32 * width));
        let from = (row * width + column % width) as usize;
        let which = column / width;
        let value = select(which == 0, first[from], select(which == 1, second[from], third[from]));
        packed[at as usize] = value;
    }
}

/// The reverse of [`pack`].
#[cube(launch)]
fn unpack<E: Float>(
    packed: &[E],
    first: &mut [E],
    second: &mut [E],
    third: &mut [E],
    width: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < first.len() as u32 {
        let from = ((at / width) * 3u32 * width + at % width) as usize;
        first[at as usize] = packed[from];
        second[at as usize] = packed[from + width as usize];
        third[at as usize] = packed[from + 2 * width as usize];
    }
}

/// Where element `at` of `[B, A, T, D]` is within `[B, T, A·D]`: its row and its column.
#[cube]
fn token_and_column(at: u32, tokens: u32, heads: u32, size: u32) -> (u32, u32) {
    let (within, token) = (at % size, (at / size) % tokens);
    let (head, batch) = ((at / (size * tokens)) % heads, at / (size * tokens * heads));
    (batch * tokens + token, head * size + within)
}

/// `[B·T, 3·H]` plus biases to three times `[B, A, T, D]`; queries are scaled.
#[cube(launch)]
fn split_heads<E: Float>(
    packed: &[E],
    query_bias: &[E],
    key_bias: &[E],
    value_bias: &[E],
    query: &mut [E],
    key: &mut [E],
    value: &mut [E],
    tokens: u32,
    heads: u32,
    size: u32,
    scale: f32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < query.len() {
        let (row, column) = token_and_column(at as u32, tokens, heads, size);
        let width = heads * size;
        let (from, bias) = ((row * 3u32 * width + column) as usize, column as usize);
        let q = f32::cast_from(packed[from]) + f32::cast_from(query_bias[bias]);
        let k = f32::cast_from(packed[from + width as usize]) + f32::cast_from(key_bias[bias]);
        let v = f32::cast_from(packed[from + 2 * width as usize]) + f32::cast_from(value_bias[bias]);
        query[at] = E::cast_from(q * scale);
        key[at] = E::cast_from(k);
        value[at] = E::cast_from(v);
    }
}

/// The reverse of [`split_heads`], for gradients.
#[cube(launch)]
fn merge_three<E: Float>(
    query: &[E],
    key: &[E],
    value: &[E],
    packed: &mut [E],
    tokens: u32,
    heads: u32,
    size: u32,
    scale: f32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < query.len() {
        let (row, column) = token_and_column(at as u32, tokens, heads, size);
        let width = heads * size;
        let to = (row * 3u32 * width + column) as usize;
        packed[to] = E::cast_from(f32::cast_from(query[at]) * scale);
        packed[to + width as usize] = key[at];
        packed[to + 2 * width as usize] = value[at];
    }
}

/// `[B, A, T, D]` to `[B·T, A·D]`.
#[cube(launch)]
fn merge_heads<E: Float>(
    heads_apart: &[E],
    rows: &mut [E],
    tokens: u32,
    heads: u32,
    size: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < heads_apart.len() {
        let (row, column) = token_and_column(at as u32, tokens, heads, size);
        rows[(row * heads * size + column) as usize] = heads_apart[at];
    }
}

/// The reverse of [`merge_heads`].
#[cube(launch)]
fn heads_apart<E: Float>(
    rows: &[E],
    heads_apart: &mut [E],
    tokens: u32,
    heads: u32,
    size: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < heads_apart.len() {
        let (row, column) = token_and_column(at as u32, tokens, heads, size);
        heads_apart[at] = rows[(row * heads * size + column) as usize];
    }
}

/// Scores to probabilities, in place, and to what dropout leaves of them.
#[cube(launch)]
fn softmax_kernel<E: Float, P: Int>(
    scores: &mut [E],
    padding: &[P],
    keys: &[u32],
    dropped: &mut [E],
    tokens: u32,
    heads: u32,
    lowest: f32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
    #[define(P)] _flags: ElemType,
) {
    let rows = scores.len() / tokens as usize;
    let is_row = row() < rows;
    let row = min(row(), rows - 1);
    let (start, pair) = (row * tokens as usize, row as u32 / tokens);
    let (batch, head, from) = (pair / heads, pair % heads, row as u32 % tokens);
    let first = (batch * tokens) as usize;
    let mut highest = lowest;
    let mut to = UNIT_POS_X;
    while to < tokens {
        let is_padding = u32::cast_from(padding[first + to as usize]) != 0u32;
        let score = select(is_padding, lowest, f32::cast_from(scores[start + to as usize]));
        highest = max(highest, score);
        to += lanes;
    }
    let highest = max_of_lanes(highest, lanes, plane);
    let mut sum = 0.0f32;
    let mut to = UNIT_POS_X;
    while to < tokens {
        let is_padding = u32::cast_from(padding[first + to as usize]) != 0u32;
        let score = select(is_padding, lowest, f32::cast_from(scores[start + to as usize]));
        sum += (score - highest).exp();
        to += lanes;
    }
    let share = 1.0f32 / sum_of_lanes(sum, lanes, plane);
    if is_row {
        let mut to = UNIT_POS_X;
        while to < tokens {
            let at = start + to as usize;
            let is_padding = u32::cast_from(padding[first + to as usize]) != 0u32;
            let score = select(is_padding, lowest, f32::cast_from(scores[at]));
            let probability = (score - highest).exp() * share;
            scores[at] = E::cast_from(probability);
            if comptime!(drops) {
                let index = (from << 16u32) | to;
                let kept = factor(keys, site, batch, head, heads, index, p, scale);
                dropped[at] = E::cast_from(probability * kept);
            }
            to += lanes;
        }
    }
}

/// The gradient of the scores in the place of that of the dropped probabilities, and these once more.
#[cube(launch)]
fn softmax_gradient_kernel<E: Float, P: Int>(
    probabilities: &[E],
    gradient: &mut [E],
    padding: &[P],
    keys: &[u32],
    dropped: &mut [E],
    tokens: u32,
    heads: u32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
    #[define(P)] _flags: ElemType,
) {
    let rows = gradient.len() / tokens as usize;
    let is_row = row() < rows;
    let row = min(row(), rows - 1);
    let (start, pair) = (row * tokens as usize, row as u32 / tokens);
    let (batch, head, from) = (pair / heads, pair % heads, row as u32 % tokens);
    let mut sum = 0.0f32;
    let mut to = UNIT_POS_X;
    while to < tokens {
        let at = start + to as usize;
        let mut change = f32::cast_from(gradient[at]);
        if comptime!(drops) {
            change *= factor(keys, site, batch, head, heads, (from << 16u32) | to, p, scale);
        }
        sum += change * f32::cast_from(probabilities[at]);
        to += lanes;
    }
    let sum = sum_of_lanes(sum, lanes, plane);
    if is_row {
        let mut to = UNIT_POS_X;
        while to < tokens {
            let at = start + to as usize;
            let probability = f32::cast_from(probabilities[at]);
            let mut change = f32::cast_from(gradient[at]);
            if comptime!(drops) {
                let kept = factor(keys, site, batch, head, heads, (from << 16u32) | to, p, scale);
                change *= kept;
                dropped[at] = E::cast_from(probability * kept);
            }
            // The score of padding is a constant, whatever the query and the key: it has no gradient.
            let is_padding = u32::cast_from(padding[(batch * tokens + to) as usize]) != 0u32;
            gradient[at] = E::cast_from(select(is_padding, 0.0f32, probability * (change - sum)));
            to += lanes;
        }
    }
}

/// Sizes and dropout of one application.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// D, columns of a head.
    size: usize,
    site: Site,
}

impl Heads {
    fn width(self) -> usize {
        self.heads * self.size
    }

    fn sizes(self) -> [u32; 3] {
        [self.tokens as u32, self.heads as u32, self.size as u32]
    }

    /// Elements of queries, of keys and of values.
    fn elements(self) -> usize {
        self.batch * self.tokens * self.width()
    }

    /// 1 / √D.
    fn scale(self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// `[B·A, T, D]`.
    fn shape(self) -> [usize; 3] {
        [self.batch * self.heads, self.tokens, self.size]
    }
}

/// Self-attention on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait SelfAttentionOps: Backend {
    /// Shapes: `x` and output `[B·T, H]`, weights `[H, H]`, biases `[H]`, `padding` `[B, T]`.
    #[allow(clippy::too_many_arguments)]
    fn gpu_self_attention(
        x: FloatTensor<Self>,
        query: FloatTensor<Self>,
        query_bias: FloatTensor<Self>,
        key: FloatTensor<Self>,
        key_bias: FloatTensor<Self>,
        value: FloatTensor<Self>,
        value_bias: FloatTensor<Self>,
        padding: BoolTensor<Self>,
        keys: IntTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self>;
}

impl SelfAttentionOps for Cube {
    fn gpu_self_attention(
        x: CubeTensor,
        query: CubeTensor,
        query_bias: CubeTensor,
        key: CubeTensor,
        key_bias: CubeTensor,
        value: CubeTensor,
        value_bias: CubeTensor,
        padding: CubeTensor,
        keys: CubeTensor,
        heads: Heads,
    ) -> CubeTensor {
        let inputs = [x, query, query_bias, key, key_bias, value, value_bias];
        SelfAttention { padding, keys, heads }.forward(inputs).0
    }
}

/// [`SelfAttentionOps::gpu_self_attention`] within a graph.
#[derive(Debug, Clone)]
struct SelfAttention {
    padding: CubeTensor,
    keys: CubeTensor,
    heads: Heads,
}

impl SelfAttention {
    fn merged(&self, apart: &CubeTensor) -> CubeTensor {
        let rows = empty(apart, [self.heads.batch * self.heads.tokens, self.heads.width()], apart.dtype);
        let ((count, dim), [tokens, heads, size]) = (elementwise(self.heads.elements()), self.heads.sizes());
        let element = element(apart.dtype);
        merge_heads::launch(&apart.client, count, dim, buffer(apart), buffer(&rows), tokens, heads, size, element);
        rows
    }

    fn apart(&self, rows: &CubeTensor) -> CubeTensor {
        let apart = empty(rows, self.heads.shape(), rows.dtype);
        let ((count, dim), [tokens, heads, size]) = (elementwise(self.heads.elements()), self.heads.sizes());
        let element = element(rows.dtype);
        heads_apart::launch(&rows.client, count, dim, buffer(rows), buffer(&apart), tokens, heads, size, element);
        apart
    }

    /// The padding as a kernel argument, and the type of its numbers.
    fn padding(&self) -> (CubeTensor, ElemType) {
        let padding = contiguous(self.padding.clone());
        let element = match padding.dtype.size() {
            1 => ElemType::UInt(UIntKind::U8),
            _ => ElemType::UInt(UIntKind::U32),
        };
        (padding, element)
    }

    /// Turns scores into probabilities; the second is what dropout leaves of them.
    fn softmax(&self, scores: CubeTensor) -> (CubeTensor, CubeTensor) {
        let Heads { batch, tokens, heads, site, .. } = self.heads;
        let drops = site.p > 0;
        let dropped = if drops { empty(&scores, scores.meta.shape().clone(), scores.dtype) } else { scores.clone() };
        let no_output = if drops { dropped.clone() } else { empty(&scores, [1], scores.dtype) };
        let grid = Rows::of(tokens, &scores.client);
        let (count, dim) = grid.launch(batch * heads * tokens);
        let lowest = lowest_score(scores.dtype) as f32;
        let (padding, padding_element) = self.padding();
        softmax_kernel::launch(
            &scores.client,
            count,
            dim,
            buffer(&scores),
            buffer(&padding),
            buffer(&self.keys),
            buffer(&no_output),
            tokens as u32,
            heads as u32,
            lowest,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            drops,
            element(scores.dtype),
            padding_element,
        );
        (scores, dropped)
    }

    /// The gradient of the scores, and what dropout left of the probabilities.
    fn softmax_gradient(&self, probabilities: CubeTensor, gradient: CubeTensor) -> (CubeTensor, CubeTensor) {
        let Heads { batch, tokens, heads, site, .. } = self.heads;
        let drops = site.p > 0;
        let shape = probabilities.meta.shape().clone();
        let dropped =
            if drops { empty(&gradient, shape, gradient.dtype) } else { empty(&gradient, [1], gradient.dtype) };
        let (padding, padding_element) = self.padding();
        let grid = Rows::of(tokens, &gradient.client);
        let (count, dim) = grid.launch(batch * heads * tokens);
        softmax_gradient_kernel::launch(
            &gradient.client,
            count,
            dim,
            buffer(&probabilities),
            buffer(&gradient),
            buffer(&padding),
            buffer(&self.keys),
            buffer(&dropped),
            tokens as u32,
            heads as u32,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            drops,
            element(gradient.dtype),
            padding_element,
        );
        (gradient, if drops { dropped } else { probabilities })
    }

    /// The gradients of the three projections' outputs beside each other, `[B·T, 3·H]`.
    fn packed_gradient(&self, saved: [CubeTensor; 4], gradient: &CubeTensor) -> CubeTensor {
        let [query, key, value, probabilities] = saved;
        let context = self.apart(gradient);
        let dropped = multiply(&context, &transposed(&value), context.dtype);
        let (dscores, dropped) = self.softmax_gradient(probabilities, dropped);
        let dquery = multiply(&dscores, &key, dscores.dtype);
        let dkey = multiply(&transposed(&dscores), &query, dscores.dtype);
        let dvalue = multiply(&transposed(&dropped), &context, dropped.dtype);
        let packed = empty(gradient, [self.heads.batch * self.heads.tokens, 3 * self.heads.width()], gradient.dtype);
        let ((count, dim), [tokens, heads, size]) = (elementwise(self.heads.elements()), self.heads.sizes());
        merge_three::launch(
            &packed.client,
            count,
            dim,
            buffer(&dquery),
            buffer(&dkey),
            buffer(&dvalue),
            buffer(&packed),
            tokens,
            heads,
            size,
            self.heads.scale(),
            element(packed.dtype),
        );
        packed
    }
}

impl Differentiable<Cube, 7> for SelfAttention {
    /// `x`, the packed weights, then queries, keys, values and probabilities.
    type Saved = ([CubeTensor; 2], [CubeTensor; 4]);

    fn forward(&self, inputs: [CubeTensor; 7]) -> (CubeTensor, Self::Saved) {
        let [x, query, query_bias, key, key_bias, value, value_bias] = inputs.map(contiguous);
        let (width, client, dtype) = (self.heads.width(), &x.client, element(x.dtype));
        let weights = empty(&x, [width, 3 * width], x.dtype);
        let (count, dim) = elementwise(3 * width * width);
        let matrices = (buffer(&query), buffer(&key), buffer(&value));
        pack::launch(client, count, dim, matrices.0, matrices.1, matrices.2, buffer(&weights), width as u32, dtype);
        let packed = multiply(&x, &weights, x.dtype);
        let [query, key, value] = [(); 3].map(|()| empty(&x, self.heads.shape(), x.dtype));
        let ((count, dim), [tokens, heads, size]) = (elementwise(self.heads.elements()), self.heads.sizes());
        split_heads::launch(
            client,
            count,
            dim,
            buffer(&packed),
            buffer(&query_bias),
            buffer(&key_bias),
            buffer(&value_bias),
            buffer(&query),
            buffer(&key),
            buffer(&value),
            tokens,
            heads,
            size,
            self.heads.scale(),
            dtype,
        );
        let scores = multiply(&query, &transposed(&key), x.dtype);
        let (probabilities, dropped) = self.softmax(scores);
        let context = self.merged(&multiply(&dropped, &value, x.dtype));
        (context, ([x, weights], [query, key, value, probabilities]))
    }

    fn backward(
        self,
        ([x, weights], saved): Self::Saved,
        gradient: CubeTensor,
        wanted: [bool; 7],
    ) -> [Option<CubeTensor>; 7] {
        let width = self.heads.width();
        let packed = self.packed_gradient(saved, &contiguous(gradient));
        let rows = packed.meta.shape()[0];
        let dx = wanted[0].then(|| multiply(&packed, &transposed(&weights), packed.dtype));
        let [mut matrices, mut biases] = [(); 2].map(|()| [const { None }; 3]);
        if [1, 3, 5].iter().any(|&input| wanted[input]) {
            let all = Weights { transposed: false }.gradient(&x, &packed);
            let [query, key, value] = [(); 3].map(|()| empty(&x, [width, width], DType::F32));
            let ((count, dim), outputs) = (elementwise(width * width), (buffer(&query), buffer(&key), buffer(&value)));
            let dtype = element(DType::F32);
            unpack::launch(&x.client, count, dim, buffer(&all), outputs.0, outputs.1, outputs.2, width as u32, dtype);
            matrices = [query, key, value].map(Some);
        }
        if [2, 4, 6].iter().any(|&input| wanted[input]) {
            let all = reshaped(sum_rows(&packed, rows, 3 * width), [1, 3 * width]);
            let [query, key, value] = [(); 3].map(|()| empty(&x, [width], DType::F32));
            let ((count, dim), outputs) = (elementwise(width), (buffer(&query), buffer(&key), buffer(&value)));
            let dtype = element(DType::F32);
            unpack::launch(&x.client, count, dim, buffer(&all), outputs.0, outputs.1, outputs.2, width as u32, dtype);
            biases = [query, key, value].map(Some);
        }
        let ([dq, dk, dv], [dq_bias, dk_bias, dv_bias]) = (matrices, biases);
        [dx, dq, dq_bias, dk, dk_bias, dv, dv_bias]
    }
}

impl<C: CheckpointStrategy> SelfAttentionOps for Autodiff<Cube, C> {
    fn gpu_self_attention(
        x: FloatTensor<Self>,
        query: FloatTensor<Self>,
        query_bias: FloatTensor<Self>,
        key: FloatTensor<Self>,
        key_bias: FloatTensor<Self>,
        value: FloatTensor<Self>,
        value_bias: FloatTensor<Self>,
        padding: BoolTensor<Self>,
        keys: IntTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let inputs = [x, query, query_bias, key, key_bias, value, value_bias];
        apply::<_, Cube, C, 7>(SelfAttention { padding, keys, heads }, inputs)
    }
}

/// See [`crate::ops::self_attention`].
pub fn self_attention(
    hidden: Tensor<3>,
    [query, key, value]: [(Tensor<2>, Tensor<1>); 3],
    padding: Tensor<2, Bool>,
    heads: usize,
    dropout: Option<f64>,
) -> Tensor<3> {
    let [batch, tokens, width] = hidden.dims();
    let (site, keys) = Site::next(dropout, &hidden.device());
    let settings = Heads { batch, tokens, heads, size: width / heads, site };
    let projection = |(weight, bias): (Tensor<2>, Tensor<1>)| (weight.into_dispatch(), bias.into_dispatch());
    let [(query, query_bias), (key, key_bias), (value, value_bias)] = [query, key, value].map(projection);
    let x = hidden.reshape([batch * tokens, width]).into_dispatch();
    let (padding, keys) = (padding.into_dispatch(), keys.into_dispatch());
    let context =
        Dispatch::gpu_self_attention(x, query, query_bias, key, key_bias, value, value_bias, padding, keys, settings);
    Tensor::<2>::from_dispatch(context).reshape([batch, tokens, width])
}
