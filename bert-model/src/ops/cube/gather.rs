//! Selection of rows of a matrix, with a gradient whose sums have a fixed order.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, contiguous, cubes, element, elementwise, empty};
use super::rows::sum_of_lanes;
use crate::ops::autodiff::{Differentiable, apply};

/// Copies the rows `positions` of `x`.
#[cube(launch)]
fn gather_kernel<E: Float>(x: &[E], positions: &[u32], rows: &mut [E], width: u32, #[define(E)] _element: ElemType) {
    let at = ABSOLUTE_POS;
    if at < rows.len() {
        let (row, column) = (at as u32 / width, at as u32 % width);
        rows[at] = x[(positions[row as usize] * width + column) as usize];
    }
}

/// Sums the gradients of all copies of each row; one cube per row.
#[cube(launch)]
fn scatter_kernel<E: Float>(
    gradient: &[E],
    positions: &[u32],
    dx: &mut [E],
    width: u32,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if row < dx.len() as u32 / width {
        let count = positions.len() as u32;
        let mut found = 0.0f32;
        let mut gathered = UNIT_POS_X;
        while gathered < count {
            found += select(positions[gathered as usize] == row, 1.0f32, 0.0f32);
            gathered += UNITS;
        }
        let is_gathered = sum_of_lanes(found, UNITS, 0u32) > 0.0f32;
        let mut column = UNIT_POS_X;
        while column < width {
            let mut sum = 0.0f32;
            if is_gathered {
                let mut gathered = 0u32;
                while gathered < count {
                    if positions[gathered as usize] == row {
                        sum += f32::cast_from(gradient[(gathered * width + column) as usize]);
                    }
                    gathered += 1u32;
                }
            }
            dx[(row * width + column) as usize] = E::cast_from(sum);
            column += UNITS;
        }
    }
}

/// Selection of rows on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait GatherOps: Backend {
    /// Shapes: `x` `[R, H]`, `positions` `[M]`, output `[M, H]`.
    fn gpu_gather(x: FloatTensor<Self>, positions: IntTensor<Self>) -> FloatTensor<Self>;
}

impl GatherOps for Cube {
    fn gpu_gather(x: CubeTensor, positions: CubeTensor) -> CubeTensor {
        Gather { positions }.forward([x]).0
    }
}

/// [`GatherOps::gpu_gather`] for autodiff.
#[derive(Debug, Clone)]
struct Gather {
    positions: CubeTensor,
}

impl Differentiable<Cube, 1> for Gather {
    /// The number of rows of `x`.
    type Saved = usize;

    fn forward(&self, [x]: [CubeTensor; 1]) -> (CubeTensor, usize) {
        let (x, positions) = (contiguous(x), contiguous(self.positions.clone()));
        let ([rows, width], count) = ([x.meta.shape()[0], x.meta.shape()[1]], positions.meta.num_elements());
        let output = empty(&x, [count, width], x.dtype);
        let (cubes, dim) = elementwise(count * width);
        let inputs = (buffer(&x), buffer(&positions));
        gather_kernel::launch(
            &x.client,
            cubes,
            dim,
            inputs.0,
            inputs.1,
            buffer(&output),
            width as u32,
            element(x.dtype),
        );
        (output, rows)
    }

    fn backward(self, rows: usize, gradient: CubeTensor, _wanted: [bool; 1]) -> [Option<CubeTensor>; 1] {
        let (gradient, positions) = (contiguous(gradient), contiguous(self.positions));
        let width = gradient.meta.shape()[1];
        let dx = empty(&gradient, [rows, width], gradient.dtype);
        let dim = CubeDim::new_1d(UNITS);
        let inputs = (buffer(&gradient), buffer(&positions));
        scatter_kernel::launch(
            &gradient.client,
            cubes(rows, 1),
            dim,
            inputs.0,
            inputs.1,
            buffer(&dx),
            width as u32,
            element(gradient.dtype),
        );
        [Some(dx)]
    }
}

impl<C: CheckpointStrategy> GatherOps for Autodiff<Cube, C> {
    fn gpu_gather(x: FloatTensor<Self>, positions: IntTensor<Self>) -> FloatTensor<Self> {
        apply::<_, Cube, C, 1>(Gather { positions }, [x])
    }
}

/// See [`crate::ops::gather_rows`].
pub fn gather_rows(x: Tensor<2>, positions: Tensor<1, burn::tensor::Int>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::gpu_gather(x.into_dispatch(), positions.into_dispatch()))
}
