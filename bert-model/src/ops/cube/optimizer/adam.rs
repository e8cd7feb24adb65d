//! AdamW on a GPU.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    GRADIENT_SCALE, GpuParameter, IS_TAKEN, LEARNING_RATE, buffers, cubes_of, decays_of, direction, group_size, to_f32,
};
use crate::ops::cube::launch::{UNITS, buffer};
use crate::ops::optimizer::Constants;

/// A step of AdamW for all parameters, in place.
pub fn adam(parameters: Vec<GpuParameter>, control: &CubeTensor, constants: Constants) -> Vec<GpuParameter> {
    let client = &control.client;
    let parameters: Vec<GpuParameter> = parameters.into_iter().map(GpuParameter::owned).collect();
    let [beta1, beta2, epsilon, weight_decay] = to_f32(constants);
    for group in parameters.chunks(group_size(client, 4)) {
        let all = |tensor: fn(&GpuParameter) -> &CubeTensor| buffers(group, tensor);
        let decays = decays_of(group);
        adam_kernel::launch(
            client,
            cubes_of(group.iter().map(|p| &p.value)),
            CubeDim::new_1d(UNITS),
            all(|p| &p.value),
            all(|p| &p.first),
            all(|p| &p.second),
            all(|p| &p.gradient),
            buffer(control),
            beta1,
            beta2,
            epsilon,
            weight_decay,
            group.len(),
            decays,
        );
    }
    parameters
}

/// AdamW for a group of parameters. Bit i of `decays` says whether weight decay applies to parameter i.
#[cube(launch)]
fn adam_kernel(
    values: &mut Sequence<Box<[f32]>>,
    firsts: &mut Sequence<Box<[f32]>>,
    seconds: &mut Sequence<Box<[f32]>>,
    gradients: &Sequence<Box<[f32]>>,
    control: &[f32],
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    #[comptime] count: usize,
    #[comptime] decays: u32,
) {
    if control[IS_TAKEN] == 1.0f32 {
        #[unroll]
        for number in 0..count {
            if CUBE_POS_Y as usize == number {
                let value = values.index_mut(number);
                let first = firsts.index_mut(number);
                let second = seconds.index_mut(number);
                let gradient = gradients.index(number);
                let decay = if comptime!((decays >> number) & 1 == 1) { weight_decay } else { 0.0f32.into() };
                let mut at = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
                while at < gradient.len() {
                    let g = gradient[at] * control[GRADIENT_SCALE];
                    let m = first[at] * beta1 + g * (1.0f32 - beta1);
                    let v = second[at] * beta2 + g * g * (1.0f32 - beta2);
                    first[at] = m;
                    second[at] = v;
                    let step = direction(m, v, value[at], control, epsilon, decay);
                    value[at] = value[at] - step * control[LEARNING_RATE];
                    at += (CUBE_COUNT_X * UNITS) as usize;
                }
            }
        }
    }
}
