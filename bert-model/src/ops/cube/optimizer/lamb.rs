//! LAMB on a GPU.

use burn::backend::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    CHUNKS, GRADIENT_SCALE, GpuParameter, IS_TAKEN, LEARNING_RATE, buffers, decays_of, direction, group_size, to_f32,
};
use crate::ops::cube::launch::{UNITS, buffer, empty};
use crate::ops::cube::rows::sum_of_lanes;
use crate::ops::optimizer::Constants;

/// A step of LAMB for all parameters, in place.
pub fn lamb(parameters: Vec<GpuParameter>, control: &CubeTensor, constants: Constants) -> Vec<GpuParameter> {
    let client = &control.client;
    let parameters: Vec<GpuParameter> = parameters.into_iter().map(GpuParameter::owned).collect();
    let [beta1, beta2, epsilon, weight_decay] = to_f32(constants);
    for group in parameters.chunks(group_size(client, 4)) {
        let all = |tensor: fn(&GpuParameter) -> &CubeTensor| buffers(group, tensor);
        let decays = decays_of(group);
        let partial = empty(control, [group.len() * CHUNKS as usize * 2], DType::F32);
        let (count, dim) = (CubeCount::Static(CHUNKS, group.len() as u32, 1), CubeDim::new_1d(UNITS));
        lamb_moments_kernel::launch(
            client,
            count.clone(),
            dim,
            all(|p| &p.value),
            all(|p| &p.first),
            all(|p| &p.second),
            all(|p| &p.gradient),
            buffer(control),
            buffer(&partial),
            beta1,
            beta2,
            epsilon,
            weight_decay,
            group.len(),
            decays,
        );
        lamb_apply_kernel::launch(
            client,
            count,
            dim,
            all(|p| &p.value),
            all(|p| &p.first),
            all(|p| &p.second),
            buffer(control),
            buffer(&partial),
            epsilon,
            weight_decay,
            group.len(),
            decays,
        );
    }
    parameters
}

/// Updates the moments of a group of parameters, and sums the squares of each parameter and of its direction, in
/// [`CHUNKS`] partial sums each.
#[cube(launch)]
fn lamb_moments_kernel(
    values: &Sequence<Box<[f32]>>,
    firsts: &mut Sequence<Box<[f32]>>,
    seconds: &mut Sequence<Box<[f32]>>,
    gradients: &Sequence<Box<[f32]>>,
    control: &[f32],
    partial: &mut [f32],
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    #[comptime] count: usize,
    #[comptime] decays: u32,
) {
    #[unroll]
    for number in 0..count {
        if CUBE_POS_Y as usize == number {
            let value = values.index(number);
            let first = firsts.index_mut(number);
            let second = seconds.index_mut(number);
            let gradient = gradients.index(number);
            let decay = if comptime!((decays >> number) & 1 == 1) { weight_decay } else { 0.0f32.into() };
            let mut values = 0.0f32;
            let mut steps = 0.0f32;
            let mut at = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
            while at < gradient.len() {
                let mut m = first[at];
                let mut v = second[at];
                if control[IS_TAKEN] == 1.0f32 {
                    let g = gradient[at] * control[GRADIENT_SCALE];
                    m = m * beta1 + g * (1.0f32 - beta1);
                    v = v * beta2 + g * g * (1.0f32 - beta2);
                    first[at] = m;
                    second[at] = v;
                }
                let step = direction(m, v, value[at], control, epsilon, decay);
                values += value[at] * value[at];
                steps += step * step;
                at += (CHUNKS * UNITS) as usize;
            }
            let values = sum_of_lanes(values, UNITS, 0u32);
            let steps = sum_of_lanes(steps, UNITS, 0u32);
            if UNIT_POS_X == 0 {
                let place = ((CUBE_POS_Y * CHUNKS + CUBE_POS_X) * 2u32) as usize;
                partial[place] = values;
                partial[place + 1] = steps;
            }
        }
    }
}

/// Updates a group of parameters, with the trust ratio for those with weight decay.
#[cube(launch)]
fn lamb_apply_kernel(
    values: &mut Sequence<Box<[f32]>>,
    firsts: &Sequence<Box<[f32]>>,
    seconds: &Sequence<Box<[f32]>>,
    control: &[f32],
    partial: &[f32],
    epsilon: f32,
    weight_decay: f32,
    #[comptime] count: usize,
    #[comptime] decays: u32,
) {
    #[unroll]
    for number in 0..count {
        if CUBE_POS_Y as usize == number {
            let value = values.index_mut(number);
            let first = firsts.index(number);
            let second = seconds.index(number);
            let is_decayed = comptime!((decays >> number) & 1 == 1);
            let decay = if is_decayed { weight_decay } else { 0.0f32.into() };
            let mut squares = 0.0f32;
            let mut steps = 0.0f32;
            if UNIT_POS_X < CHUNKS {
                let place = ((CUBE_POS_Y * CHUNKS + UNIT_POS_X) * 2u32) as usize;
                squares = partial[place];
                steps = partial[place + 1];
            }
            let squares = sum_of_lanes(squares, UNITS, 0u32);
            let steps = sum_of_lanes(steps, UNITS, 0u32);
            let mut ratio = 1.0f32;
            if is_decayed {
                let has_both = squares > 0.0f32 && steps > 0.0f32;
                ratio = select(has_both, (squares).sqrt() / (steps).sqrt(), 1.0f32);
            }
            if control[IS_TAKEN] == 1.0f32 {
                let mut at = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
                while at < first.len() {
                    let step = direction(first[at], second[at], value[at], control, epsilon, decay);
                    value[at] = value[at] - step * ratio * control[LEARNING_RATE];
                    at += (CHUNKS * UNITS) as usize;
                }
            }
        }
    }
}
