//! Rows of gradients added to a table, in a fixed order.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, contiguous, cubes, element, owned};
use super::rows::sum_of_lanes;
use super::{integers, primitive, tensor};

/// Adds row i of `rows` to row `ids[i]` of `table`, in order. One cube per i, of which only the first with its id
/// works: it adds all rows of this id.
#[cube(launch)]
fn add_rows_kernel<T: Float, E: Float>(
    table: &mut [T],
    ids: &[u32],
    rows: &[E],
    width: u32,
    #[define(T)] _sum: ElemType,
    #[define(E)] _element: ElemType,
) {
    let own = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let count = ids.len() as u32;
    if own < count {
        let id = ids[own as usize];
        let mut earlier = 0.0f32;
        let mut later = 0.0f32;
        let mut other = UNIT_POS_X;
        while other < count {
            let is_same = ids[other as usize] == id;
            earlier += select(is_same && other < own, 1.0f32, 0.0f32);
            later += select(is_same && other > own, 1.0f32, 0.0f32);
            other += UNITS;
        }
        if sum_of_lanes(earlier, UNITS, 0u32) == 0.0f32 {
            add_row(table, rows, id, own, width);
            let mut missing = sum_of_lanes(later, UNITS, 0u32);
            // Search the ids by blocks, most of which do not contain this one.
            let mut block = own - own % UNITS;
            while missing > 0.0f32 {
                let place = block + UNIT_POS_X;
                let is_there = place > own && place < count;
                let found = is_there && ids[min(place, count - 1) as usize] == id;
                let found = sum_of_lanes(select(found, 1.0f32, 0.0f32), UNITS, 0u32);
                if found > 0.0f32 {
                    let end = min(block + UNITS, count);
                    let mut row = max(block, own + 1);
                    while row < end {
                        if ids[row as usize] == id {
                            add_row(table, rows, id, row, width);
                        }
                        row += 1u32;
                    }
                }
                missing -= found;
                block += UNITS;
            }
        }
    }
}

/// Adds row `row` of `rows` to row `id` of `table`.
#[cube]
fn add_row<T: Float, E: Float>(table: &mut [T], rows: &[E], id: u32, row: u32, width: u32) {
    let mut column = UNIT_POS_X;
    while column < width {
        let to = (id * width + column) as usize;
        let sum = f32::cast_from(table[to]) + f32::cast_from(rows[(row * width + column) as usize]);
        table[to] = T::cast_from(sum);
        column += UNITS;
    }
}

/// Adds the contiguous `rows` `[N, H]` to the rows `ids` `[N]` of the contiguous `table` `[R, H]`, in place. Each sum
/// is rounded to the table's number type; in half precision, few ids should repeat.
pub fn add_rows_to(table: &CubeTensor, ids: &CubeTensor, rows: &CubeTensor) {
    let (count, width) = (ids.meta.num_elements(), rows.meta.shape()[1]);
    add_rows_kernel::launch(
        &table.client,
        cubes(count, 1),
        CubeDim::new_1d(UNITS),
        buffer(table),
        buffer(ids),
        buffer(rows),
        width as u32,
        element(table.dtype),
        element(rows.dtype),
    );
}

/// See [`crate::ops::optimizer::add_rows`]; in place if `table` is uniquely owned.
pub fn add_rows(table: Tensor<2>, ids: Tensor<1, burn::tensor::Int>, rows: Tensor<2>) -> Tensor<2> {
    let (table, ids, rows) = (primitive(table), contiguous(integers(ids)), contiguous(primitive(rows)));
    let table = owned(table);
    add_rows_to(&table, &ids, &rows);
    tensor(table)
}
