//! Fused attention as an operation of flex, with its gradient.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use rayon::prelude::*;

use super::kernel::Kernel;
use crate::ops::autodiff::{Differentiable, apply};
use crate::ops::dropout::Mask;
use crate::ops::flex::{contiguous, elements, tensor_from};
use crate::ops::gemm::View;

/// Fused attention.
#[backend_extension(Flex, Autodiff)]
pub trait AttentionOps: Backend {
    /// Shapes: `query`, `key`, `value` and output `[B, T, H]`; `mask` `[B, T]`, which is added to the scores.
    fn fast_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> FloatTensor<Self>;
}

impl AttentionOps for Flex {
    fn fast_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        mask: FlexTensor,
        heads: usize,
        dropout: Mask,
    ) -> FlexTensor {
        FastAttention { mask, heads, dropout }.forward([query, key, value]).0
    }
}

/// [`AttentionOps::fast_attention`] for autodiff.
#[derive(Debug, Clone)]
struct FastAttention {
    mask: FlexTensor,
    heads: usize,
    dropout: Mask,
}

impl Differentiable<Flex, 3> for FastAttention {
    /// Query, key and value.
    type Saved = [FlexTensor; 3];

    fn forward(&self, saved: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let [query, key, value] = saved.clone().map(contiguous);
        let mask = contiguous(self.mask.clone());
        let kernel = Kernel::new(&query.shape(), self.heads, self.dropout);
        let inputs = [elements(&query), elements(&key), elements(&value), elements(&mask)];
        (tensor_from(contexts(&kernel, query.shape()[0], self.heads, inputs), query.shape()), saved)
    }

    fn backward(self, saved: Self::Saved, gradient: FlexTensor, _wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let ([query, key, value], [mask, gradient]) = (saved.map(contiguous), [self.mask, gradient].map(contiguous));
        let kernel = Kernel::new(&query.shape(), self.heads, self.dropout);
        let inputs = [&query, &key, &value, &mask, &gradient].map(elements);
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; inputs[0].len()]);
        let sequence = (kernel.tokens * kernel.width).max(1);
        let sequences = dq.par_chunks_mut(sequence).zip(dk.par_chunks_mut(sequence)).zip(dv.par_chunks_mut(sequence));
        sequences.enumerate().for_each_init(Vec::new, |scratch, (batch, ((dq, dk), dv))| {
            for head in 0..self.heads {
                kernel.backward((batch, head), inputs, [&mut *dq, &mut *dk, &mut *dv], scratch);
            }
        });
        [dq, dk, dv].map(|values| Some(tensor_from(values, query.shape())))
    }
}

/// The context vectors `[B, T, H]` from queries, keys, values and the mask.
pub(in crate::ops) fn contexts(kernel: &Kernel, batches: usize, heads: usize, inputs: [&[f32]; 4]) -> Vec<f32> {
    match batches < rayon::current_num_threads() {
        true => by_heads(kernel, batches, heads, inputs),
        false => by_sequences(kernel, batches, heads, inputs),
    }
}

/// The output `[B, T, H]`, one sequence per task.
fn by_sequences(kernel: &Kernel, batches: usize, heads: usize, inputs: [&[f32]; 4]) -> Vec<f32> {
    let mut output = vec![0.0; batches * kernel.tokens * kernel.width];
    let sequence = (kernel.tokens * kernel.width).max(1);
    output.par_chunks_mut(sequence).enumerate().for_each_init(Vec::new, |scratch, (batch, output)| {
        for head in 0..heads {
            kernel.forward((batch, head), inputs, (&mut *output, kernel.head(head)), scratch);
        }
    });
    output
}

/// The output `[B, T, H]`, one head per task, for batches with fewer sequences than threads. The heads are concatenated
/// afterwards.
fn by_heads(kernel: &Kernel, batches: usize, heads: usize, inputs: [&[f32]; 4]) -> Vec<f32> {
    let (sequence, size) = (kernel.tokens * kernel.width, kernel.head_size);
    let contexts = (0..batches * heads).into_par_iter().map_init(Vec::new, |scratch, pair| {
        let mut context = vec![0.0; kernel.tokens * size];
        let place = (pair / heads, pair % heads);
        kernel.forward(place, inputs, (&mut context, View::row_major(size)), scratch);
        context
    });
    let mut output = vec![0.0; batches * sequence];
    for (pair, context) in contexts.collect::<Vec<_>>().iter().enumerate() {
        let output = &mut output[pair / heads * sequence..][..sequence];
        for (token, context) in output.chunks_exact_mut(kernel.width).zip(context.chunks_exact(size)) {
            token[pair % heads * size..][..size].copy_from_slice(context);
        }
    }
    output
}

impl<C: CheckpointStrategy> AttentionOps for Autodiff<Flex, C> {
    fn fast_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
        dropout: Mask,
    ) -> FloatTensor<Self> {
        apply::<_, Flex, C, 3>(FastAttention { mask: mask.into_primitive(), heads, dropout }, [query, key, value])
    }
}
