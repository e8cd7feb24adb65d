//! A dense layer and Add & Norm on a GPU: the product, then bias, dropout, residual sum and layer normalization in one
//! kernel.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dropout::{Site, factors};
use super::launch::{RowGrid, buffer, contiguous, element, empty};
use super::layer_norm::{NormGradients, norm_gradients, normalize};
use super::product::Weights;
use super::rows::{row, sum_of_vector};
use crate::ops::autodiff::{Differentiable, apply};
use crate::ops::{by_rows, rows_of_a_sequence};

/// `layer_norm(residual + dropout(x + bias))` of every row; keeps the sum before normalization.
#[cube(launch)]
fn add_norm_kernel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    bias: &[Vector<E, N>],
    residual: &[Vector<E, N>],
    gamma: &[Vector<E, N>],
    beta: &[Vector<E, N>],
    keys: &[u32],
    sum: &mut [Vector<E, N>],
    output: &mut [Vector<E, N>],
    moments: &mut [f32],
    width: u32,
    tokens: u32,
    epsilon: f32,
    site: u32,
    p: u32,
    scale: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
    #[comptime] drops: bool,
    #[define(E)] _element: ElemType,
) {
    // Units past the last row repeat it, so that all units of a cube reach its barriers.
    let row = min(row(), moments.len() / 2 - 1);
    let start = row * width as usize;
    let first = (row as u32 % tokens) * width;
    let mut values = Array::<Vector<f32, N>>::new(each as usize);
    let mut total = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let at = start + column as usize;
            let mut value = Vector::<f32, N>::cast_from(x[at]) + Vector::cast_from(bias[column as usize]);
            if comptime!(drops) {
                let index = (first + column) * N::value() as u32;
                value *= factors::<N>(keys, site, row as u32 / tokens, 0u32, 1u32, index, p, scale);
            }
            let stored = Vector::<E, N>::cast_from(value + Vector::cast_from(residual[at]));
            sum[at] = stored;
            let rounded = Vector::<f32, N>::cast_from(stored);
            values[number as usize] = rounded;
            total += sum_of_vector::<N>(rounded);
        }
    }
    normalize::<E, N>(&values, gamma, beta, output, moments, row, width, epsilon, total, lanes, plane, each);
}

/// The settings of [`AddNormOps::gpu_linear_add_norm`].
#[derive(Debug, Clone, Copy)]
pub struct AddNorm {
    epsilon: f32,
    site: Site,
    /// Rows per sequence.
    tokens: usize,
}

/// A dense layer and Add & Norm on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait AddNormOps: Backend {
    /// `layer_norm(residual + dropout(x·W + b))`. Shapes: `x` `[R, I]`, `weight` `[I, H]`, `residual` and output `[R,
    /// H]`, `bias`, `gamma` and `beta` `[H]`.
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
}

/// Weights stored as `[I, O]`.
const WEIGHTS: Weights = Weights { transposed: false };

/// [`AddNormOps::gpu_linear_add_norm`] for autodiff.
#[derive(Debug, Clone)]
struct LinearAddNorm {
    keys: CubeTensor,
    settings: AddNorm,
}

impl Differentiable<Cube, 6> for LinearAddNorm {
    /// `x`, the weights, γ, the sum before normalization, and the moments of its rows.
    type Saved = [CubeTensor; 5];

    fn forward(&self, inputs: [CubeTensor; 6]) -> (CubeTensor, Self::Saved) {
        let [x, weight, bias, residual, gamma, beta] = inputs.map(contiguous);
        let AddNorm { epsilon, site, tokens } = self.settings;
        let product = WEIGHTS.apply(&x, &weight);
        let [rows, width] = [product.meta.shape()[0], product.meta.shape()[1]];
        let [sum, output] = [(); 2].map(|()| empty(&product, [rows, width], product.dtype));
        let moments = empty(&product, [rows, 2], DType::F32);
        let grid = RowGrid::new(&product, width, 8);
        let (count, dim) = grid.launch(rows);
        add_norm_kernel::launch(
            &product.client,
            count,
            dim,
            grid.vector,
            buffer(&product),
            buffer(&bias),
            buffer(&residual),
            buffer(&gamma),
            buffer(&beta),
            buffer(&self.keys),
            buffer(&sum),
            buffer(&output),
            buffer(&moments),
            grid.width,
            tokens as u32,
            epsilon,
            site.number,
            site.p,
            site.scale,
            grid.lanes,
            grid.plane,
            grid.each(),
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
