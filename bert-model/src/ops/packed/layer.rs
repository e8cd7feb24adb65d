//! An encoder layer for inference (Vaswani et al. 2017, §3.1), on packed weights.

use burn::prelude::*;
use burn::tensor::DType;
use pulp::Arch;
use rayon::prelude::*;

use super::{End, Left, PackedLinear, Precision};
use crate::config::Activation;
use crate::ops::attention::{Kernel, contexts, lowest_score};
use crate::ops::dropout::Mask;
use crate::ops::layer_norm::normalize_in_place;
use crate::ops::math::{erf, exp};

/// Tokens that pass through all layers together: enough that the weights, which come from memory, are used often, and
/// few enough that their activations stay in a core's cache. A longer sequence is not split.
const TOKENS: usize = 512;

/// Rows whose elementwise work is one task.
const TASK_ROWS: usize = 16;

/// The weights of an encoder layer, packed for inference.
#[derive(Debug)]
pub struct PackedLayer {
    /// The projections of queries, keys and values, H to 3·H.
    projections: PackedLinear,
    /// The output projection of the attention, H to H.
    attention_output: PackedLinear,
    attention_norm: Norm,
    /// The inner layer of the feed-forward network, H to I.
    intermediate: PackedLinear,
    activation: Activation,
    /// The outer layer of the feed-forward network, I to H.
    output: PackedLinear,
    output_norm: Norm,
    heads: usize,
}

/// The parameters of a layer normalization.
#[derive(Debug)]
pub struct Norm {
    /// γ, `[H]`.
    pub gamma: Vec<f32>,
    /// β, `[H]`.
    pub beta: Vec<f32>,
    /// ε.
    pub epsilon: f32,
}

/// The weights `[I, O]` and the bias `[O]` of a dense layer.
pub type Dense = (Vec<f32>, Vec<f32>);

/// What passes between the operations of a layer; its memory is used again.
#[derive(Default)]
struct Scratch {
    left: Left,
    projected: Vec<f32>,
    wide: Vec<f32>,
    narrow: Vec<f32>,
}

impl PackedLayer {
    /// Packs the weights of a layer: of queries, keys, values, the attention's output, and both layers of the
    /// feed-forward network, which are dropped as soon as they are packed.
    pub fn new(
        precision: Precision,
        mut dense: impl FnMut(usize) -> Dense,
        [attention_norm, output_norm]: [Norm; 2],
        activation: Activation,
        heads: usize,
    ) -> Self {
        let hidden = attention_norm.gamma.len();
        let projections = {
            let layers = [dense(0), dense(1), dense(2)];
            let views = layers.each_ref().map(|(weights, bias)| (&weights[..], &bias[..]));
            PackedLinear::new(precision, hidden, &views)
        };
        let mut next = |number| {
            let (weights, bias) = dense(number);
            PackedLinear::new(precision, weights.len() / bias.len().max(1), &[(&weights, &bias)])
        };
        let [attention_output, intermediate, output] = [next(3), next(4), next(5)];
        Self { projections, attention_output, attention_norm, intermediate, activation, output, output_norm, heads }
    }

    /// The weights and biases of the six dense layers, in the order of [`PackedLayer::new`], as they were rounded.
    pub fn dense(&self) -> [Dense; 6] {
        let (all, hidden) = (self.projections.weights(), self.attention_norm.gamma.len());
        let columns = |number: usize| {
            let rows = all.chunks_exact(3 * hidden).flat_map(|row| &row[number * hidden..][..hidden]);
            (rows.copied().collect(), self.projections.bias()[number * hidden..][..hidden].to_vec())
        };
        let whole = |layer: &PackedLinear| (layer.weights(), layer.bias().to_vec());
        let [output, inner, outer] = [&self.attention_output, &self.intermediate, &self.output].map(whole);
        [columns(0), columns(1), columns(2), output, inner, outer]
    }

    /// The number type of the products.
    pub fn precision(&self) -> Precision {
        self.projections.precision()
    }

    /// The queries and keys of hidden states, `[B, T, H]` each.
    pub fn queries_and_keys(&self, hidden: Tensor<3>) -> [Tensor<3>; 2] {
        let ([batch, tokens, width], device) = (hidden.dims(), hidden.device());
        let mut projected = vec![0.0; batch * tokens * 3 * width];
        project(&self.projections, End::Bias, &values(hidden), &mut Left::default(), &mut projected);
        let projected = Tensor::from_data(TensorData::new(projected, [batch, tokens, 3 * width]), &device);
        [0, 1].map(|number| projected.clone().slice_dim(2, number * width..(number + 1) * width))
    }

    /// Replaces the hidden states of sequences `[B, T, H]` by those after this layer. `mask` `[B, T]` is added to the
    /// scores.
    fn forward(&self, hidden: &mut [f32], mask: &[f32], tokens: usize, scratch: &mut Scratch) {
        let Scratch { left, projected, wide, narrow } = scratch;
        let width = self.attention_norm.gamma.len();
        project(&self.projections, End::Bias, hidden, left, projected);
        let inputs = [&projected[..], &projected[width..], &projected[2 * width..], mask];
        let batch = mask.len() / tokens;
        let kernel = Kernel::new(&Shape::from([batch, tokens, width]), self.heads, Mask::NONE).with_row(3 * width);
        let context = contexts(&kernel, batch, self.heads, inputs);
        project(&self.attention_output, End::Bias, &context, left, narrow);
        self.attention_norm.apply(hidden, narrow);
        match self.activation {
            Activation::Gelu => project(&self.intermediate, End::Gelu, hidden, left, wide),
            activation => {
                project(&self.intermediate, End::Bias, hidden, left, wide);
                activate(activation, wide);
            }
        }
        project(&self.output, End::Bias, wide, left, narrow);
        self.output_norm.apply(hidden, narrow);
    }
}

/// The hidden states after all `layers`.
///
/// # Shapes
/// - `hidden` and output: `[B, T, H]`
/// - `padding`: `[B, T]`, true for padding tokens
pub fn encode(layers: &[&PackedLayer], hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
    let ([batch, tokens, width], device) = (hidden.dims(), hidden.device());
    let lowest = lowest_score(DType::F32) as f32;
    let is_padding = padding.into_data();
    let mask: Vec<f32> = is_padding.iter::<bool>().map(|is_padding| if is_padding { lowest } else { 0.0 }).collect();
    let (mut hidden, mut scratch) = (values(hidden), Scratch::default());
    let sequences = (TOKENS * rayon::current_num_threads() / tokens.max(1)).max(1);
    let size = (sequences * tokens).max(1);
    for (hidden, mask) in hidden.chunks_mut(size * width.max(1)).zip(mask.chunks(size)) {
        for layer in layers {
            layer.forward(hidden, mask, tokens, &mut scratch);
        }
    }
    Tensor::from_data(TensorData::new(hidden, [batch, tokens, width]), &device)
}

/// The values of a tensor.
fn values(x: Tensor<3>) -> Vec<f32> {
    let data = x.into_data();
    data.into_vec().unwrap_or_default()
}

/// A dense layer of rows `x`.
fn project(layer: &PackedLinear, end: End, x: &[f32], left: &mut Left, output: &mut Vec<f32>) {
    left.set(layer.precision(), x, layer.inputs());
    output.resize(x.len() / layer.inputs().max(1) * layer.outputs(), 0.0);
    layer.forward(left, end, output);
}

impl Norm {
    /// `hidden = layer_norm(hidden + x)`, row by row.
    fn apply(&self, hidden: &mut [f32], x: &[f32]) {
        let width = self.gamma.len().max(1);
        let rows = |(hidden, x): (&mut [f32], &[f32])| {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (row, x) in hidden.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        for (sum, x) in row.iter_mut().zip(x) {
                            *sum += x;
                        }
                        normalize_in_place(row, &self.gamma, &self.beta, self.epsilon);
                    }
                },
            );
        };
        let task = TASK_ROWS * width;
        if rayon::current_num_threads() > 1 && hidden.len() > task {
            hidden.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(rows);
        } else {
            rows((hidden, x));
        }
    }
}

/// Applies a nonlinearity elementwise; the exact GELU is the end of a product.
fn activate(activation: Activation, values: &mut [f32]) {
    let apply = |values: &mut [f32]| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for x in values {
                    *x = match activation {
                        Activation::Gelu => *x * 0.5 * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2)),
                        // √(2/π) = 0.7978…
                        Activation::GeluNew => *x * sigmoid(2.0 * 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x)),
                        Activation::Relu => x.max(0.0),
                        Activation::Silu => *x * sigmoid(*x),
                        Activation::Tanh => x.tanh(),
                    };
                }
            },
        );
    };
    values.par_chunks_mut(1 << 14).for_each(apply);
}

/// `1 / (1 + e⁻ˣ)`. `(1 + tanh x) / 2` is that of 2·x.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}
