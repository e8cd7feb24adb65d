//! The end of a training step on a GPU: the gradient's norm and what depends on it, then the update of all parameters,
//! in groups of as many as the device can bind buffers for. The host waits for none of it.

mod adam;
mod control;
mod lamb;

use burn::backend::DType;
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, contiguous, element, empty_like, owned};
use super::{primitive, tensor};
use crate::ops::optimizer::{Constants, GRADIENT_SCALE, IS_TAKEN, LEARNING_RATE, MOMENTS, NORM, Parameter, Slots};

pub use adam::adam;
pub use control::step_control;
pub use lamb::lamb;

/// Cubes per parameter in sums over its elements. A fixed number, so that sums have a fixed order.
const CHUNKS: u32 = 128;

// The indices of the bias corrections among the values of a step's control.
const CORRECTION1: usize = 2;
const CORRECTION2: usize = 3;
/// The number of values of a step's control.
const CONTROLS: usize = 6;

/// Updates the parameters by [`adam`] or [`lamb`].
pub fn step(
    parameters: Vec<Parameter>,
    control: &Tensor<1>,
    constants: Constants,
    optimizer: fn(Vec<GpuParameter>, &CubeTensor, Constants) -> Vec<GpuParameter>,
) -> Vec<Parameter> {
    let parameters = parameters.into_iter().map(GpuParameter::from_parameter).collect();
    let updated = optimizer(parameters, &primitive(control.clone()), constants);
    updated.into_iter().map(GpuParameter::into_parameter).collect()
}

/// See [`crate::ops::optimizer::cast`].
pub fn cast(tensors: Vec<Tensor<2>>, dtype: DType) -> Vec<Tensor<2>> {
    let sources: Vec<CubeTensor> = tensors.into_iter().map(|x| contiguous(primitive(x))).collect();
    let Some(first) = sources.first() else { return Vec::new() };
    let (client, mut casts) = (first.client.clone(), Vec::with_capacity(sources.len()));
    for group in sources.chunks(group_size(&client, 2)) {
        let outputs = empty_like(group, dtype);
        let from: SequenceArg<Box<[f32]>> = group.iter().map(buffer).collect();
        cast_kernel::launch(
            &client,
            cubes_of(group.iter()),
            CubeDim::new_1d(UNITS),
            from,
            outputs.iter().map(buffer).collect(),
            group.len(),
            element(dtype),
        );
        casts.extend(outputs.into_iter().map(tensor));
    }
    casts
}

/// Casts a group of tensors.
#[cube(launch)]
fn cast_kernel<H: Float>(
    from: &Sequence<Box<[f32]>>,
    to: &mut Sequence<Box<[H]>>,
    #[comptime] count: usize,
    #[define(H)] _element: ElemType,
) {
    #[unroll]
    for number in 0..count {
        if CUBE_POS_Y as usize == number {
            let from = from.index(number);
            let to = to.index_mut(number);
            let mut at = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
            while at < from.len() {
                to[at] = H::cast_from(from[at]);
                at += (CUBE_COUNT_X * UNITS) as usize;
            }
        }
    }
}

/// A parameter, its moments and its gradient on the device.
#[derive(Debug, Clone)]
pub struct GpuParameter {
    pub value: CubeTensor,
    pub first: CubeTensor,
    pub second: CubeTensor,
    pub gradient: CubeTensor,
    pub decays: bool,
    pub is_inner_matrix: bool,
}

impl GpuParameter {
    fn from_parameter(parameter: Parameter) -> Self {
        let Parameter { value, gradient, mut slots, decays, is_inner_matrix } = parameter;
        let [first, second] = MOMENTS.map(|name| primitive(slots.take(name, &gradient)));
        Self { value: primitive(value), first, second, gradient: primitive(gradient), decays, is_inner_matrix }
    }

    fn into_parameter(self) -> Parameter {
        let Self { value, first, second, gradient, decays, is_inner_matrix } = self;
        let [value, gradient, first, second] = [value, gradient, first, second].map(tensor);
        let mut slots = Slots::default();
        MOMENTS.into_iter().zip([first, second]).for_each(|(name, mean)| slots.set(name, mean));
        Parameter { value, gradient, slots, decays, is_inner_matrix }
    }

    /// Makes everything contiguous, and everything that is updated uniquely owned.
    fn owned(self) -> Self {
        let Self { value, first, second, gradient, .. } = self;
        let [value, first, second] = [value, first, second].map(owned);
        Self { value, first, second, gradient: contiguous(gradient), ..self }
    }
}

/// β₁, β₂, ε and λ in single precision.
fn to_f32(constants: Constants) -> [f32; 4] {
    let Constants { beta1, beta2, epsilon, weight_decay } = constants;
    [beta1, beta2, epsilon, weight_decay].map(|constant| constant as f32)
}

/// The same tensor of each parameter of a group, as a kernel argument.
fn buffers(group: &[GpuParameter], tensor: fn(&GpuParameter) -> &CubeTensor) -> SequenceArg<Box<[f32]>> {
    group.iter().map(|parameter| buffer(tensor(parameter))).collect()
}

/// A bit mask of the parameters of a group to which weight decay applies.
fn decays_of(group: &[GpuParameter]) -> u32 {
    group.iter().enumerate().fold(0, |mask, (number, p)| mask | u32::from(p.decays) << number)
}

/// The number of parameters per launch, each of which binds this many buffers.
fn group_size(client: &Client, buffers: usize) -> usize {
    ((client.properties().hardware.max_bindings as usize).saturating_sub(3) / buffers).clamp(1, 16)
}

/// The cubes for a group of tensors: enough for the largest along x, one row per tensor along y.
fn cubes_of<'a>(tensors: impl ExactSizeIterator<Item = &'a CubeTensor>) -> CubeCount {
    let count = tensors.len() as u32;
    let largest = tensors.map(|tensor| tensor.meta.num_elements()).max().unwrap_or(1);
    CubeCount::Static((largest.div_ceil(UNITS as usize) as u32).clamp(1, 1024), count, 1)
}

/// AdamW's direction for one element, from its updated moments.
#[cube]
fn direction(first: f32, second: f32, value: f32, control: &[f32], epsilon: f32, weight_decay: f32) -> f32 {
    first / control[CORRECTION1] / ((second / control[CORRECTION2]).sqrt() + epsilon) + value * weight_decay
}
