//! Layouts of queries, keys and values: kernels that join and separate the three projections, and the heads.

use burn::backend::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::AttentionShape;
use crate::ops::cube::launch::{buffer, element, elementwise, empty, vector_size};

/// Concatenates three matrices `[I, O]` along their columns: `[I, 3·O]`.
#[cube(launch)]
fn pack_kernel<E: Float>(
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

/// The inverse of [`pack_kernel`]: separates `[I, 3·O]` into three matrices `[I, O]`.
#[cube(launch)]
fn unpack_kernel<E: Float>(
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

/// The row and the column in `[B·T, A·D]` of element `at` of `[B, A, T, D]`. In the kernels below D is counted in
/// vectors.
#[cube]
fn token_and_column(at: u32, tokens: u32, heads: u32, size: u32) -> (u32, u32) {
    let (within, token) = (at % size, (at / size) % tokens);
    let (head, batch) = ((at / (size * tokens)) % heads, at / (size * tokens * heads));
    (batch * tokens + token, head * size + within)
}

/// Separates `[B·T, 3·H]` into queries, keys and values `[B, A, T, D]`, adds the biases, and scales the queries.
#[cube(launch)]
fn split_qkv_kernel<E: Float, N: Size>(
    packed: &[Vector<E, N>],
    query_bias: &[Vector<E, N>],
    key_bias: &[Vector<E, N>],
    value_bias: &[Vector<E, N>],
    query: &mut [Vector<E, N>],
    key: &mut [Vector<E, N>],
    value: &mut [Vector<E, N>],
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
        let q = Vector::<f32, N>::cast_from(packed[from]) + Vector::cast_from(query_bias[bias]);
        let k = Vector::<f32, N>::cast_from(packed[from + width as usize]) + Vector::cast_from(key_bias[bias]);
        let v = Vector::<f32, N>::cast_from(packed[from + 2 * width as usize]) + Vector::cast_from(value_bias[bias]);
        query[at] = Vector::cast_from(q * Vector::new(scale));
        key[at] = Vector::cast_from(k);
        value[at] = Vector::cast_from(v);
    }
}

/// The backward pass of [`split_qkv_kernel`]: joins three gradients `[B, A, T, D]` to `[B·T, 3·H]`.
#[cube(launch)]
fn merge_qkv_kernel<E: Float, N: Size>(
    query: &[Vector<E, N>],
    key: &[Vector<E, N>],
    value: &[Vector<E, N>],
    packed: &mut [Vector<E, N>],
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
        packed[to] = Vector::cast_from(Vector::<f32, N>::cast_from(query[at]) * Vector::new(scale));
        packed[to + width as usize] = key[at];
        packed[to + 2 * width as usize] = value[at];
    }
}

/// Concatenates the heads: `[B, A, T, D]` to `[B·T, A·D]`.
#[cube(launch)]
fn merge_heads_kernel<E: Float, N: Size>(
    heads_apart: &[Vector<E, N>],
    rows: &mut [Vector<E, N>],
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

/// The inverse of [`merge_heads_kernel`]: `[B·T, A·D]` to `[B, A, T, D]`.
#[cube(launch)]
fn split_heads_kernel<E: Float, N: Size>(
    rows: &[Vector<E, N>],
    heads_apart: &mut [Vector<E, N>],
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

/// The launch of a kernel that moves vectors of a head's columns.
struct Launch {
    count: CubeCount,
    dim: CubeDim,
    /// Elements per vector.
    vector: usize,
    /// T, A, and D in vectors.
    sizes: [u32; 3],
}

impl Launch {
    fn new(x: &CubeTensor, shape: AttentionShape) -> Self {
        let vector = vector_size(x, shape.size, 8);
        let (count, dim) = elementwise(shape.elements() / vector);
        let [tokens, heads, size] = shape.sizes();
        Self { count, dim, vector, sizes: [tokens, heads, size / vector as u32] }
    }
}

/// Three matrices `[I, O]`, concatenated along their columns: `[I, 3·O]`.
pub fn pack(matrices: [&CubeTensor; 3]) -> CubeTensor {
    let [first, second, third] = matrices;
    let [inputs, outputs] = [first.meta.shape()[0], first.meta.shape()[1]];
    let packed = empty(first, [inputs, 3 * outputs], first.dtype);
    let (count, dim) = elementwise(3 * inputs * outputs);
    pack_kernel::launch(
        &first.client,
        count,
        dim,
        buffer(first),
        buffer(second),
        buffer(third),
        buffer(&packed),
        outputs as u32,
        element(first.dtype),
    );
    packed
}

/// The inverse of [`pack`] for `f32`: three tensors of shape `shape`, whose last dimension is a third of the packed
/// one.
pub fn unpack<const D: usize>(packed: &CubeTensor, shape: [usize; D]) -> [CubeTensor; 3] {
    let parts = [(); 3].map(|()| empty(packed, shape, DType::F32));
    let [first, second, third] = &parts;
    let (count, dim) = elementwise(shape.iter().product());
    unpack_kernel::launch(
        &packed.client,
        count,
        dim,
        buffer(packed),
        buffer(first),
        buffer(second),
        buffer(third),
        shape[D - 1] as u32,
        element(DType::F32),
    );
    parts
}

/// Queries, keys and values `[B·A, T, D]` from their packed products `[B·T, 3·H]` and their biases `[H]`. The queries
/// are scaled by 1 / √D.
pub fn split_qkv(packed: &CubeTensor, biases: [&CubeTensor; 3], shape: AttentionShape) -> [CubeTensor; 3] {
    let outputs = [(); 3].map(|()| empty(packed, shape.heads_shape(), packed.dtype));
    let ([query, key, value], [query_bias, key_bias, value_bias]) = (&outputs, biases);
    let Launch { count, dim, vector, sizes: [tokens, heads, size] } = Launch::new(packed, shape);
    split_qkv_kernel::launch(
        &packed.client,
        count,
        dim,
        vector,
        buffer(packed),
        buffer(query_bias),
        buffer(key_bias),
        buffer(value_bias),
        buffer(query),
        buffer(key),
        buffer(value),
        tokens,
        heads,
        size,
        shape.scale(),
        element(packed.dtype),
    );
    outputs
}

/// The packed gradient `[B·T, 3·H]` of the projections from the gradients `[B·A, T, D]` of queries, keys and values.
pub fn merge_qkv(gradients: [&CubeTensor; 3], shape: AttentionShape) -> CubeTensor {
    let [query, key, value] = gradients;
    let packed = empty(query, [shape.rows(), 3 * shape.width()], query.dtype);
    let Launch { count, dim, vector, sizes: [tokens, heads, size] } = Launch::new(&packed, shape);
    merge_qkv_kernel::launch(
        &packed.client,
        count,
        dim,
        vector,
        buffer(query),
        buffer(key),
        buffer(value),
        buffer(&packed),
        tokens,
        heads,
        size,
        shape.scale(),
        element(packed.dtype),
    );
    packed
}

/// Concatenates the heads: `[B·A, T, D]` to `[B·T, H]`.
pub fn merge_heads(heads: &CubeTensor, shape: AttentionShape) -> CubeTensor {
    let merged = empty(heads, [shape.rows(), shape.width()], heads.dtype);
    let Launch { count, dim, vector, sizes: [tokens, count_of_heads, size] } = Launch::new(heads, shape);
    let element = element(heads.dtype);
    let (input, output) = (buffer(heads), buffer(&merged));
    merge_heads_kernel::launch(&heads.client, count, dim, vector, input, output, tokens, count_of_heads, size, element);
    merged
}

/// Separates the heads: `[B·T, H]` to `[B·A, T, D]`.
pub fn split_heads(rows: &CubeTensor, shape: AttentionShape) -> CubeTensor {
    let split = empty(rows, shape.heads_shape(), rows.dtype);
    let Launch { count, dim, vector, sizes: [tokens, heads, size] } = Launch::new(rows, shape);
    let element = element(rows.dtype);
    split_heads_kernel::launch(
        &rows.client,
        count,
        dim,
        vector,
        buffer(rows),
        buffer(&split),
        tokens,
        heads,
        size,
        element,
    );
    split
}
