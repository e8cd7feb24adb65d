//! Matrix products on GPUs, and the dense layer.
//!
//! On CUDA devices products are [`super::cublas`]'s if it is installed; on tensor cores cubek's, whose strategy is
//! fixed for each kind of product: automatic tuning would take minutes in every process and select by time, so that
//! results could differ between runs; and elsewhere [`super::tiles`]. `examples/product_rates.rs` measures the
//! strategies.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, Shape, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::features::Tma;
use cubecl::ir::FloatKind;
use cubecl::prelude::*;
use cubecl::zspace::metadata::Metadata;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as Levels;
use cubek::matmul::multi_level::components::tile::TileMatmulKind;
use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::launch::{buffer, contiguous, element, elementwise, empty, vector_size};
use super::rows::{reshaped, sum_rows};
use super::tiles;
use crate::ops::autodiff::{Differentiable, apply};

/// The products `lhs · rhs` of a batch, `[batch, m, k] × [batch, k, n]`, or of two matrices. Either operand may be a
/// transposed view; the output is contiguous.
pub fn multiply(lhs: &CubeTensor, rhs: &CubeTensor, dtype: DType) -> CubeTensor {
    let mut shape = lhs.meta.shape().to_vec();
    let last = shape.len() - 1;
    shape[last] = rhs.meta.shape()[last];
    if is_cublas(lhs) || has_tensor_cores(lhs) {
        let output = empty(lhs, Shape::from(shape), dtype);
        #[cfg(feature = "cuda")]
        if super::cublas::multiply(lhs, rhs, &output) {
            return output;
        }
        let input = |x: &CubeTensor| InputBinding::new(x.clone().binding(), element(x.dtype));
        let elements = MatmulGlobalElems { lhs: element(lhs.dtype), rhs: element(rhs.dtype), out: element(dtype) };
        for strategy in strategies(lhs, rhs) {
            let (target, mut elements) = (output.clone().binding(), MatmulElems::from_globals(&elements));
            if launch_ref(&strategy, &output.client, input(lhs), input(rhs), target, &mut elements).is_ok() {
                return output;
            }
        }
    }
    tiles::multiply(lhs, rhs, dtype)
}

/// Whether the device has tensor cores for a tensor's numbers; those for `f32` round them to tf32.
fn has_tensor_cores(x: &CubeTensor) -> bool {
    let element = match x.dtype {
        DType::F32 => ElemType::Float(FloatKind::TF32),
        dtype => element(dtype),
    };
    x.client.properties().features.matmul.cmma.iter().any(|tile| tile.a_type == element)
}

/// The strategies for tensor cores to try, fastest first: fed by the copy engine (on an H100 151 TFLOP/s in bf16; the
/// next strategy reaches 76), and alone.
fn strategies(lhs: &CubeTensor, rhs: &CubeTensor) -> Vec<Strategy> {
    let copied = [lhs, rhs].into_iter().all(|x| has_copy_engine(x) && is_aligned(x));
    let mut strategies: Vec<Strategy> = Vec::new();
    if copied {
        let arguments = DoubleBufferingArgs { tile_matmul: TileMatmulKind::Mma, specialized: false };
        strategies.push(Levels::DoubleTmaMma(BlueprintStrategy::Inferred(arguments)).into());
    }
    strategies.push(Levels::SimpleCyclicCmma(Default::default()).into());
    strategies
}

/// How a matrix, or each matrix of a batch, lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Whether its rows are contiguous, else its columns are.
    pub is_by_rows: bool,
    /// Elements in a row (or column).
    pub extent: usize,
    /// Elements from one row (or column) to the next.
    pub stride: usize,
    /// Elements from one matrix of a batch to the next.
    pub batch_stride: usize,
}

impl Layout {
    /// The layout, unless neither rows nor columns are contiguous.
    pub fn of(x: &CubeTensor) -> Option<Self> {
        let (shape, strides) = (x.meta.shape(), x.meta.strides());
        let [row, column] = [shape.len() - 2, shape.len() - 1];
        let (is_by_rows, stride, extent) = match (strides[row], strides[column]) {
            (stride, 1) => (true, stride, shape[column]),
            (1, stride) => (false, stride, shape[row]),
            _ => return None,
        };
        Some(Self { is_by_rows, extent, stride, batch_stride: if row > 0 { strides[0] } else { 0 } })
    }
}

/// Whether the products of a tensor are cuBLAS's.
fn is_cublas(_x: &CubeTensor) -> bool {
    #[cfg(feature = "cuda")]
    return super::cublas::runs(_x);
    #[cfg(not(feature = "cuda"))]
    false
}

/// Whether the device has a copy engine (tensor memory accelerator).
fn has_copy_engine(x: &CubeTensor) -> bool {
    x.client.properties().features.tma.contains(Tma::Base)
}

/// The alignment in bytes that the copy engine requires of tensors and their rows.
const ALIGNMENT: usize = 16;

/// Whether the copy engine can read a tensor. Small tensors are excluded.
fn is_aligned(x: &CubeTensor) -> bool {
    let size = x.dtype.size();
    let begins = x.handle.offset_start.unwrap_or(0) as usize;
    let rank = x.meta.shape().len();
    let is_large = x.meta.shape()[rank - 2..].iter().all(|&extent| extent >= 32);
    let strides = x.meta.strides().iter().filter(|&&stride| stride != 1);
    is_large
        && begins.is_multiple_of(ALIGNMENT)
        && strides.into_iter().all(|stride| (stride * size).is_multiple_of(ALIGNMENT))
}

/// Rows that tensor cores process at a time.
const ROWS: usize = 64;

/// Copies a matrix `[rows, columns]` into a larger one with rows of `stride` elements, filled up with zeros.
#[cube(launch)]
fn pad<E: Float>(x: &[E], padded: &mut [E], rows: u32, columns: u32, stride: u32, #[define(E)] _element: ElemType) {
    let at = ABSOLUTE_POS;
    if at < padded.len() {
        let (row, column) = (at as u32 / stride, at as u32 % stride);
        let is_inside = row < rows && column < columns;
        let from = select(is_inside, row * columns + column, 0u32);
        let value = select(is_inside, f32::cast_from(x[from as usize]), 0.0f32);
        padded[at] = E::cast_from(value);
    }
}

/// Pads a contiguous matrix with zeros, so that its rows are aligned for the copy engine and their number is a multiple
/// of [`ROWS`]. The rows were filled up when steps on CUDA were wrong, for which another cause has been found since;
/// nobody has tried without. Returns the matrix unchanged on devices without a copy engine, and where products are
/// cuBLAS's.
fn aligned(x: &CubeTensor) -> CubeTensor {
    let [rows, columns] = [x.meta.shape()[0], x.meta.shape()[1]];
    if !has_copy_engine(x) || is_cublas(x) {
        return x.clone();
    }
    let more_rows = rows.next_multiple_of(ROWS);
    let stride = columns.next_multiple_of(ALIGNMENT / x.dtype.size());
    if (more_rows, stride) == (rows, columns) {
        return x.clone();
    }
    let mut padded = empty(x, [more_rows, stride], x.dtype);
    let (count, dim) = elementwise(more_rows * stride);
    let sizes = [rows as u32, columns as u32, stride as u32];
    pad::launch(&x.client, count, dim, buffer(x), buffer(&padded), sizes[0], sizes[1], sizes[2], element(x.dtype));
    *padded.meta = Metadata::new([more_rows, columns], [stride, 1]);
    padded
}

/// The first `rows` rows of a contiguous matrix, as a view.
fn first_rows(mut x: CubeTensor, rows: usize) -> CubeTensor {
    let [all, columns] = [x.meta.shape()[0], x.meta.shape()[1]];
    if all > rows {
        let rest = ((all - rows) * columns * x.dtype.size()) as u64;
        x.handle.offset_end = Some(x.handle.offset_end.unwrap_or(0) + rest);
        *x.meta = Metadata::new([rows, columns], [columns, 1]);
    }
    x
}

/// A transposed view of a matrix, or of each matrix of a batch.
pub fn transposed(x: &CubeTensor) -> CubeTensor {
    let mut x = x.clone();
    let rank = x.meta.shape().len();
    x.meta.swap(rank - 2, rank - 1);
    x
}

/// Adds `bias` to every row.
#[cube(launch)]
fn add_bias<E: Float, N: Size>(
    x: &mut [Vector<E, N>],
    bias: &[Vector<E, N>],
    width: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < x.len() {
        let sum = Vector::<f32, N>::cast_from(x[at]) + Vector::cast_from(bias[at % width as usize]);
        x[at] = Vector::cast_from(sum);
    }
}

/// How weights are stored: products with them compute `x·W`, or `x·Wᵀ` for weights stored as `[O, I]`.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Whether they are stored as `[O, I]`.
    pub transposed: bool,
}

impl Weights {
    /// The product of `x` `[R, I]` and the weights: `[R, O]`.
    pub fn apply(self, x: &CubeTensor, weight: &CubeTensor) -> CubeTensor {
        let weight = if self.transposed { transposed(weight) } else { weight.clone() };
        first_rows(multiply(&aligned(x), &weight, x.dtype), x.meta.shape()[0])
    }

    /// The gradient of `x`, `[R, I]`.
    pub fn input_gradient(self, weight: &CubeTensor, gradient: &CubeTensor) -> CubeTensor {
        let weight = if self.transposed { weight.clone() } else { transposed(weight) };
        first_rows(multiply(&aligned(gradient), &weight, gradient.dtype), gradient.meta.shape()[0])
    }

    /// The gradient of the weights, in `f32`.
    pub fn gradient(self, x: &CubeTensor, gradient: &CubeTensor) -> CubeTensor {
        let (x, gradient) = (aligned(x), aligned(gradient));
        match self.transposed {
            true => multiply(&transposed(&gradient), &x, DType::F32),
            false => multiply(&transposed(&x), &gradient, DType::F32),
        }
    }
}

/// The dense layer on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait ProductOps: Backend {
    /// `x·W + b`. Shapes: `x` `[R, I]`, `bias` `[O]`, output `[R, O]`.
    fn gpu_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        weights: Weights,
    ) -> FloatTensor<Self>;
}

impl ProductOps for Cube {
    fn gpu_linear(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, weights: Weights) -> CubeTensor {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let output = weights.apply(&x, &weight);
        let width = bias.meta.num_elements();
        let vector = vector_size(&output, width, 8);
        let (count, dim) = elementwise(output.meta.num_elements() / vector);
        let (arguments, width) = ((buffer(&output), buffer(&bias)), (width / vector) as u32);
        add_bias::launch(&x.client, count, dim, vector, arguments.0, arguments.1, width, element(x.dtype));
        output
    }
}

/// [`ProductOps::gpu_linear`] for autodiff.
#[derive(Debug, Clone)]
struct GpuLinear(Weights);

impl Differentiable<Cube, 3> for GpuLinear {
    /// The input and the weights.
    type Saved = [CubeTensor; 2];

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> (CubeTensor, Self::Saved) {
        let (x, weight) = (contiguous(x), contiguous(weight));
        (Cube::gpu_linear(x.clone(), weight.clone(), bias, self.0), [x, weight])
    }

    fn backward(
        self,
        [x, weight]: Self::Saved,
        gradient: CubeTensor,
        [for_x, for_weight, for_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let gradient = contiguous(gradient);
        let [rows, outputs] = [gradient.meta.shape()[0], gradient.meta.shape()[1]];
        [
            for_x.then(|| self.0.input_gradient(&weight, &gradient)),
            for_weight.then(|| self.0.gradient(&x, &gradient)),
            for_bias.then(|| sum_rows(&gradient, rows, outputs)),
        ]
    }
}

impl<C: CheckpointStrategy> ProductOps for Autodiff<Cube, C> {
    fn gpu_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        weights: Weights,
    ) -> FloatTensor<Self> {
        apply::<_, Cube, C, 3>(GpuLinear(weights), [x, weight, bias])
    }
}

/// See [`crate::ops::linear()`]; weights `[O, I]` if `transposed`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>, transposed: bool) -> Tensor<D> {
    let (mut shape, inputs) = (x.shape(), x.dims()[D - 1]);
    let x = x.reshape([shape.num_elements() / inputs.max(1), inputs]).into_dispatch();
    shape[D - 1] = bias.dims()[0];
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::<2>::from_dispatch(Dispatch::gpu_linear(x, weight, bias, Weights { transposed })).reshape(shape)
}

/// The elements `first..first + count` of a contiguous tensor, as a view `[count]`.
pub fn slice(x: &CubeTensor, first: usize, count: usize) -> CubeTensor {
    let mut slice = x.clone();
    let bytes = x.dtype.size() as u64;
    let (start, total) = (slice.handle.offset_start.unwrap_or(0), x.meta.num_elements());
    slice.handle.offset_start = Some(start + first as u64 * bytes);
    let after = slice.handle.offset_end.unwrap_or(0);
    slice.handle.offset_end = Some(after + (total - first - count) as u64 * bytes);
    reshaped(slice, [count])
}
