//! Sums and maxima along the rows of a matrix, over the lanes of a cube, and sums down its columns.

use burn::backend::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, element, empty, vector_size};

/// The row of this unit. It is past the last row for units of a cube that is not full.
#[cube]
pub fn row() -> usize {
    ((CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_Y + UNIT_POS_Y) as usize
}

/// The sum of a vector's elements, in their order.
#[cube]
pub fn sum_of_vector<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for element in 0..N::value() {
        sum += vector.extract(element);
    }
    sum
}

/// The sum of a value over the lanes of a row, returned in every lane. Summed pairwise, in a fixed order.
#[cube]
pub fn sum_of_lanes(value: f32, #[comptime] lanes: u32, #[comptime] plane: u32) -> f32 {
    if comptime!(plane == lanes) {
        plane_sum(value)
    } else {
        let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
        let unit = UNIT_POS as usize;
        shared[unit] = value;
        sync_cube();
        #[unroll]
        for step in 0..comptime!(lanes.trailing_zeros()) {
            let distance = comptime!(lanes >> (step + 1));
            if UNIT_POS_X < distance {
                let other = shared[unit + distance as usize];
                shared[unit] += other;
            }
            sync_cube();
        }
        let total = shared[(UNIT_POS - UNIT_POS_X) as usize];
        // All lanes must have read the total before a faster one reuses this memory.
        sync_cube();
        total
    }
}

/// The maximum of a value over the lanes of a row, returned in every lane.
#[cube]
pub fn max_of_lanes(value: f32, #[comptime] lanes: u32, #[comptime] plane: u32) -> f32 {
    if comptime!(plane == lanes) {
        plane_max(value)
    } else {
        let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
        let unit = UNIT_POS as usize;
        shared[unit] = value;
        sync_cube();
        #[unroll]
        for step in 0..comptime!(lanes.trailing_zeros()) {
            let distance = comptime!(lanes >> (step + 1));
            if UNIT_POS_X < distance {
                let other = shared[unit + distance as usize];
                shared[unit] = max(shared[unit], other);
            }
            sync_cube();
        }
        let total = shared[(UNIT_POS - UNIT_POS_X) as usize];
        // All lanes must have read the total before a faster one reuses this memory.
        sync_cube();
        total
    }
}

/// Columns per cube in sums down columns.
const COLUMNS: u32 = 32;
/// Units per column in sums down columns.
const SHARERS: u32 = UNITS / COLUMNS;

/// The sum of a value over the units of a column, in their order. Every unit returns it.
#[cube]
pub fn sum_of_column(value: f32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for sharer in 0..SHARERS {
        sum += shared[(sharer * COLUMNS + UNIT_POS_X) as usize];
    }
    sync_cube();
    sum
}

/// The launch size of sums down columns (or vectors of columns), with cubes of [`COLUMNS`] columns by [`SHARERS`] rows.
pub fn column_cubes(columns: usize, chunks: usize) -> (CubeCount, CubeDim) {
    let across = columns.div_ceil(COLUMNS as usize).max(1) as u32;
    (CubeCount::Static(across, chunks as u32, 1), CubeDim::new_2d(COLUMNS, SHARERS))
}

/// The number of chunks of rows in the first pass of a sum down columns, so that a large GPU is busy.
pub fn chunks(rows: usize, columns: usize) -> usize {
    let across = columns.div_ceil(COLUMNS as usize).max(1);
    (1024 / across).clamp(1, rows.div_ceil(4 * SHARERS as usize).max(1))
}

/// [`sum_of_column`] for each element of a vector.
#[cube]
pub fn sums_of_columns<N: Size>(values: Vector<f32, N>) -> Vector<f32, N> {
    let mut sums = values;
    #[unroll]
    for element in 0..N::value() {
        sums.insert(element, sum_of_column(values.extract(element)));
    }
    sums
}

/// Sums down the columns, in vectors, of each chunk of rows.
#[cube(launch)]
fn column_sums<E: Float, N: Size>(
    x: &[Vector<E, N>],
    sums: &mut [Vector<f32, N>],
    rows: u32,
    columns: u32,
    #[define(E)] _element: ElemType,
) {
    let column = CUBE_POS_X * COLUMNS + UNIT_POS_X;
    let each = (rows + CUBE_COUNT_Y - 1) / CUBE_COUNT_Y;
    let end = min(rows, (CUBE_POS_Y + 1) * each);
    let mut sum = Vector::<f32, N>::new(0.0f32);
    if column < columns {
        let mut row = CUBE_POS_Y * each + UNIT_POS_Y;
        while row < end {
            sum += Vector::cast_from(x[(row * columns + column) as usize]);
            row += SHARERS;
        }
    }
    let total = sums_of_columns::<N>(sum);
    if UNIT_POS_Y == 0 {
        if column < columns {
            sums[(CUBE_POS_Y * columns + column) as usize] = total;
        }
    }
}

/// The sum of the rows of a contiguous matrix: `[columns]`, in `f32`.
pub fn sum_rows(x: &CubeTensor, rows: usize, columns: usize) -> CubeTensor {
    let vector = vector_size(x, columns, 4);
    let across = columns / vector;
    let sum = |x: &CubeTensor, rows: usize, chunks: usize| {
        let sums = empty(x, [chunks, columns], DType::F32);
        let (count, dim) = column_cubes(across, chunks);
        let (inputs, size) = ((buffer(x), buffer(&sums)), [rows as u32, across as u32]);
        column_sums::launch(&x.client, count, dim, vector, inputs.0, inputs.1, size[0], size[1], element(x.dtype));
        sums
    };
    let chunks = chunks(rows, across);
    let mut sums = sum(x, rows, chunks);
    if chunks > 1 {
        sums = sum(&sums, chunks, 1);
    }
    reshaped(sums, [columns])
}

/// A contiguous tensor reshaped to as many elements.
pub fn reshaped(x: CubeTensor, shape: impl Into<burn::backend::Shape>) -> CubeTensor {
    CubeTensor::new_contiguous(x.client, x.device, shape.into(), x.handle, x.dtype)
}
