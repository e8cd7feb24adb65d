//! Rows of gradients added to a table, in a fixed order.

use burn::tensor::Tensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, contiguous, cubes, element};
use super::rows::sum_of_lanes;
use super::{integers, primitive, tensor};

/// Adds row i of `rows` to row `ids[i]` of `table`, in order. One cube per i, of which only the first with its id works:
/// it adds all rows of this id.
#[cube(launch)]
fn add_rows_kernel<E: Float>(table: &mut [f32], ids: &[u32], rows: &[E], width: u32, #[define(E)] _element: ElemType) {
    let own = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let count = ids.len() as u32;
    if own < count {
        let id = ids[own as usize];
        let mut earlier = 0.0f32;
        let mut other = UNIT_POS_X;
        while other < own {
            earlier += select(ids[other as usize] == id, 1.0f32, 0.0f32);
            other += UNITS;
        }
        if sum_of_lanes(earlier, UNITS, 0u32) == 0.0f32 {
            // Search the ids by blocks, most of which do not contain this one.
            let mut block = own - own % UNITS;
            while block < count {
                let place = block + UNIT_POS_X;
                let is_there = place >= own && place < count;
                let found = is_there && ids[min(place, count - 1) as usize] == id;
                if sum_of_lanes(select(found, 1.0f32, 0.0f32), UNITS, 0u32) > 0.0f32 {
                    let end = min(block + UNITS, count);
                    let mut row = max(block, own);
                    while row < end {
                        if ids[row as usize] == id {
                            let mut column = UNIT_POS_X;
                            while column < width {
                                let to = (id * width + column) as usize;
                                table[to] += f32::cast_from(rows[(row * width + column) as usize]);
                                column += UNITS;
                            }
                        }
                        row += 1u32;
                    }
                }
                block += UNITS;
            }
        }
    }
}

/// See [`crate::ops::optimizer::add_rows`]; in place if `table` is uniquely owned.
pub fn add_rows(table: Tensor<2>, ids: Tensor<1, burn::tensor::Int>, rows: Tensor<2>) -> Tensor<2> {
    let (table, ids, rows) = (primitive(table), contiguous(integers(ids)), contiguous(primitive(rows)));
    let table = if table.can_mut() { contiguous(table) } else { table.copy() };
    let (count, width) = (ids.meta.num_elements(), rows.meta.shape()[1]);
    let count_of_cubes = cubes(count, 1);
    let (inputs, element) = ((buffer(&ids), buffer(&rows)), element(rows.dtype));
    let dim = CubeDim::new_1d(UNITS);
    add_rows_kernel::launch(
        &table.client,
        count_of_cubes,
        dim,
        buffer(&table),
        inputs.0,
        inputs.1,
        width as u32,
        element,
    );
    tensor(table)
}
