//! The control of a step on a GPU: the gradient's norm, clipping and the loss scale.

use burn::backend::DType;
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{CHUNKS, CONTROLS, CORRECTION1, CORRECTION2, GRADIENT_SCALE, IS_TAKEN, LEARNING_RATE, NORM, group_size};
use crate::ops::cube::launch::{UNITS, buffer, contiguous, empty};
use crate::ops::cube::rows::sum_of_lanes;
use crate::ops::cube::{primitive, tensor};
use crate::ops::optimizer::StepSettings;

/// See [`crate::ops::optimizer::Control::on_device`].
pub fn step_control(gradients: Vec<Tensor<2>>, settings: &StepSettings, loss_scale: &Tensor<1>) -> Tensor<1> {
    let StepSettings { learning_rate, corrections: [first, second], clip, growth } = *settings;
    let settings = [learning_rate, first, second, clip.unwrap_or(0.0), growth.unwrap_or(0.0)].map(|x| x as f32);
    let settings = Tensor::<1>::from_data(&settings[..], &loss_scale.device());
    let gradients: Vec<CubeTensor> = gradients.into_iter().map(|gradient| contiguous(primitive(gradient))).collect();
    tensor(control(&gradients, &primitive(settings), &primitive(loss_scale.clone())))
}

/// The control of a step, `[6]`, from all gradients. `settings` `[5]` are the learning rate, both bias corrections, the
/// limit of the norm and the loss scale's growth interval (each 0 for none). `loss_scale` `[2]` is updated in place.
fn control(gradients: &[CubeTensor], settings: &CubeTensor, loss_scale: &CubeTensor) -> CubeTensor {
    let client = &settings.client;
    let partial = empty(settings, [gradients.len().max(1) * CHUNKS as usize], DType::F32);
    let size = group_size(client, 1);
    for (group, tensors) in gradients.chunks(size).enumerate() {
        let arguments: SequenceArg<Box<[f32]>> = tensors.iter().map(buffer).collect();
        let count = CubeCount::Static(CHUNKS, tensors.len() as u32, 1);
        let dim = CubeDim::new_1d(UNITS);
        let first = (group * size) as u32;
        squares_kernel::launch(client, count, dim, arguments, buffer(&partial), first, tensors.len());
    }
    let control = empty(settings, [CONTROLS], DType::F32);
    let (count, dim) = (CubeCount::Static(1, 1, 1), CubeDim::new_1d(UNITS));
    let inputs = (buffer(&partial), buffer(settings));
    control_kernel::launch(client, count, dim, inputs.0, inputs.1, buffer(loss_scale), buffer(&control));
    control
}

/// Whether a number is neither infinite nor NaN.
#[cube]
fn is_finite(x: f32) -> bool {
    (x).abs() <= 3.402_823_4e38f32
}

/// Partial sums of the squares of several tensors, [`CHUNKS`] for each.
#[cube(launch)]
fn squares_kernel(tensors: &Sequence<Box<[f32]>>, partial: &mut [f32], first: u32, #[comptime] count: usize) {
    #[unroll]
    for number in 0..count {
        if CUBE_POS_Y as usize == number {
            let tensor = tensors.index(number);
            let mut sum = 0.0f32;
            let mut at = CUBE_POS_X * UNITS + UNIT_POS_X;
            while at < tensor.len() as u32 {
                let value = tensor[at as usize];
                sum += value * value;
                at += CHUNKS * UNITS;
            }
            let sum = sum_of_lanes(sum, UNITS, 0u32);
            if UNIT_POS_X == 0 {
                partial[((first + comptime!(number as u32)) * CHUNKS + CUBE_POS_X) as usize] = sum;
            }
        }
    }
}

/// Sums the partial sums and computes the step's control; one cube.
#[cube(launch)]
fn control_kernel(partial: &[f32], inputs: &[f32], loss_scale: &mut [f32], control: &mut [f32]) {
    let mut sum = 0.0f32;
    let mut at = UNIT_POS_X as usize;
    while at < partial.len() {
        sum += partial[at];
        at += UNITS as usize;
    }
    let sum = sum_of_lanes(sum, UNITS, 0u32);
    if UNIT_POS_X == 0 {
        let (limit, growth) = (inputs[3], inputs[4]);
        let factor = loss_scale[0];
        let norm = (sum).sqrt() / factor;
        let is_good = is_finite(norm);
        let clipped = select(limit > 0.0f32, min(limit / (norm + 1e-6f32), 1.0f32), 1.0f32);
        control[GRADIENT_SCALE] = clipped / factor;
        control[LEARNING_RATE] = inputs[0];
        control[CORRECTION1] = inputs[1];
        control[CORRECTION2] = inputs[2];
        control[IS_TAKEN] = select(is_good, 1.0f32, 0.0f32);
        control[NORM] = norm;
        // The loss scale of `f16` doubles after `growth` finite steps and halves after any other; `growth` 0 for no
        // scale.
        if growth > 0.0f32 {
            let good = select(is_good, loss_scale[1] + 1.0f32, 0.0f32);
            let grows = good >= growth;
            let grown = select(grows, factor * 2.0f32, factor);
            loss_scale[0] = select(is_good, grown, factor * 0.5f32);
            loss_scale[1] = select(grows, 0.0f32, good);
        }
    }
}
