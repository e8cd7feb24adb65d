//! Sums and maxima along the rows of a matrix, over the lanes of a cube, and sums down its columns.

use burn::backend::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, element, empty};

/// The row of this unit. It is past the last row for units of a cube that is not full.
#[cube]
pub fn row() -> usize {
    ((CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_Y + UNIT_POS_Y) as usize
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

/// The launch size of sums down columns, with cubes of [`COLUMNS`] columns by [`SHARERS`] rows.
pub fn column_cubes(columns: usize, chunks: usize) -> (CubeCount, CubeDim) {
    let across = columns.div_ceil(COLUMNS as usize).max(1) as u32;
    (CubeCount::Static(across, chunks as u32, 1), CubeDim::new_2d(COLUMNS, SHARERS))
}

/// The number of chunks of rows in the first pass of a sum down columns, so that a large GPU is busy.
pub fn chunks(rows: usize, columns: usize) -> usize {
    let across = columns.div_ceil(COLUMNS as usize).max(1);
    (1024 / across).clamp(1, rows.div_ceil(4 * SHARERS as usize).max(1))
}

/// Sums down the columns of each chunk of rows.
#[cube(launch)]
fn column_sums<E: Float>(x: &[E], sums: &mut [f32], rows: u32, columns: u32, #[define(E)] _element: ElemType) {
    let column = CUBE_POS_X * COLUMNS + UNIT_POS_X;
    let each = (rows + CUBE_COUNT_Y - 1) / CUBE_COUNT_Y;
    let end = min(rows, (CUBE_POS_Y + 1) * each);
    let mut sum = 0.0f32;
    if column < columns {
        let mut row = CUBE_POS_Y * each + UNIT_POS_Y;
        while row < end {
            sum += f32::cast_from(x[(row * columns + column) as usize]);
            row += SHARERS;
        }
    }
    let total = sum_of_column(sum);
    if UNIT_POS_Y == 0 {
        if column < columns {
            sums[(CUBE_POS_Y * columns + column) as usize] = total;
        }
    }
}

/// The sum of the rows of a contiguous matrix: `[columns]`, in `f32`.
pub fn sum_rows(x: &CubeTensor, rows: usize, columns: usize) -> CubeTensor {
    let sum = |x: &CubeTensor, rows: usize, chunks: usize| {
        let sums = empty(x, [chunks, columns], DType::F32);
        let (count, dim) = column_cubes(columns, chunks);
        let size = [rows as u32, columns as u32];
        column_sums::launch(&x.client, count, dim, buffer(x), buffer(&sums), size[0], size[1], element(x.dtype));
        sums
    };
    let chunks = chunks(rows, columns);
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
