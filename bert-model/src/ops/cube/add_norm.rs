//! What closes each half of an encoder layer: a dense layer, then bias, dropout, residual sum and LayerNorm in one kernel;
//! and LayerNorm by itself.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dropout::{Site, factor};
use super::launch::{Rows, buffer, contiguous, element, empty};
use super::product::{Weights, part};
use super::rows::{chunks, column_cubes, row, sum_of_column, sum_of_lanes, sum_rows};
use crate::ops::autodiff::{Differentiable, apply};
use crate::ops::{by_rows, rows_of_a_sequence};

/// Normalizes the row of `sum` that begins at `start`, and keeps its mean and 1 / √(variance + ε).
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

#[cube(launch)]
fn add_norm_kernel<E: Float>(
    x: &[E],
    bias: &[E],
    residual: &[E],
    gamma: &[E],
    beta: &[E],
    keys: &[u32],
    sum: &mut [E],
    output: &mut [E],
    moments: &mut [f32],
    width: u32,
    tokens: u32,
    epsilon: f32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
) {
    // A row past the last one does the last one again, so that all units of a cube meet at its barriers.
    let row = min(row(), moments.len() / 2 - 1);
    let start = row * width as usize;
    let first = (row as u32 % tokens) * width;
    let mut total = 0.0f32;
    let mut column = UNIT_POS_X;
    while column < width {
        let at = start + column as usize;
        let mut value = f32::cast_from(x[at]) + f32::cast_from(bias[column as usize]);
        if comptime!(drops) {
            value *= factor(keys, site, row as u32 / tokens, 0u32, 1u32, first + column, p, scale);
        }
        let stored = E::cast_from(value + f32::cast_from(residual[at]));
        sum[at] = stored;
        total += f32::cast_from(stored);
        column += lanes;
    }
    normalize::<E>(&*sum, gamma, beta, output, moments, row, width, epsilon, total, lanes, plane);
}

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

/// The gradient of a normalized row, and of the part of it that dropout let through.
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

/// Sums down columns, a chunk of the rows each: of `gradient · normalized`, of `gradient`, and of `dx`.
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

/// Sizes and constants of one application.
#[derive(Debug, Clone, Copy)]
pub struct AddNorm {
    epsilon: f32,
    site: Site,
    /// Rows of a sequence.
    tokens: usize,
}

/// LayerNorm on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait AddNormOps: Backend {
    /// `layer_norm(residual + dropout(x·W + b))`. Shapes: `x` `[R, I]`, `weight` `[I, H]`, `residual` and output `[R, H]`,
    /// `bias`, `gamma` and `beta` `[H]`.
    fn gpu_linear_add_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        keys: IntTensor<Self>,
        settings: AddNorm,
    ) -> FloatTensor<Self>;

    /// LayerNorm of every row.
    fn gpu_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

impl AddNormOps for Cube {
    fn gpu_linear_add_norm(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        residual: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        keys: CubeTensor,
        settings: AddNorm,
    ) -> CubeTensor {
        LinearAddNorm { keys, settings }.forward([x, weight, bias, residual, gamma, beta]).0
    }

    fn gpu_layer_norm(x: CubeTensor, gamma: CubeTensor, beta: CubeTensor, epsilon: f32) -> CubeTensor {
        Norm { epsilon }.forward([x, gamma, beta]).0
    }
}

const WEIGHTS: Weights = Weights { transposed: false };

/// The gradients of a normalized sum.
pub struct NormGradients {
    /// Of the sum, `[R, H]`.
    pub dsum: CubeTensor,
    /// Of what dropout was applied to; the same without dropout.
    pub dx: CubeTensor,
    /// Of γ, β and the bias, each `[H]`.
    pub parameters: [CubeTensor; 3],
}

/// The backward pass of LayerNorm, and of dropout before it.
pub fn norm_gradients(
    [sum, moments, gamma]: [&CubeTensor; 3],
    gradient: &CubeTensor,
    dropout: Option<(&CubeTensor, Site, usize)>,
) -> NormGradients {
    let [rows, width] = [sum.meta.shape()[0], sum.meta.shape()[1]];
    let (client, dtype, grid) = (&sum.client, element(sum.dtype), Rows::of(width, &sum.client));
    let dsum = empty(sum, [rows, width], sum.dtype);
    let drops = dropout.is_some();
    // Without dropout the last two arguments are there, and not looked at.
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
    // Each parameter's gradient begins where every device can bind a buffer.
    let padded = width.next_multiple_of(64);
    let chunks = chunks(rows, width);
    let partial = empty(sum, [chunks, 3 * padded], DType::F32);
    let (count, dim) = column_cubes(width, chunks);
    parameter_gradients_kernel::launch(
        client,
        count,
        dim,
        buffer(sum),
        buffer(moments),
        buffer(gradient),
        buffer(&dx),
        buffer(&partial),
        width as u32,
        padded as u32,
        dtype,
    );
    let sums = sum_rows(&partial, chunks, 3 * padded);
    let parameters = [0, 1, 2].map(|number| part(&sums, number * padded, width));
    NormGradients { dsum, dx, parameters }
}

/// [`AddNormOps::gpu_linear_add_norm`] within a graph.
#[derive(Debug, Clone)]
struct LinearAddNorm {
    keys: CubeTensor,
    settings: AddNorm,
}

impl Differentiable<Cube, 6> for LinearAddNorm {
    /// `x`, the weights, γ, the sum, and its moments.
    type Saved = [CubeTensor; 5];

    fn forward(&self, inputs: [CubeTensor; 6]) -> (CubeTensor, Self::Saved) {
        let [x, weight, bias, residual, gamma, beta] = inputs.map(contiguous);
        let AddNorm { epsilon, site, tokens } = self.settings;
        let product = WEIGHTS.apply(&x, &weight);
        let [rows, width] = [product.meta.shape()[0], product.meta.shape()[1]];
        let [sum, output] = [(); 2].map(|()| empty(&product, [rows, width], product.dtype));
        let moments = empty(&product, [rows, 2], DType::F32);
        let grid = Rows::of(width, &product.client);
        let (count, dim) = grid.launch(rows);
        add_norm_kernel::launch(
            &product.client,
            count,
            dim,
            buffer(&product),
            buffer(&bias),
            buffer(&residual),
            buffer(&gamma),
            buffer(&beta),
            buffer(&self.keys),
            buffer(&sum),
            buffer(&output),
            buffer(&moments),
            width as u32,
            tokens as u32,
            epsilon,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            site.p > 0,
            element(product.dtype),
        );
        (output, [x, weight, gamma, sum, moments])
    }

    fn backward(
        self,
        [x, weight, gamma, sum, moments]: Self::Saved,
        gradient: CubeTensor,
        [for_x, for_weight, for_bias, for_residual, for_gamma, for_beta]: [bool; 6],
    ) -> [Option<CubeTensor>; 6] {
        let AddNorm { site, tokens, .. } = self.settings;
        let dropout = (site.p > 0).then_some((&self.keys, site, tokens));
        let gradients = norm_gradients([&sum, &moments, &gamma], &contiguous(gradient), dropout);
        let NormGradients { dsum, dx, parameters: [dgamma, dbeta, dbias] } = gradients;
        [
            for_x.then(|| WEIGHTS.input_gradient(&weight, &dx)),
            for_weight.then(|| WEIGHTS.gradient(&x, &dx)),
            for_bias.then_some(dbias),
            for_residual.then_some(dsum),
            for_gamma.then_some(dgamma),
            for_beta.then_some(dbeta),
        ]
    }
}

/// [`AddNormOps::gpu_layer_norm`] within a graph.
#[derive(Debug, Clone)]
struct Norm {
    epsilon: f32,
}

impl Differentiable<Cube, 3> for Norm {
    type Saved = [CubeTensor; 3];

    fn forward(&self, inputs: [CubeTensor; 3]) -> (CubeTensor, Self::Saved) {
        let [x, gamma, beta] = inputs.map(contiguous);
        let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
        let output = empty(&x, [rows, width], x.dtype);
        let moments = empty(&x, [rows, 2], DType::F32);
        let grid = Rows::of(width, &x.client);
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

impl<C: CheckpointStrategy> AddNormOps for Autodiff<Cube, C> {
    fn gpu_linear_add_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        keys: IntTensor<Self>,
        settings: AddNorm,
    ) -> FloatTensor<Self> {
        apply::<_, Cube, C, 6>(LinearAddNorm { keys, settings }, [x, weight, bias, residual, gamma, beta])
    }

    fn gpu_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        apply::<_, Cube, C, 3>(Norm { epsilon }, [x, gamma, beta])
    }
}

/// See [`crate::ops::layer_norm()`].
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    by_rows(x, |x| Tensor::from_dispatch(Dispatch::gpu_layer_norm(x.into_dispatch(), gamma, beta, epsilon as f32)))
}

/// See [`crate::ops::linear_add_norm`].
pub fn linear_add_norm<const D: usize>(
    x: Tensor<D>,
    (weight, bias): (Tensor<2>, Tensor<1>),
    residual: Tensor<D>,
    dropout: Option<f64>,
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
) -> Tensor<D> {
    let (site, keys) = Site::next(dropout, &x.device());
    let settings = AddNorm { epsilon: epsilon as f32, site, tokens: rows_of_a_sequence(&x) };
    let (shape, inputs) = (x.shape(), x.dims()[D - 1]);
    let rows = shape.num_elements() / inputs.max(1);
    let x = x.reshape([rows, inputs]).into_dispatch();
    let keys = keys.into_dispatch();
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    by_rows(residual, |residual| {
        let residual = residual.into_dispatch();
        Tensor::from_dispatch(Dispatch::gpu_linear_add_norm(x, weight, bias, residual, gamma, beta, keys, settings))
    })
}
