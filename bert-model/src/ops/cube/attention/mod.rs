//! Self-attention on a GPU, from the hidden states to the context vectors. One product computes queries, keys and
//! values, and everything between the products (bias, heads, scale, padding, softmax, dropout) is one kernel each way.
//!
//! The probabilities are kept for the backward pass; dropout is recomputed.

mod layout;
mod softmax;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, Dispatch, backend_extension};
use burn::tensor::{Bool, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::dropout::Site;
use super::launch::contiguous;
use super::product::{Weights, multiply, transposed};
use super::rows::{reshaped, sum_rows};
use crate::ops::autodiff::{Differentiable, apply};
use softmax::Masking;

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// D, the columns of a head.
    size: usize,
}

impl AttentionShape {
    /// H = A·D.
    fn width(self) -> usize {
        self.heads * self.size
    }

    /// B·T.
    fn rows(self) -> usize {
        self.batch * self.tokens
    }

    /// T, A and D as kernel arguments.
    fn sizes(self) -> [u32; 3] {
        [self.tokens as u32, self.heads as u32, self.size as u32]
    }

    /// The elements of the queries.
    fn elements(self) -> usize {
        self.rows() * self.width()
    }

    /// The scale of the scores, 1 / √D.
    fn scale(self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// `[B·A, T, D]`.
    fn heads_shape(self) -> [usize; 3] {
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
        shape: AttentionShape,
        site: Site,
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
        shape: AttentionShape,
        site: Site,
    ) -> CubeTensor {
        let inputs = [x, query, query_bias, key, key_bias, value, value_bias];
        SelfAttention { masking: Masking { padding, keys, site }, shape }.forward(inputs).0
    }
}

/// [`SelfAttentionOps::gpu_self_attention`] for autodiff.
#[derive(Debug, Clone)]
struct SelfAttention {
    masking: Masking,
    shape: AttentionShape,
}

impl SelfAttention {
    /// The packed gradient `[B·T, 3·H]` of the three projections' outputs.
    fn packed_gradient(&self, saved: [CubeTensor; 4], gradient: &CubeTensor) -> CubeTensor {
        let [query, key, value, probabilities] = saved;
        let context = layout::split_heads(gradient, self.shape);
        let dropped = multiply(&context, &transposed(&value), context.dtype);
        let (dscores, dropped) = self.masking.softmax_gradient(probabilities, dropped, self.shape);
        let dquery = multiply(&dscores, &key, dscores.dtype);
        let dkey = multiply(&transposed(&dscores), &query, dscores.dtype);
        let dvalue = multiply(&transposed(&dropped), &context, dropped.dtype);
        layout::merge_qkv([&dquery, &dkey, &dvalue], self.shape)
    }
}

impl Differentiable<Cube, 7> for SelfAttention {
    /// `x` and the packed weights; then queries, keys, values and probabilities.
    type Saved = ([CubeTensor; 2], [CubeTensor; 4]);

    fn forward(&self, inputs: [CubeTensor; 7]) -> (CubeTensor, Self::Saved) {
        let [x, query, query_bias, key, key_bias, value, value_bias] = inputs.map(contiguous);
        let weights = layout::pack([&query, &key, &value]);
        let packed = multiply(&x, &weights, x.dtype);
        let [query, key, value] = layout::split_qkv(&packed, [&query_bias, &key_bias, &value_bias], self.shape);
        let scores = multiply(&query, &transposed(&key), x.dtype);
        let (probabilities, dropped) = self.masking.softmax(scores, self.shape);
        let context = layout::merge_heads(&multiply(&dropped, &value, x.dtype), self.shape);
        (context, ([x, weights], [query, key, value, probabilities]))
    }

    fn backward(
        self,
        ([x, weights], saved): Self::Saved,
        gradient: CubeTensor,
        wanted: [bool; 7],
    ) -> [Option<CubeTensor>; 7] {
        let width = self.shape.width();
        let packed = self.packed_gradient(saved, &contiguous(gradient));
        let dx = wanted[0].then(|| multiply(&packed, &transposed(&weights), packed.dtype));
        let [mut matrices, mut biases] = [(); 2].map(|()| [const { None }; 3]);
        if [1, 3, 5].iter().any(|&input| wanted[input]) {
            let gradient = Weights { transposed: false }.gradient(&x, &packed);
            matrices = layout::unpack(&gradient, [width, width]).map(Some);
        }
        if [2, 4, 6].iter().any(|&input| wanted[input]) {
            let gradient = reshaped(sum_rows(&packed, self.shape.rows(), 3 * width), [1, 3 * width]);
            biases = layout::unpack(&gradient, [width]).map(Some);
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
        shape: AttentionShape,
        site: Site,
    ) -> FloatTensor<Self> {
        let inputs = [x, query, query_bias, key, key_bias, value, value_bias];
        let operation = SelfAttention { masking: Masking { padding, keys, site }, shape };
        apply::<_, Cube, C, 7>(operation, inputs)
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
    let shape = AttentionShape { batch, tokens, heads, size: width / heads };
    let projection = |(weight, bias): (Tensor<2>, Tensor<1>)| (weight.into_dispatch(), bias.into_dispatch());
    let [(query, query_bias), (key, key_bias), (value, value_bias)] = [query, key, value].map(projection);
    let x = hidden.reshape([batch * tokens, width]).into_dispatch();
    let (padding, keys) = (padding.into_dispatch(), keys.into_dispatch());
    let context = Dispatch::gpu_self_attention(
        x, query, query_bias, key, key_bias, value, value_bias, padding, keys, shape, site,
    );
    Tensor::<2>::from_dispatch(context).reshape([batch, tokens, width])
}
