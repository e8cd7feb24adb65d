//! The input representation on a GPU: the sum of the embeddings and layer normalization in one kernel, then dropout.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dropout::{DropoutOps, Site};
use super::launch::{RowGrid, buffer, contiguous, element, elementwise, empty};
use super::layer_norm::{NormGradients, norm_gradients, normalize};
use super::rows::{chunks, column_cubes, reshaped, row, sum_of_column, sum_of_vector, sum_rows};
use crate::ops::autodiff::{Differentiable, apply};

/// `layer_norm(words + types[type_ids] + positions)` of every row; keeps the sum before normalization.
#[cube(launch)]
fn embed_kernel<E: Float, N: Size>(
    words: &[Vector<E, N>],
    positions: &[Vector<E, N>],
    types: &[Vector<E, N>],
    type_ids: &[u32],
    gamma: &[Vector<E, N>],
    beta: &[Vector<E, N>],
    sum: &mut [Vector<E, N>],
    output: &mut [Vector<E, N>],
    moments: &mut [f32],
    width: u32,
    tokens: u32,
    epsilon: f32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[comptime] each: u32,
    #[define(E)] _element: ElemType,
) {
    let row = min(row(), moments.len() / 2 - 1);
    let start = row * width as usize;
    let position = (row as u32 % tokens) * width;
    let token_type = type_ids[row] * width;
    let mut values = Array::<Vector<f32, N>>::new(each as usize);
    let mut total = 0.0f32;
    #[unroll]
    for number in 0..each {
        let column = number * lanes + UNIT_POS_X;
        if column < width {
            let at = start + column as usize;
            let value = Vector::<f32, N>::cast_from(words[at])
                + Vector::cast_from(types[(token_type + column) as usize])
                + Vector::cast_from(positions[(position + column) as usize]);
            let stored = Vector::<E, N>::cast_from(value);
            sum[at] = stored;
            let rounded = Vector::<f32, N>::cast_from(stored);
            values[number as usize] = rounded;
            total += sum_of_vector::<N>(rounded);
        }
    }
    normalize::<E, N>(&values, gamma, beta, output, moments, row, width, epsilon, total, lanes, plane, each);
}

/// The gradient of the position embeddings: sums over the batch; 0 for positions beyond the batch's length.
#[cube(launch)]
fn position_gradient<E: Float>(
    dsum: &[E],
    gradient: &mut [f32],
    width: u32,
    tokens: u32,
    batch: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < gradient.len() {
        let mut sum = 0.0f32;
        if (at as u32) < tokens * width {
            let mut row = 0u32;
            while row < batch {
                sum += f32::cast_from(dsum[(row * tokens * width) as usize + at]);
                row += 1u32;
            }
        }
        gradient[at] = sum;
    }
}

/// The gradient of the token-type embeddings: sums the rows of each type, for each chunk of rows.
#[cube(launch)]
fn type_gradient<E: Float>(
    dsum: &[E],
    type_ids: &[u32],
    sums: &mut [f32],
    width: u32,
    types: u32,
    #[define(E)] _element: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let rows = type_ids.len() as u32;
    let each = (rows + CUBE_COUNT_Y - 1) / CUBE_COUNT_Y;
    let end = min(rows, (CUBE_POS_Y + 1) * each);
    let token_type = CUBE_POS_Z;
    let mut sum = 0.0f32;
    if column < width {
        let mut row = CUBE_POS_Y * each + UNIT_POS_Y;
        while row < end {
            let value = f32::cast_from(dsum[(row * width + column) as usize]);
            sum += select(type_ids[row as usize] == token_type, value, 0.0f32);
            row += CUBE_DIM_Y;
        }
    }
    let sum = sum_of_column(sum);
    if UNIT_POS_Y == 0 {
        if column < width {
            sums[((CUBE_POS_Y * types + token_type) * width + column) as usize] = sum;
        }
    }
}

/// The settings of [`EmbeddingOps::gpu_embed`].
#[derive(Debug, Clone, Copy)]
pub struct Embed {
    tokens: usize,
    epsilon: f32,
    site: Site,
}

/// The input representation on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait EmbeddingOps: Backend {
    /// Shapes: `words` and output `[R, H]`, `positions` `[P, H]`, `types` `[K, H]`, `gamma` and `beta` `[H]`,
    /// `type_ids` `[R]`.
    #[allow(clippy::too_many_arguments)]
    fn gpu_embed(
        words: FloatTensor<Self>,
        positions: FloatTensor<Self>,
        types: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        type_ids: IntTensor<Self>,
        keys: IntTensor<Self>,
        settings: Embed,
    ) -> FloatTensor<Self>;
}

impl EmbeddingOps for Cube {
    fn gpu_embed(
        words: CubeTensor,
        positions: CubeTensor,
        types: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        type_ids: CubeTensor,
        keys: CubeTensor,
        settings: Embed,
    ) -> CubeTensor {
        GpuEmbed { type_ids, keys, settings }.forward([words, positions, types, gamma, beta]).0
    }
}

/// [`EmbeddingOps::gpu_embed`] for autodiff.
#[derive(Debug, Clone)]
struct GpuEmbed {
    type_ids: CubeTensor,
    keys: CubeTensor,
    settings: Embed,
}

impl Differentiable<Cube, 5> for GpuEmbed {
    /// γ, the sum before normalization and its moments; the numbers of position and of token-type embeddings.
    type Saved = ([CubeTensor; 3], [usize; 2]);

    fn forward(&self, inputs: [CubeTensor; 5]) -> (CubeTensor, Self::Saved) {
        let [words, positions, types, gamma, beta] = inputs.map(contiguous);
        let Embed { tokens, epsilon, site } = self.settings;
        let [rows, width] = [words.meta.shape()[0], words.meta.shape()[1]];
        let [sum, output] = [(); 2].map(|()| empty(&words, [rows, width], words.dtype));
        let moments = empty(&words, [rows, 2], DType::F32);
        let type_ids = contiguous(self.type_ids.clone());
        let grid = RowGrid::new(&words, width, 8);
        let (count, dim) = grid.launch(rows);
        embed_kernel::launch(
            &words.client,
            count,
            dim,
            grid.vector,
            buffer(&words),
            buffer(&positions),
            buffer(&types),
            buffer(&type_ids),
            buffer(&gamma),
            buffer(&beta),
            buffer(&sum),
            buffer(&output),
            buffer(&moments),
            grid.width,
            tokens as u32,
            epsilon,
            grid.lanes,
            grid.plane,
            grid.each(),
            element(words.dtype),
        );
        let output = match site.p {
            0 => output,
            _ => Cube::gpu_dropout(output, self.keys.clone(), site, tokens * width),
        };
        (output, ([gamma, sum, moments], [positions.meta.shape()[0], types.meta.shape()[0]]))
    }

    fn backward(
        self,
        ([gamma, sum, moments], [positions, types]): Self::Saved,
        gradient: CubeTensor,
        [for_words, for_positions, for_types, for_gamma, for_beta]: [bool; 5],
    ) -> [Option<CubeTensor>; 5] {
        let Embed { tokens, site, .. } = self.settings;
        let [rows, width] = [sum.meta.shape()[0], sum.meta.shape()[1]];
        let gradient = match site.p {
            0 => contiguous(gradient),
            _ => Cube::gpu_dropout(gradient, self.keys, site, tokens * width),
        };
        let NormGradients { dsum, parameters: [dgamma, dbeta, _], .. } =
            norm_gradients([&sum, &moments, &gamma], &gradient, None);
        let (client, dtype) = (&dsum.client, element(dsum.dtype));
        let dpositions = for_positions.then(|| {
            let output = empty(&dsum, [positions, width], DType::F32);
            let (count, dim) = elementwise(positions * width);
            let sizes = [width as u32, tokens as u32, (rows / tokens) as u32];
            position_gradient::launch(
                client,
                count,
                dim,
                buffer(&dsum),
                buffer(&output),
                sizes[0],
                sizes[1],
                sizes[2],
                dtype,
            );
            output
        });
        let dtypes = for_types.then(|| {
            let chunks = chunks(rows, width);
            let partial = empty(&dsum, [chunks, types * width], DType::F32);
            let (count, dim) = column_cubes(width, chunks);
            let CubeCount::Static(across, down, _) = count else { return partial };
            let count = CubeCount::Static(across, down, types as u32);
            let ids = contiguous(self.type_ids);
            let (inputs, sizes) = ((buffer(&dsum), buffer(&ids)), [width as u32, types as u32]);
            type_gradient::launch(client, count, dim, inputs.0, inputs.1, buffer(&partial), sizes[0], sizes[1], dtype);
            reshaped(sum_rows(&partial, chunks, types * width), [types, width])
        });
        [for_words.then(|| dsum.clone()), dpositions, dtypes, for_gamma.then_some(dgamma), for_beta.then_some(dbeta)]
    }
}

impl<C: CheckpointStrategy> EmbeddingOps for Autodiff<Cube, C> {
    fn gpu_embed(
        words: FloatTensor<Self>,
        positions: FloatTensor<Self>,
        types: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        type_ids: IntTensor<Self>,
        keys: IntTensor<Self>,
        settings: Embed,
    ) -> FloatTensor<Self> {
        apply::<_, Cube, C, 5>(GpuEmbed { type_ids, keys, settings }, [words, positions, types, gamma, beta])
    }
}

/// See [`crate::ops::embed`].
pub fn embed(
    words: Tensor<3>,
    positions: Tensor<2>,
    (types, type_ids): (Tensor<2>, Tensor<2, burn::tensor::Int>),
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
    dropout: Option<f64>,
) -> Tensor<3> {
    let [batch, tokens, width] = words.dims();
    let (site, keys) = Site::next(dropout, &words.device());
    let settings = Embed { tokens, epsilon: epsilon as f32, site };
    let words = words.reshape([batch * tokens, width]).into_dispatch();
    let type_ids = type_ids.reshape([batch * tokens]).into_dispatch();
    let tables = (positions.into_dispatch(), types.into_dispatch());
    let norm = (gamma.into_dispatch(), beta.into_dispatch());
    let keys = keys.into_dispatch();
    let output = Dispatch::gpu_embed(words, tables.0, tables.1, norm.0, norm.1, type_ids, keys, settings);
    Tensor::<2>::from_dispatch(output).reshape([batch, tokens, width])
}
