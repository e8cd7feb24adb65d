//! Cross-entropy over many classes without a second copy of the logits: the backward pass overwrites them with their
//! gradient.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Cube, DType, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{RowGrid, buffer, contiguous, element, empty, owned};
use super::rows::{max_of_lanes, row, sum_of_lanes};
use crate::ops::autodiff::{Differentiable, apply};

/// The loss of each row, and the logarithm of its sum of exponentials.
#[cube(launch)]
fn losses_kernel<E: Float>(
    logits: &[E],
    targets: &[u32],
    losses: &mut [f32],
    log_sums: &mut [f32],
    classes: u32,
    #[comptime] lanes: u32,
    #[comptime] plane: u32,
    #[define(E)] _element: ElemType,
) {
    let row = row();
    let rows = losses.len();
    let start = min(row, rows - 1) * classes as usize;
    let mut highest = f32::cast_from(logits[start]);
    let mut class = UNIT_POS_X;
    while class < classes {
        highest = max(highest, f32::cast_from(logits[start + class as usize]));
        class += lanes;
    }
    let highest = max_of_lanes(highest, lanes, plane);
    let mut sum = 0.0f32;
    let mut class = UNIT_POS_X;
    while class < classes {
        sum += (f32::cast_from(logits[start + class as usize]) - highest).exp();
        class += lanes;
    }
    let log_sum = highest + (sum_of_lanes(sum, lanes, plane)).ln();
    if UNIT_POS_X == 0 {
        if row < rows {
            losses[row] = log_sum - f32::cast_from(logits[start + targets[row] as usize]);
            log_sums[row] = log_sum;
        }
    }
}

/// Replaces the logits by their gradient, `(softmax(logits) − one_hot(target)) · gradient`.
#[cube(launch)]
fn gradient_kernel<E: Float>(
    logits: &mut [E],
    targets: &[u32],
    log_sums: &[f32],
    gradient: &[f32],
    classes: u32,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < logits.len() {
        let row = at / classes as usize;
        let probability = (f32::cast_from(logits[at]) - log_sums[row]).exp();
        let is_target = select(at as u32 % classes == targets[row], 1.0f32, 0.0f32);
        logits[at] = E::cast_from((probability - is_target) * gradient[row]);
    }
}

/// Cross-entropy on a GPU.
#[backend_extension(Cube, Autodiff)]
pub trait CrossEntropyOps: Backend {
    /// The losses `[N]`, in `f32`, of logits `[N, C]` and targets `[N]`.
    fn gpu_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self>;
}

impl CrossEntropyOps for Cube {
    fn gpu_cross_entropy(logits: CubeTensor, targets: CubeTensor) -> CubeTensor {
        GpuCrossEntropy { targets }.forward([logits]).0
    }
}

/// [`CrossEntropyOps::gpu_cross_entropy`] for autodiff.
#[derive(Debug, Clone)]
struct GpuCrossEntropy {
    targets: CubeTensor,
}

impl Differentiable<Cube, 1> for GpuCrossEntropy {
    /// The logits, and the logarithm of each row's sum of exponentials.
    type Saved = [CubeTensor; 2];

    fn forward(&self, [logits]: [CubeTensor; 1]) -> (CubeTensor, Self::Saved) {
        let logits = contiguous(logits);
        let [rows, classes] = [logits.meta.shape()[0], logits.meta.shape()[1]];
        let [losses, log_sums] = [(); 2].map(|()| empty(&logits, [rows], DType::F32));
        let grid = RowGrid::new(&logits, classes, 1);
        let (count, dim) = grid.launch(rows);
        let targets = contiguous(self.targets.clone());
        let (inputs, outputs) = ((buffer(&logits), buffer(&targets)), (buffer(&losses), buffer(&log_sums)));
        let (classes, element) = (classes as u32, element(logits.dtype));
        losses_kernel::launch(
            &logits.client,
            count,
            dim,
            inputs.0,
            inputs.1,
            outputs.0,
            outputs.1,
            classes,
            grid.lanes,
            grid.plane,
            element,
        );
        (losses, [logits, log_sums])
    }

    fn backward(
        self,
        [logits, log_sums]: Self::Saved,
        gradient: CubeTensor,
        _wanted: [bool; 1],
    ) -> [Option<CubeTensor>; 1] {
        let gradient = contiguous(gradient);
        let logits = owned(logits);
        let (count, dim) = super::launch::elementwise(logits.meta.num_elements());
        let targets = contiguous(self.targets);
        let inputs = (buffer(&targets), buffer(&log_sums), buffer(&gradient));
        let classes = logits.meta.shape()[1] as u32;
        gradient_kernel::launch(
            &logits.client,
            count,
            dim,
            buffer(&logits),
            inputs.0,
            inputs.1,
            inputs.2,
            classes,
            element(logits.dtype),
        );
        [Some(logits)]
    }
}

impl<C: CheckpointStrategy> CrossEntropyOps for Autodiff<Cube, C> {
    fn gpu_cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        apply::<_, Cube, C, 1>(GpuCrossEntropy { targets }, [logits])
    }
}

/// See [`crate::ops::cross_entropy()`].
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, burn::tensor::Int>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::gpu_cross_entropy(logits.into_dispatch(), targets.into_dispatch()))
}
