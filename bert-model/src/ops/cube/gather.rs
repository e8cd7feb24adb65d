//! Selection of rows of a matrix, with a gradient whose sums have a fixed order.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, Dispatch, Shape, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::ops::numeric::zeros;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::add_rows::add_rows_to;
use super::launch::{buffer, contiguous, element, elementwise, empty};
use super::rows::reshaped;
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
        // As a vector, which is contiguous on every device.
        let dx = reshaped(zeros(gradient.device.clone(), Shape::from([rows * width]), gradient.dtype), [rows, width]);
        add_rows_to(&dx, &positions, &gradient);
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
