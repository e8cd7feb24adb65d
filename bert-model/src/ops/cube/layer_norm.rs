//! Layer normalization on a GPU, and the backward pass that all normalizations share.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dropout::{Site, factors};
use super::launch::{RowGrid, buffer, contiguous, element, empty, vector_size};
use super::product::slice;
use super::rows::{chunks, column_cubes, row, sum_of_lanes, sum_of_vector, sum_rows, sums_of_columns};
use crate::ops::autodiff::{Differentiable, apply};
use crate::ops::by_rows;

/// Normalizes row `row`, which its units hold in `values` (undefined past its end) and whose elements add up to `total`
/// over all lanes; writes its mean and 1 / √(variance + ε) to `moments` `[R, 2]`. `width` and the columns are counted
/// in vectors.
#[cube]
pub fn normalize<E: Float, N: Size>(
    values: &Array<Vector<f32, N>>,
    gamma: &[Vector<E, N>],
    beta: &[Vector<E, N>],
    output: &mut [Vector<E, N>],
    moments: &mut [f32],
    row: usize,
    width: u32,
    epsilon: f32,
    total: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
) {
    let (start, count) = (row * width as usize, (width * N::value() as u32) as f32);
    let mean = sum_of_lanes(total, lanes, plane) / count;
    let mut squares = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let centered = values[number as usize] - Vector::new(mean);
            squares += sum_of_vector::<N>(centered * centered);
        }
    }
    let variance = sum_of_lanes(squares, lanes, plane) / count;
    let factor = 1.0f32 / (variance + epsilon).sqrt();
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let normalized = (values[number as usize] - Vector::new(mean)) * Vector::new(factor);
            let gamma = Vector::<f32, N>::cast_from(gamma[column as usize]);
            let beta = Vector::<f32, N>::cast_from(beta[column as usize]);
            output[start + column as usize] = Vector::cast_from(normalized * gamma + beta);
        }
    }
    if UNIT_POS_X == 0 {
        moments[2 * row] = mean;
        moments[2 * row + 1] = factor;
    }
}

/// Normalizes every row.
#[cube(launch)]
fn norm_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    gamma: &[Vector<E, N>],
    beta: &[Vector<E, N>],
    output: &mut [Vector<E, N>],
    moments: &mut [f32],
    width: u32,
    epsilon: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
    #[define(E)] _element: ElemType,
) {
    let row = min(row(), moments.len() / 2 - 1);
    let mut values = Array::<Vector<f32, N>>::new(each as usize);
    let mut total = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let value = Vector::<f32, N>::cast_from(x[row * width as usize + column as usize]);
            values[number as usize] = value;
            total += sum_of_vector::<N>(value);
        }
    }
    normalize::<E, N>(&values, gamma, beta, output, moments, row, width, epsilon, total, lanes, plane, each);
}

/// The gradient of every row of the sum from that of its normalization, and the gradient of what dropout was applied
/// to.
#[cube(launch)]
fn norm_gradient_kernel<E: Float, N: Size>(
    sum: &[Vector<E, N>],
    moments: &[f32],
    gamma: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    keys: &[u32],
    dsum: &mut [Vector<E, N>],
    dx: &mut [Vector<E, N>],
    width: u32,
    tokens: u32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
) {
    let row = min(row(), moments.len() / 2 - 1);
    let (start, count) = (row * width as usize, (width * N::value() as u32) as f32);
    let (mean, factor_of_row) = (moments[2 * row], moments[2 * row + 1]);
    let mut scaled = Array::<Vector<f32, N>>::new(each as usize);
    let mut normalized = Array::<Vector<f32, N>>::new(each as usize);
    let mut gradients = 0.0f32;
    let mut products = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let at = start + column as usize;
            let change = Vector::<f32, N>::cast_from(gradient[at]) * Vector::cast_from(gamma[column as usize]);
            let centered = Vector::<f32, N>::cast_from(sum[at]) - Vector::new(mean);
            let value = centered * Vector::new(factor_of_row);
            gradients += sum_of_vector::<N>(change);
            products += sum_of_vector::<N>(change * value);
            scaled[number as usize] = change;
            normalized[number as usize] = value;
        }
    }
    let gradients = sum_of_lanes(gradients, lanes, plane) / count;
    let products = sum_of_lanes(products, lanes, plane) / count;
    let first = (row as u32 % tokens) * width;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let at = start + column as usize;
            let rest = scaled[number as usize] - Vector::new(gradients);
            let change = (rest - normalized[number as usize] * Vector::new(products)) * Vector::new(factor_of_row);
            dsum[at] = Vector::cast_from(change);
            if comptime!(drops) {
                let index = (first + column) * N::value() as u32;
                let kept = factors::<N>(keys, site, row as u32 / tokens, 0u32, 1u32, index, p, scale);
                dx[at] = Vector::cast_from(change * kept);
            }
        }
    }
}

/// The gradients of γ, β and the bias: sums down columns of `gradient · normalized`, of `gradient`, and of `dx`, one
/// chunk of the rows per row of cubes. `width` and `padded` are counted in vectors.
#[cube(launch)]
fn parameter_gradients_kernel<E: Float, N: Size>(
    sum: &[Vector<E, N>],
    moments: &[f32],
    gradient: &[Vector<E, N>],
    dx: &[Vector<E, N>],
    sums: &mut [Vector<f32, N>],
    width: u32,
    padded: u32,
    #[define(E)] _element: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let rows = moments.len() as u32 / 2u32;
    let each = (rows + CUBE_COUNT_Y - 1) / CUBE_COUNT_Y;
    let end = min(rows, (CUBE_POS_Y + 1) * each);
    let mut for_gamma = Vector::<f32, N>::new(0.0f32);
    let mut for_beta = Vector::<f32, N>::new(0.0f32);
    let mut for_bias = Vector::<f32, N>::new(0.0f32);
    if column < width {
        let mut row = CUBE_POS_Y * each + UNIT_POS_Y;
        while row < end {
            let at = (row * width + column) as usize;
            let (mean, factor) = (moments[2 * row as usize], moments[2 * row as usize + 1]);
            let change = Vector::<f32, N>::cast_from(gradient[at]);
            let centered = Vector::<f32, N>::cast_from(sum[at]) - Vector::new(mean);
            for_gamma += change * centered * Vector::new(factor);
            for_beta += change;
            for_bias += Vector::cast_from(dx[at]);
            row += CUBE_DIM_Y;
        }
    }
    let for_gamma = sums_of_columns::<N>(for_gamma);
    let for_beta = sums_of_columns::<N>(for_beta);
    let for_bias = sums_of_columns::<N>(for_bias);
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

/// The backward pass of layer normalization, and of dropout before it. `dropout` are the table of keys, the site and
/// the rows per sequence.
pub fn norm_gradients(
    [sum, moments, gamma]: [&CubeTensor; 3],
    gradient: &CubeTensor,
    dropout: Option<(&CubeTensor, Site, usize)>,
) -> NormGradients {
    let [rows, width] = [sum.meta.shape()[0], sum.meta.shape()[1]];
    let (client, dtype, grid) = (&sum.client, element(sum.dtype), RowGrid::new(sum, width, 8));
    let dsum = empty(sum, [rows, width], sum.dtype);
    let drops = dropout.is_some();
    // Without dropout the kernel does not use `dx` and `keys`.
    let dx = if drops { empty(sum, [rows, width], sum.dtype) } else { empty(sum, [grid.vector], sum.dtype) };
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
        grid.vector,
        buffer(sum),
        buffer(moments),
        buffer(gamma),
        buffer(gradient),
        buffer(keys),
        buffer(&dsum),
        buffer(&dx),
        grid.width,
        tokens as u32,
        site.number,
        site.p,
        site.scale,
        grid.lanes,
        grid.plane,
        grid.each(),
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
    let vector = vector_size(sum, width, 4);
    let chunks = chunks(rows, width / vector);
    let partial = empty(sum, [chunks, 3 * padded], DType::F32);
    let (count, dim) = column_cubes(width / vector, chunks);
    parameter_gradients_kernel::launch(
        &sum.client,
        count,
        dim,
        vector,
        buffer(sum),
        buffer(moments),
        buffer(gradient),
        buffer(dx),
        buffer(&partial),
        (width / vector) as u32,
        (padded / vector) as u32,
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
        let grid = RowGrid::new(&x, width, 8);
        let (count, dim) = grid.launch(rows);
        norm_kernel::launch(
            &x.client,
            count,
            dim,
            grid.vector,
            buffer(&x),
            buffer(&gamma),
            buffer(&beta),
            buffer(&output),
            buffer(&moments),
            grid.width,
            self.epsilon,
            grid.lanes,
            grid.plane,
            grid.each(),
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
