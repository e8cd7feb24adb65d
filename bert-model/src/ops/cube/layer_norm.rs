//! Layer normalization on a GPU, and the backward pass that all normalizations share.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dropout::{Site, factor};
use super::launch::{RowGrid, buffer, contiguous, element, empty};
use super::product::slice;
use super::rows::{chunks, column_cubes, row, sum_of_column, sum_of_lanes, sum_rows};
use crate::ops::autodiff::{Differentiable, apply};
use crate::ops::by_rows;

/// Normalizes row `row` of `sum`, whose elements add up to `total` over all lanes, and writes its mean and
/// 1 / √(variance + ε) to `moments` `[R, 2]`.
#[cube]
pub fn normalize<E: Float>(
    sum: &[E],
    gamma: &[E],
    beta: &[E],
    output: &mut [E],
    moments: &mut [f32],
    row: usize,
    width: u32,
    epsilon: f32,
    total: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
) {
    let (start, count) = (row * width as usize, width as f32);
    let mean = sum_of_lanes(total, lanes, plane) / count;
    let mut squares = 0.0f32;
    let mut column = UNIT_POS_X;
    while column < width {
        let centered = f32::cast_from(sum[start + column as usize]) - mean;
        squares += centered * centered;
        column += lanes;
    }
    let variance = sum_of_lanes(squares, lanes, plane) / count;
    let factor = 1.0f32 / (variance + epsilon).sqrt();
    let mut column = UNIT_POS_X;
    while column < width {
        let normalized = (f32::cast_from(sum[start + column as usize]) - mean) * factor;
        let (gamma, beta) = (f32::cast_from(gamma[column as usize]), f32::cast_from(beta[column as usize]));
        output[start + column as usize] = E::cast_from(normalized * gamma + beta);
        column += lanes;
    }
    if UNIT_POS_X == 0 {
        moments[2 * row] = mean;
        moments[2 * row + 1] = factor;
    }
}

/// Normalizes every row.
#[cube(launch)]
fn norm_kernel<E: Float>(
    x: &[E],
    gamma: &[E],
    beta: &[E],
    output: &mut [E],
    moments: &mut [f32],
    width: u32,
    epsilon: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[define(E)] _element: ElemType,
) {
    let row = min(row(), moments.len() / 2 - 1);
    let mut total = 0.0f32;
    let mut column = UNIT_POS_X;
    while column < width {
        total += f32::cast_from(x[row * width as usize + column as usize]);
        column += lanes;
    }
    normalize::<E>(x, gamma, beta, output, moments, row, width, epsilon, total, lanes, plane);
}

/// The gradient of every row of the sum from that of its normalization, and the gradient of what dropout was applied to.
#[cube(launch)]
fn norm_gradient_kernel<E: Float>(
    sum: &[E],
    moments: &[f32],
    gamma: &[E],
    gradient: &[E],
    keys: &[u32],
    dsum: &mut [E],
    dx: &mut [E],
    width: u32,
    tokens: u32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
) {
    let row = min(row(), moments.len() / 2 - 1);
    let start = row * width as usize;
    let (mean, factor_of_row) = (moments[2 * row], moments[2 * row + 1]);
    let mut gradients = 0.0f32;
    let mut products = 0.0f32;
    let mut column = UNIT_POS_X;
    while column < width {
        let at = start + column as usize;
        let scaled = f32::cast_from(gradient[at]) * f32::cast_from(gamma[column as usize]);
        gradients += scaled;
        products += scaled * (f32::cast_from(sum[at]) - mean) * factor_of_row;
        column += lanes;
    }
    let gradients = sum_of_lanes(gradients, lanes, plane) / width as f32;
    let products = sum_of_lanes(products, lanes, plane) / width as f32;
    let first = (row as u32 % tokens) * width;
    let mut column = UNIT_POS_X;
    while column < width {
        let at = start + column as usize;
        let scaled = f32::cast_from(gradient[at]) * f32::cast_from(gamma[column as usize]);
        let normalized = (f32::cast_from(sum[at]) - mean) * factor_of_row;
        let change = (scaled - gradients - normalized * products) * factor_of_row;
        dsum[at] = E::cast_from(change);
        if comptime!(drops) {
            let kept = factor(keys, site, row as u32 / tokens, 0u32, 1u32, first + column, p, scale);
            dx[at] = E::cast_from(change * kept);
        }
        column += lanes;
    }
}

/// The gradients of γ, β and the bias: sums down columns of `gradient · normalized`, of `gradient`, and of `dx`, one chunk
/// of the rows per row of cubes.
#[cube(launch)]
fn parameter_gradients_kernel<E: Float>(
    sum: &[E],
    moments: &[f32],
    gradient: &[E],
    dx: &[E],
    sums: &mut [f32],
    width: u32,
    padded: u32,
    #[define(E)] _element: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let rows = moments.len() as u32 / 2u32;
    let each = (rows + CUBE_COUNT_Y - 1) / CUBE_COUNT_Y;
    let end = min(rows, (CUBE_POS_Y + 1) * each);
    let mut for_gamma = 0.0f32;
    let mut for_beta = 0.0f32;
    let mut for_bias = 0.0f32;
    if column < width {
        let mut row = CUBE_POS_Y * each + UNIT_POS_Y;
        while row < end {
            let at = (row * width + column) as usize;
            let (mean, factor) = (moments[2 * row as usize], moments[2 * row as usize + 1]);
            let change = f32::cast_from(gradient[at]);
            for_gamma += change * (f32::cast_from(sum[at]) - mean) * factor;
            for_beta += change;
            for_bias += f32::cast_from(dx[at]);
            row += CUBE_DIM_Y;
        }
    }
    let for_gamma = sum_of_column(for_gamma);
    let for_beta = sum_of_column(for_beta);
    let for_bias = sum_of_column(for_bias);
    if UNIT_POS_Y == 0 {
        if column < width {
            let start = (CUBE_POS_Y * 3u32 * padded + column) as usize;
            sums[start] = for_gamma;
            sums[start + padded as usize] = for_beta;
            sums[start + 2 * padded as usize] = for_bias;
        }
    }
}

/// The gradients of a normalized sum and its parameters.
pub struct NormGradients {
    /// The gradient of the sum, `[R, H]`.
    pub dsum: CubeTensor,
    /// The gradient of what dropout was applied to, `[R, H]`; `dsum` without dropout.
    pub dx: CubeTensor,
    /// The gradients of γ, β and the bias, each `[H]`.
    pub parameters: [CubeTensor; 3],
}

/// The backward pass of layer normalization, and of dropout before it. `dropout` are the table of keys, the site and the
/// rows per sequence.
pub fn norm_gradients(
    [sum, moments, gamma]: [&CubeTensor; 3],
    gradient: &CubeTensor,
    dropout: Option<(&CubeTensor, Site, usize)>,
) -> NormGradients {
    let [rows, width] = [sum.meta.shape()[0], sum.meta.shape()[1]];
    let (client, dtype, grid) = (&sum.client, element(sum.dtype), RowGrid::new(width, &sum.client));
    let dsum = empty(sum, [rows, width], sum.dtype);
    let drops = dropout.is_some();
    // Without dropout the kernel does not use `dx` and `keys`.
    let dx = if drops { empty(sum, [rows, width], sum.dtype) } else { empty(sum, [1], sum.dtype) };
    let no_keys;
    let (keys, site, tokens) = match dropout {
        Some(dropout) => dropout,
        None => {
            no_keys = empty(sum, [1], DType::I32);
            (&no_keys, Site { number: 0, p: 0, scale: 1.0 }, 1)
        }
    };
    let (count, dim) = grid.launch(rows);
    norm_gradient_kernel::launch(
        client,
        count,
        dim,
        buffer(sum),
        buffer(moments),
        buffer(gamma),
        buffer(gradient),
        buffer(keys),
        buffer(&dsum),
        buffer(&dx),
        width as u32,
        tokens as u32,
        site.number,
        site.p,
        site.scale,
        grid.lanes,
        grid.plane,
        drops,
        dtype,
    );
    let dx = if drops { dx } else { dsum.clone() };
    let parameters = parameter_gradients([sum, moments], gradient, &dx);
    NormGradients { dsum, dx, parameters }
}

/// The gradients of γ, β and the bias, each `[H]`.
fn parameter_gradients([sum, moments]: [&CubeTensor; 2], gradient: &CubeTensor, dx: &CubeTensor) -> [CubeTensor; 3] {
    let [rows, width] = [sum.meta.shape()[0], sum.meta.shape()[1]];
    // Padded, so that each parameter's gradient begins at an offset at which every device can bind a buffer.
    let padded = width.next_multiple_of(64);
    let chunks = chunks(rows, width);
    let partial = empty(sum, [chunks, 3 * padded], DType::F32);
    let (count, dim) = column_cubes(width, chunks);
    parameter_gradients_kernel::launch(
        &sum.client,
        count,
        dim,
        buffer(sum),
        buffer(moments),
        buffer(gradient),
        buffer(dx),
        buffer(&partial),
        width as u32,
        padded as u32,
        element(sum.dtype),
    );
    let sums = sum_rows(&partial, chunks, 3 * padded);
    [0, 1, 2].map(|number| slice(&sums, number * padded, width))
}

/// Layer normalization on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait LayerNormOps: Backend {
    /// Shapes: `x` and output `[R, H]`, `gamma` and `beta` `[H]`.
    fn gpu_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

impl LayerNormOps for Cube {
    fn gpu_layer_norm(x: CubeTensor, gamma: CubeTensor, beta: CubeTensor, epsilon: f32) -> CubeTensor {
        GpuLayerNorm { epsilon }.forward([x, gamma, beta]).0
    }
}

/// [`LayerNormOps::gpu_layer_norm`] for autodiff.
#[derive(Debug, Clone)]
struct GpuLayerNorm {
    epsilon: f32,
}

impl Differentiable<Cube, 3> for GpuLayerNorm {
    /// `x`, the moments of its rows, and γ.
    type Saved = [CubeTensor; 3];

    fn forward(&self, inputs: [CubeTensor; 3]) -> (CubeTensor, Self::Saved) {
        let [x, gamma, beta] = inputs.map(contiguous);
        let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
        let output = empty(&x, [rows, width], x.dtype);
        let moments = empty(&x, [rows, 2], DType::F32);
        let grid = RowGrid::new(width, &x.client);
        let (count, dim) = grid.launch(rows);
        norm_kernel::launch(
            &x.client,
            count,
            dim,
            buffer(&x),
            buffer(&gamma),
            buffer(&beta),
            buffer(&output),
            buffer(&moments),
            width as u32,
            self.epsilon,
            grid.lanes,
            grid.plane,
            element(x.dtype),
        );
        (output, [x, moments, gamma])
    }

    fn backward(
        self,
        [x, moments, gamma]: Self::Saved,
        gradient: CubeTensor,
        [for_x, for_gamma, for_beta]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let gradients = norm_gradients([&x, &moments, &gamma], &contiguous(gradient), None);
        let NormGradients { dsum, parameters: [dgamma, dbeta, _], .. } = gradients;
        [for_x.then_some(dsum), for_gamma.then_some(dgamma), for_beta.then_some(dbeta)]
    }
}

impl<C: CheckpointStrategy> LayerNormOps for Autodiff<Cube, C> {
    fn gpu_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        apply::<_, Cube, C, 3>(GpuLayerNorm { epsilon }, [x, gamma, beta])
    }
}

/// See [`crate::ops::layer_norm()`].
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::gpu_layer_norm(x.into_dispatch(), gamma, beta, epsilon as f32)))
}
