//! The end of a training step on a GPU: the gradient's norm, what follows from it, and the update of groups of parameters,
//! as many in a launch as the device binds buffers. The host reads none of it.

use burn::backend::DType;
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::launch::{UNITS, buffer, contiguous, element, empty};
use super::rows::sum_of_lanes;
use super::{primitive, tensor};
use crate::ops::optimizer::{Constants, StepSettings};

/// Cubes that share the elements of one parameter; a fixed number, so that sums have a fixed order.
const CHUNKS: u32 = 128;

/// What a step does to all parameters, computed on the device: see the constants below for the places.
const GRADIENT_SCALE: usize = 0;
const LEARNING_RATE: usize = 1;
const CORRECTION1: usize = 2;
const CORRECTION2: usize = 3;
/// 1 if the step is to be taken, 0 where the gradient is not finite.
const IS_TAKEN: usize = 4;
const NORM: usize = 5;
/// Numbers in the tensor of a step's control.
const CONTROLS: usize = 6;

/// Whether a number is neither infinite nor NaN.
#[cube]
fn is_finite(x: f32) -> bool {
    (x).abs() <= 3.402_823_4e38f32
}

/// Partial sums of squares of several tensors, [`CHUNKS`] for each.
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

/// One cube adds up the partial sums and works out the step's control.
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
        // The loss scale of `f16`: doubled after so many good steps, halved after a bad one; `growth` 0 for no scale.
        if growth > 0.0f32 {
            let good = select(is_good, loss_scale[1] + 1.0f32, 0.0f32);
            let grows = good >= growth;
            let grown = select(grows, factor * 2.0f32, factor);
            loss_scale[0] = select(is_good, grown, factor * 0.5f32);
            loss_scale[1] = select(grows, 0.0f32, good);
        }
    }
}

/// Number of tensors that one launch takes, of which each binds so many buffers.
fn group_size(client: &Client, buffers: usize) -> usize {
    ((client.properties().hardware.max_bindings as usize).saturating_sub(3) / buffers).clamp(1, 16)
}

/// Works out the control of a step from all gradients: `[6]`. `loss_scale` `[2]` holds the factor and the number of good
/// steps since it changed; it is updated in place.
pub fn control(gradients: &[CubeTensor], settings: &CubeTensor, loss_scale: &CubeTensor) -> CubeTensor {
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

/// A parameter and its running means, uniquely owned and contiguous.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub value: CubeTensor,
    pub first: CubeTensor,
    pub second: CubeTensor,
    pub gradient: CubeTensor,
    pub decays: bool,
}

/// A tensor that may be changed in place.
fn owned(x: CubeTensor) -> CubeTensor {
    let x = contiguous(x);
    if x.can_mut() { x } else { x.copy() }
}

impl Parameter {
    /// The same, with everything that changes uniquely owned.
    fn owned(self) -> Self {
        let Self { value, first, second, gradient, decays } = self;
        let [value, first, second] = [value, first, second].map(owned);
        Self { value, first, second, gradient: contiguous(gradient), decays }
    }
}

/// β₁, β₂, ε and λ in single precision.
fn singles(constants: Constants) -> [f32; 4] {
    let Constants { beta1, beta2, epsilon, weight_decay } = constants;
    [beta1, beta2, epsilon, weight_decay].map(|constant| constant as f32)
}

/// One tensor of each parameter, as a kernel argument.
fn buffers(group: &[Parameter], tensor: fn(&Parameter) -> &CubeTensor) -> SequenceArg<Box<[f32]>> {
    group.iter().map(|parameter| buffer(tensor(parameter))).collect()
}

/// A bit for each parameter of a group, set where weight decay applies.
fn decays_of(group: &[Parameter]) -> u32 {
    group.iter().enumerate().fold(0, |mask, (number, p)| mask | u32::from(p.decays) << number)
}

/// Adam's direction of one element, after its means were updated.
#[cube]
fn direction(first: f32, second: f32, value: f32, control: &[f32], epsilon: f32, weight_decay: f32) -> f32 {
    first / control[CORRECTION1] / ((second / control[CORRECTION2]).sqrt() + epsilon) + value * weight_decay
}

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

/// Cubes along a group: enough to keep the device busy with its largest tensor.
fn cubes_of<'a>(tensors: impl ExactSizeIterator<Item = &'a CubeTensor>) -> CubeCount {
    let count = tensors.len() as u32;
    let largest = tensors.map(|tensor| tensor.meta.num_elements()).max().unwrap_or(1);
    CubeCount::Static((largest.div_ceil(UNITS as usize) as u32).clamp(1, 1024), count, 1)
}

/// Adam's step for all parameters, in place.
pub fn adam(parameters: Vec<Parameter>, control: &CubeTensor, constants: Constants) -> Vec<Parameter> {
    let client = &control.client;
    let parameters: Vec<Parameter> = parameters.into_iter().map(Parameter::owned).collect();
    let [beta1, beta2, epsilon, weight_decay] = singles(constants);
    for group in parameters.chunks(group_size(client, 4)) {
        let all = |tensor: fn(&Parameter) -> &CubeTensor| buffers(group, tensor);
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

/// LAMB's moments, and partial sums of the squares of each parameter and of its direction, [`CHUNKS`] for each.
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

/// LAMB's step, with the ratio of the two norms for parameters that decay.
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

/// LAMB's step for all parameters, in place.
pub fn lamb(parameters: Vec<Parameter>, control: &CubeTensor, constants: Constants) -> Vec<Parameter> {
    let client = &control.client;
    let parameters: Vec<Parameter> = parameters.into_iter().map(Parameter::owned).collect();
    let [beta1, beta2, epsilon, weight_decay] = singles(constants);
    for group in parameters.chunks(group_size(client, 4)) {
        let all = |tensor: fn(&Parameter) -> &CubeTensor| buffers(group, tensor);
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

/// Adam or LAMB, for the parameters of [`crate::ops::optimizer`].
pub fn step(
    parameters: Vec<super::super::optimizer::Parameter>,
    control: &Tensor<1>,
    constants: Constants,
    rule: fn(Vec<Parameter>, &CubeTensor, Constants) -> Vec<Parameter>,
) -> Vec<super::super::optimizer::Parameter> {
    type Neutral = super::super::optimizer::Parameter;
    let taken = |Neutral { value, gradient, slots: [first, second], decays }| {
        let [value, gradient, first, second] = [value, gradient, first, second].map(primitive);
        Parameter { value, first, second, gradient, decays }
    };
    let given = |Parameter { value, first, second, gradient, decays }| {
        let [value, gradient, first, second] = [value, gradient, first, second].map(tensor);
        Neutral { value, gradient, slots: [first, second], decays }
    };
    let control = primitive(control.clone());
    rule(parameters.into_iter().map(taken).collect(), &control, constants).into_iter().map(given).collect()
}

/// See [`crate::ops::optimizer::control`].
pub fn step_control(gradients: Vec<Tensor<2>>, settings: &StepSettings, loss_scale: &Tensor<1>) -> Tensor<1> {
    let StepSettings { learning_rate, corrections: [first, second], clip, growth } = *settings;
    let settings = [learning_rate, first, second, clip.unwrap_or(0.0), growth.unwrap_or(0.0)].map(|x| x as f32);
    let settings = Tensor::<1>::from_data(&settings[..], &loss_scale.device());
    let gradients: Vec<CubeTensor> = gradients.into_iter().map(|gradient| contiguous(primitive(gradient))).collect();
    tensor(control(&gradients, &primitive(settings), &primitive(loss_scale.clone())))
}

/// The tensors in another number type, many in a launch.
pub fn cast(tensors: Vec<Tensor<2>>, dtype: DType) -> Vec<Tensor<2>> {
    let sources: Vec<CubeTensor> = tensors.into_iter().map(|x| contiguous(primitive(x))).collect();
    let Some(first) = sources.first() else { return Vec::new() };
    let (client, mut casts) = (first.client.clone(), Vec::with_capacity(sources.len()));
    for group in sources.chunks(group_size(&client, 2)) {
        let outputs: Vec<CubeTensor> = group.iter().map(|x| empty(x, x.meta.shape().clone(), dtype)).collect();
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
