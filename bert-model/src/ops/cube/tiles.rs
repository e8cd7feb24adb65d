//! Matrix products without tensor cores, in registers: those of `f32` on all devices but CUDA's, and of half precision
//! where a device has no tensor cores that CubeCL can use.
//!
//! Each cube (thread block) computes a square tile of the output, and each of its units (threads) 8 × 8 elements of it.
//! Slices of the operands pass through shared memory; while one is multiplied, the next is on its way from the GPU's
//! memory. Where the output has few tiles, as the gradients of weights have, the inner extent is divided among several
//! cubes, whose sums are added in a fixed order.

use burn::backend::DType;
use burn_cubecl::kernel::cast;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::launch::{buffer, contiguous, cubes, element, empty, vector_size};
use super::product::Layout;
use super::rows::{reshaped, sum_rows};

/// Rows and columns of a tile, and the inner extent of a slice. Of 64 and 128 by 16 and 32, these were fastest on an
/// NVIDIA H200.
const TILE: u32 = 64;
const DEPTH: u32 = 16;

/// Elements of a vector in shared memory. Operands are loaded in blocks of as many rows and columns.
const BLOCK: u32 = 4;
type Block = Const<4>;

/// Blocks along a side of a tile.
const ACROSS: u32 = TILE / BLOCK;

/// Units of a cube. Each computes four blocks of the output and loads a block of each operand's slice.
const UNITS: u32 = ACROSS * ACROSS / 4;
const _: () = assert!(UNITS == ACROSS * DEPTH / BLOCK);

/// Units that read shared memory at the same time. They lie 4 × 8 in the tile, so that they read few different vectors.
const PLANE: u32 = 32;

/// Loads a block of an operand: a vector along the output for each of [`BLOCK`] inner positions. `outer` and `inner`
/// are its first positions along the output and along the inner extent, `begin` is where the matrix begins. What lies
/// beyond the inner extent `end` is zero; beyond `extent` the last elements are repeated, for outputs that are not
/// stored.
#[cube]
fn load<E: Float, N: Size>(
    x: &[Vector<E, N>],
    block: &mut Array<Vector<f32, Block>>,
    outer: u32,
    inner: u32,
    extent: u32,
    end: u32,
    begin: u32,
    stride: u32,
    #[comptime] is_inner_contiguous: bool,
) {
    let width = N::value().comptime() as u32;
    let mut lines = Array::<Vector<f32, Block>>::new(comptime!(BLOCK as usize));
    #[unroll]
    for line in 0..BLOCK {
        let mut values = Vector::<f32, Block>::new(0.0f32);
        #[unroll]
        for part in 0..comptime!(BLOCK / width) {
            let along = comptime!(part * width);
            let position = if comptime!(is_inner_contiguous) { inner + along } else { inner + line };
            if position < end {
                let first = if comptime!(is_inner_contiguous) {
                    min(outer + line, extent - 1) * stride + position
                } else {
                    position * stride + min(outer + along, extent - width)
                };
                let vector = x[((begin + first) / width) as usize];
                #[unroll]
                for element in 0..width {
                    let value = f32::cast_from(vector.extract(comptime!(element as usize)));
                    values.insert(comptime!((part * width + element) as usize), value);
                }
            }
        }
        lines[line as usize] = values;
    }
    #[unroll]
    for position in 0..BLOCK {
        let mut values = lines[position as usize];
        if comptime!(is_inner_contiguous) {
            #[unroll]
            for line in 0..BLOCK {
                let value = lines[line as usize].extract(comptime!(position as usize));
                values.insert(comptime!(line as usize), value);
            }
        }
        block[position as usize] = values;
    }
}

/// The position of block number `index` of an operand's slice: along the output and along the inner extent, in blocks.
/// Neighboring units load what is neighboring in memory.
#[cube]
fn block_position(index: u32, #[comptime] is_inner_contiguous: bool) -> (u32, u32) {
    if comptime!(is_inner_contiguous) {
        (index / comptime!(DEPTH / BLOCK), index % comptime!(DEPTH / BLOCK))
    } else {
        (index % ACROSS, index / ACROSS)
    }
}

/// Where shared memory holds the vector `outer` (in blocks) of inner position `inner`. Vectors of different blocks
/// are shuffled, so that the units that write a slice at the same time use different banks.
#[cube]
fn place(outer: u32, inner: u32) -> usize {
    (inner * ACROSS + (outer ^ (2u32 * (inner / BLOCK)))) as usize
}

/// Stores a loaded block in shared memory.
#[cube]
fn store(block: &Array<Vector<f32, Block>>, slice: &mut Shared<[Vector<f32, Block>]>, outer: u32, inner: u32) {
    #[unroll]
    for position in 0..BLOCK {
        slice[place(outer, inner * BLOCK + position)] = block[position as usize];
    }
}

/// The products of a batch, or parts of one product. Cube number c, of `cubes` that have work, computes tile c mod T of
/// T, of part c div T. Part number p belongs to the matrices p div `parts`, and is the inner positions from (p mod
/// `parts`)·`depth` on.
#[cube(launch_unchecked)]
fn tiles<E: Float, O: Float, L: Size, R: Size, N: Size>(
    lhs: &[Vector<E, L>],
    rhs: &[Vector<E, R>],
    output: &mut [Vector<O, N>],
    cubes: u32,
    rows: u32,
    inner: u32,
    columns: u32,
    lhs_stride: u32,
    lhs_batch: u32,
    rhs_stride: u32,
    rhs_batch: u32,
    parts: u32,
    depth: u32,
    #[comptime] is_lhs_inner_contiguous: bool,
    #[comptime] is_rhs_inner_contiguous: bool,
    #[define(E)] _element: ElemType,
    #[define(O)] _output_element: ElemType,
) {
    let (tiles_down, tiles_across) = ((rows + TILE - 1) / TILE, (columns + TILE - 1) / TILE);
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube >= cubes {
        terminate!();
    }
    let part = cube / (tiles_down * tiles_across);
    let first_row = ((cube / tiles_across) % tiles_down) * TILE;
    let first_column = (cube % tiles_across) * TILE;
    let (lhs_begin, rhs_begin) = ((part / parts) * lhs_batch, (part / parts) * rhs_batch);
    let mut position = (part % parts) * depth;
    let end = min(inner, position + depth);

    // The blocks that this unit loads.
    let (lhs_outer, lhs_inner) = block_position(UNIT_POS, is_lhs_inner_contiguous);
    let (rhs_outer, rhs_inner) = block_position(UNIT_POS, is_rhs_inner_contiguous);
    let (row, column) = (first_row + lhs_outer * BLOCK, first_column + rhs_outer * BLOCK);
    let mut lhs_block = Array::<Vector<f32, Block>>::new(comptime!(BLOCK as usize));
    let mut rhs_block = Array::<Vector<f32, Block>>::new(comptime!(BLOCK as usize));
    let mut lhs_slice = Shared::<[Vector<f32, Block>]>::new_slice(comptime!((DEPTH * ACROSS) as usize));
    let mut rhs_slice = Shared::<[Vector<f32, Block>]>::new_slice(comptime!((DEPTH * ACROSS) as usize));

    // The blocks of the tile that this unit computes: the one at `down` and `right`, and those half a tile away.
    let (plane, lane) = (UNIT_POS / PLANE, UNIT_POS % PLANE);
    let (down, right) = (lane / 8 + 4 * plane, lane % 8);
    let half = comptime!((ACROSS / 2) as usize);
    let mut sums = Array::<Vector<f32, Block>>::new(comptime!((4 * BLOCK) as usize));
    #[unroll]
    for index in 0..comptime!(4 * BLOCK) {
        sums[index as usize] = Vector::new(0.0f32);
    }

    let slices = (end - position + DEPTH - 1) / DEPTH;
    for slice in 0..slices + 1 {
        if slice < slices {
            let (lhs_at, rhs_at) = (position + lhs_inner * BLOCK, position + rhs_inner * BLOCK);
            load(lhs, &mut lhs_block, row, lhs_at, rows, end, lhs_begin, lhs_stride, is_lhs_inner_contiguous);
            load(rhs, &mut rhs_block, column, rhs_at, columns, end, rhs_begin, rhs_stride, is_rhs_inner_contiguous);
            position += DEPTH;
        }
        if slice > 0 {
            #[unroll]
            for inner in 0..DEPTH {
                let (lhs_place, rhs_place) = (place(down, inner), place(right, inner));
                let (left, right) = (rhs_slice[rhs_place], rhs_slice[rhs_place + half]);
                #[unroll]
                for upper in 0..2u32 {
                    let factors = lhs_slice[lhs_place + comptime!(upper as usize * half)];
                    #[unroll]
                    for line in 0..BLOCK {
                        let factor = Vector::<f32, Block>::new(factors.extract(comptime!(line as usize)));
                        let at = comptime!((2 * (upper * BLOCK + line)) as usize);
                        sums[at] = fma(factor, left, sums[at]);
                        sums[at + 1] = fma(factor, right, sums[at + 1]);
                    }
                }
            }
        }
        sync_cube();
        if slice < slices {
            store(&lhs_block, &mut lhs_slice, lhs_outer, lhs_inner);
            store(&rhs_block, &mut rhs_slice, rhs_outer, rhs_inner);
        }
        sync_cube();
    }

    let width = N::value().comptime() as u32;
    #[unroll]
    for line in 0..comptime!(2 * BLOCK) {
        let row = first_row + comptime!(line / BLOCK * TILE / 2 + line % BLOCK) + down * BLOCK;
        if row < rows {
            let begin = (part * rows + row) * columns;
            #[unroll]
            for side in 0..2u32 {
                let sum = sums[comptime!((2 * line + side) as usize)];
                #[unroll]
                for vector in 0..comptime!(BLOCK / width) {
                    let column = first_column + comptime!(side * TILE / 2 + vector * width) + right * BLOCK;
                    if column < columns {
                        let mut values = Vector::<O, N>::empty();
                        #[unroll]
                        for element in 0..width {
                            let value = sum.extract(comptime!((vector * width + element) as usize));
                            values.insert(comptime!(element as usize), O::cast_from(value));
                        }
                        output[((begin + column) / width) as usize] = values;
                    }
                }
            }
        }
    }
}

/// Elements of a matrix per vector: as many as its rows (or columns) can be read in.
fn width_of(x: &CubeTensor, Layout { extent, stride, batch_stride, .. }: Layout) -> usize {
    let begin = x.handle.offset_start.unwrap_or(0) as usize / x.dtype.size();
    let widths = [extent, stride, batch_stride, begin].map(|width| vector_size(x, width, BLOCK as usize));
    widths.into_iter().fold(BLOCK as usize, usize::min)
}

/// The parts into which the inner extent of a product is divided, so that a product with few tiles keeps a large GPU
/// busy, and the extent of each. They depend on no device, so that every device computes the same sums.
fn division(inner: usize, tiles: usize, batch: usize) -> (usize, usize) {
    /// Cubes that keep a large GPU busy.
    const ENOUGH: usize = 1024;
    /// The least inner extent that is worth a part.
    const LEAST: usize = 128;
    let most = if batch == 1 { (inner / LEAST).max(1) } else { 1 };
    let parts = (ENOUGH / tiles.max(1)).clamp(1, most);
    let depth = inner.div_ceil(parts).next_multiple_of(DEPTH as usize).max(1);
    (inner.div_ceil(depth).max(1), depth)
}

/// The products `lhs · rhs` of two matrices, or of a batch of them; see [`super::product::multiply`].
pub fn multiply(lhs: &CubeTensor, rhs: &CubeTensor, dtype: DType) -> CubeTensor {
    let (Some(left), Some(right)) = (Layout::of(lhs), Layout::of(rhs)) else {
        return multiply(&contiguous(lhs.clone()), &contiguous(rhs.clone()), dtype);
    };
    let mut shape = lhs.meta.shape().to_vec();
    let [row, column] = [shape.len() - 2, shape.len() - 1];
    let sizes = [shape[row], shape[column], rhs.meta.shape()[column]];
    let batch: usize = shape[..row].iter().product();
    shape[column] = sizes[2];
    let elements: usize = shape.iter().product();
    let tiles = sizes[0].div_ceil(TILE as usize) * sizes[2].div_ceil(TILE as usize) * batch;
    let (parts, depth) = division(sizes[1], tiles, batch);
    let output = empty(lhs, [parts * elements], if parts > 1 { DType::F32 } else { dtype });
    if elements > 0 {
        launch((lhs, left), (rhs, right), &output, sizes, tiles * parts, [parts, depth]);
    }
    let output = if parts > 1 { cast(sum_rows(&output, parts, elements), dtype) } else { output };
    reshaped(output, shape)
}

/// Launches the kernel with as many cubes for products of the sizes `[rows, inner, columns]`.
fn launch(
    (lhs, left): (&CubeTensor, Layout),
    (rhs, right): (&CubeTensor, Layout),
    output: &CubeTensor,
    sizes: [usize; 3],
    count: usize,
    parts: [usize; 2],
) {
    let ([rows, inner, columns], [parts, depth]) = (sizes.map(|size| size as u32), parts.map(|part| part as u32));
    let size = |size: usize| size as u32;
    // SAFETY: the kernel reads and writes within the matrices only.
    unsafe {
        tiles::launch_unchecked(
            &lhs.client,
            cubes(count, 1),
            CubeDim::new_1d(UNITS),
            width_of(lhs, left),
            width_of(rhs, right),
            vector_size(output, sizes[2], BLOCK as usize),
            buffer(lhs),
            buffer(rhs),
            buffer(output),
            size(count),
            rows,
            inner,
            columns,
            size(left.stride),
            size(left.batch_stride),
            size(right.stride),
            size(right.batch_stride),
            parts,
            depth,
            left.is_by_rows,
            !right.is_by_rows,
            element(lhs.dtype),
            element(output.dtype),
        );
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tensor};

    use super::super::{primitive, tensor};
    use super::*;
    use crate::device::select;
    use crate::ops::cube::product::transposed;

    /// A product of the surplus cubes of a large grid would be written past the output's end.
    #[test]
    fn more_products_than_a_grid_is_wide_write_nothing_else() {
        let Ok(gpu) = select("wgpu") else { return println!("skipped: no Vulkan adapter") };
        let (batch, gpu) = (33_000, gpu.device);
        let matrices = |shape| primitive(Tensor::<3>::ones(shape, &gpu));
        let (lhs, rhs) = (matrices([batch, 2, 3]), matrices([batch, 3, 2]));
        let longer = primitive(Tensor::<1>::zeros([70_000 * 4], &gpu));
        let [left, right] = [&lhs, &rhs].map(|x| Layout::of(x).expect("a layout"));
        launch((&lhs, left), (&rhs, right), &longer, [2, 3, 2], batch, [1, 16]);
        let values: Vec<f32> = tensor::<1>(longer).into_data().iter::<f32>().collect();
        assert!(values[..batch * 4].iter().all(|&value| value == 3.0));
        assert!(values[batch * 4..].iter().all(|&value| value == 0.0));
    }

    /// The products of every layout, of sizes that fill tiles and that do not, whole and in parts, are those of flex.
    #[test]
    fn products_are_those_of_the_cpu() {
        let Ok(gpu) = select("wgpu") else { return println!("skipped: no Vulkan adapter") };
        let (gpu, cpu) = (gpu.device, select("flex").expect("flex").device);
        let sizes = [
            ([1, 1, 1], 1),
            ([3, 2, 5], 1),
            ([64, 64, 64], 1),
            ([129, 31, 70], 1),
            ([130, 768, 3], 1),
            ([20, 1026, 522], 1),
            ([128, 64, 128], 4),
            ([31, 17, 66], 3),
        ];
        for ([rows, inner, columns], batch) in sizes {
            for transposes in [[false, false], [true, false], [false, true], [true, true]] {
                let operand = |[rows, columns]: [usize; 2], is_transposed: bool| {
                    let shape = if is_transposed { [batch, columns, rows] } else { [batch, rows, columns] };
                    Tensor::<3>::random(shape, Distribution::Uniform(-1.0, 1.0), &cpu)
                };
                let lhs = operand([rows, inner], transposes[0]);
                let rhs = operand([inner, columns], transposes[1]);
                let turned = |x: &Tensor<3>, turn: bool| if turn { x.clone().swap_dims(1, 2) } else { x.clone() };
                let expected = turned(&lhs, transposes[0]).matmul(turned(&rhs, transposes[1]));
                let on_gpu = |x: Tensor<3>, turn: bool| {
                    let x = primitive(x.to_device(&gpu));
                    let x = if batch == 1 {
                        let shape = x.meta.shape()[1..].to_vec();
                        reshaped(x, shape)
                    } else {
                        x
                    };
                    if turn { transposed(&x) } else { x }
                };
                let product = multiply(&on_gpu(lhs, transposes[0]), &on_gpu(rhs, transposes[1]), DType::F32);
                let product: Tensor<3> = tensor(reshaped(product, [batch, rows, columns]));
                let (got, expected) = (product.into_data(), expected.into_data());
                let bound = 2e-6 * (inner as f32).sqrt();
                for (got, expected) in got.iter::<f32>().zip(expected.iter::<f32>()) {
                    assert!(
                        (got - expected).abs() <= bound * expected.abs().max(1.0),
                        "{rows}×{inner}×{columns}, {batch}, {transposes:?}: {got} is not {expected}"
                    );
                }
            }
        }
    }
}
