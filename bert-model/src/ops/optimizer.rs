//! The end of a training step, on every backend: the norm of the gradient, what follows from it, and the update of all
//! parameters.
//!
//! On a CPU the norm is a number before the parameters move. On a GPU it stays on the device, with everything that follows
//! from it, so that the host can queue the next step meanwhile; [`Control::norm`] has it for the log.

use burn::prelude::*;

use super::adam::{self, AdamStep};
use super::is_fast;

/// What a step starts from, besides the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    /// Multiplies the whole step.
    pub learning_rate: f64,
    /// What the mean of the gradient, and that of its square, are divided by, for having started at 0.
    pub corrections: [f64; 2],
    /// Limit of the global gradient norm.
    pub clip: Option<f64>,
    /// Good steps in a row after which the loss scale doubles, if there is one.
    pub growth: Option<f64>,
}

/// What a step does to all parameters alike.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one of them lives at a time")]
pub enum Control {
    /// Numbers.
    Host(HostControl),
    /// On a GPU: gradient scale, learning rate, both corrections, whether the step is taken (1 or 0), and the norm.
    Device(Tensor<1>),
}

/// See [`Control`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostControl {
    /// Multiplies every gradient first: clipping, and the inverse of the loss scale.
    pub gradient_scale: f64,
    /// See [`StepSettings`].
    pub settings: StepSettings,
    /// Whether the gradient is finite; if it is not, no parameter moves.
    pub is_taken: bool,
    /// √Σ‖g‖² over all parameters, without the loss scale.
    pub norm: f64,
}

/// The place of the norm in a device's control.
pub const NORM: usize = 5;

impl Control {
    /// From all gradients, each multiplied by `loss_scale`, on a CPU.
    pub fn on_host(gradients: &[Tensor<2>], settings: StepSettings, loss_scale: f64) -> Self {
        let squares: Vec<Tensor<1>> = gradients.iter().cloned().map(sum_of_squares).collect();
        let sum = match squares.is_empty() {
            true => 0.0,
            false => Tensor::cat(squares, 0).into_data().iter::<f32>().map(f64::from).sum::<f64>(),
        };
        let norm = sum.sqrt() / loss_scale;
        let gradient_scale = clip_scale(norm, settings.clip) / loss_scale;
        Self::Host(HostControl { gradient_scale, settings, is_taken: norm.is_finite(), norm })
    }

    /// From all gradients, on the GPU that they are on. `loss_scale` `[2]` holds the factor by which they were multiplied
    /// and the number of good steps since it changed; both are updated in place.
    pub fn on_device(gradients: Vec<Tensor<2>>, settings: StepSettings, loss_scale: &Tensor<1>) -> Self {
        #[cfg(feature = "cube")]
        if super::cube::runs(loss_scale) {
            return Self::Device(super::cube::optimizer::step_control(gradients, &settings, loss_scale));
        }
        let factor = loss_scale.clone().into_data().iter::<f32>().next().map_or(1.0, f64::from);
        Self::on_host(&gradients, settings, factor)
    }

    /// The norm, where it is on the host.
    pub fn host_norm(&self) -> Option<f64> {
        match self {
            Self::Host(host) => Some(host.norm),
            Self::Device(_) => None,
        }
    }

    /// The norm as a number `[1]` to be read later.
    pub fn norm(&self, device: &Device) -> Tensor<1> {
        match self {
            Self::Host(host) => Tensor::from_data([host.norm as f32], &device.clone().inner()),
            Self::Device(values) => values.clone().slice(NORM..NORM + 1),
        }
    }
}

/// The factor that brings gradients of global norm `norm` down to `limit`, as torch's `clip_grad_norm_` computes it;
/// 1 if they are below it or nothing is to be clipped.
pub fn clip_scale(norm: f64, limit: Option<f64>) -> f64 {
    limit.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0))
}

/// A parameter `[R, C]`, its gradient, and the optimizer's running means.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// What moves.
    pub value: Tensor<2>,
    /// Of the loss.
    pub gradient: Tensor<2>,
    /// The mean of the gradient and that of its square.
    pub slots: [Tensor<2>; 2],
    /// Whether weight decay applies.
    pub decays: bool,
}

/// The constants of Adam and LAMB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the root, outside of it.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
}

/// Adam with decoupled weight decay: `p − lr · (m̂ / (√v̂ + ε) + λ·p)`.
pub fn adam(parameters: Vec<Parameter>, control: &Control, constants: Constants) -> Vec<Parameter> {
    match control {
        #[cfg(feature = "cube")]
        Control::Device(control) => {
            super::cube::optimizer::step(parameters, control, constants, super::cube::optimizer::adam)
        }
        Control::Host(control) if control.is_taken => {
            let step = |parameter: Parameter| match is_fast(&parameter.value) {
                true => fast_adam(parameter, control, constants),
                false => {
                    let (direction, parameter) = direction(parameter, control, constants);
                    let value = parameter.value - direction * control.settings.learning_rate;
                    Parameter { value, ..parameter }
                }
            };
            parameters.into_iter().map(step).collect()
        }
        _ => parameters,
    }
}

/// LAMB: Adam's step, times `‖p‖ / ‖step‖` for parameters that decay.
pub fn lamb(parameters: Vec<Parameter>, control: &Control, constants: Constants) -> Vec<Parameter> {
    match control {
        #[cfg(feature = "cube")]
        Control::Device(control) => {
            super::cube::optimizer::step(parameters, control, constants, super::cube::optimizer::lamb)
        }
        Control::Host(control) if control.is_taken => {
            let step = |parameter: Parameter| {
                let (direction, parameter) = direction(parameter, control, constants);
                let direction = match parameter.decays {
                    true => direction.clone() * trust_ratio(parameter.value.clone(), direction),
                    false => direction,
                };
                let value = parameter.value - direction * control.settings.learning_rate;
                Parameter { value, ..parameter }
            };
            parameters.into_iter().map(step).collect()
        }
        _ => parameters,
    }
}

/// Adam in place, in one pass over memory, on flex.
fn fast_adam(parameter: Parameter, control: &HostControl, constants: Constants) -> Parameter {
    let Parameter { value, gradient, slots: [first, second], decays } = parameter;
    let [correction1, correction2] = control.settings.corrections;
    let step = AdamStep {
        gradient_scale: control.gradient_scale as f32,
        beta1: constants.beta1 as f32,
        beta2: constants.beta2 as f32,
        correction1: correction1 as f32,
        correction2: correction2 as f32,
        epsilon: constants.epsilon as f32,
        weight_decay: if decays { constants.weight_decay as f32 } else { 0.0 },
        learning_rate: control.settings.learning_rate as f32,
    };
    let [value, first, second] = adam::adam(value, first, second, gradient.clone(), step);
    Parameter { value, gradient, slots: [first, second], decays }
}

/// `m̂ / (√v̂ + ε) + λ·p`, and the parameter with its means after this step.
fn direction(parameter: Parameter, control: &HostControl, constants: Constants) -> (Tensor<2>, Parameter) {
    let Parameter { value, gradient, slots: [first, second], decays } = parameter;
    let (Constants { beta1, beta2, epsilon, weight_decay }, scale) = (constants, control.gradient_scale);
    let scaled = if scale == 1.0 { gradient.clone() } else { gradient.clone() * scale };
    let first = first * beta1 + scaled.clone() * (1.0 - beta1);
    let second = second * beta2 + scaled.powi_scalar(2) * (1.0 - beta2);
    let [correction1, correction2] = control.settings.corrections;
    let root = (second.clone() / correction2).sqrt() + epsilon;
    let weight_decay = if decays { weight_decay } else { 0.0 };
    let direction = first.clone() / correction1 / root + value.clone() * weight_decay;
    (direction, Parameter { value, gradient, slots: [first, second], decays })
}

/// LAMB's ratio `‖p‖ / ‖step‖`, 1 where one of the two is 0. Shape: `[1, 1]`.
fn trust_ratio(value: Tensor<2>, step: Tensor<2>) -> Tensor<2> {
    let norm = |x: Tensor<2>| x.powi_scalar(2).sum_dim(1).sum_dim(0).sqrt();
    let (value, step) = (norm(value), norm(step));
    let is_zero = value.clone().equal_elem(0).bool_or(step.clone().equal_elem(0));
    (value / step).mask_fill(is_zero, 1.0)
}

/// `sum + x`, in the place of `sum` where that is possible.
pub fn accumulate(sum: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    if is_fast(&sum) { adam::accumulate(sum, x) } else { sum + x }
}

/// Adds to row `ids[i]` of `table` row i of `rows`, for all i in their order.
///
/// # Shapes
/// - `table` and output: `[V, H]`
/// - `ids`: `[N]`, each in 0..V
/// - `rows`: `[N, H]`
pub fn add_rows(table: Tensor<2>, ids: Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if super::cube::runs(&rows) {
        return super::cube::add_rows(table, ids, rows);
    }
    table.select_assign(0, ids, super::upcast(rows), burn::tensor::IndexingUpdateOp::Add)
}

/// Matrices in another number type.
pub fn cast(tensors: Vec<Tensor<2>>, dtype: burn::tensor::DType) -> Vec<Tensor<2>> {
    #[cfg(feature = "cube")]
    if tensors.first().is_some_and(super::cube::runs) {
        return super::cube::optimizer::cast(tensors, dtype);
    }
    tensors.into_iter().map(|tensor| tensor.cast(dtype)).collect()
}

/// Shape: `[1]`.
fn sum_of_squares(gradient: Tensor<2>) -> Tensor<1> {
    match is_fast(&gradient) {
        true => adam::sum_of_squares(gradient),
        false => gradient.powi_scalar(2).sum_dim(1).sum(),
    }
}

/// Numbers that are read from a device; on a GPU the host need not wait for them until it wants them.
pub struct Reading {
    count: usize,
    source: Source,
}

enum Source {
    Host(Vec<f32>),
    #[cfg(feature = "cube")]
    Device(super::cube::Reading),
}

impl Reading {
    /// Begins to read `values` `[N]`.
    pub fn start(values: Tensor<1>) -> Self {
        let [count] = values.dims();
        #[cfg(feature = "cube")]
        if super::cube::runs(&values) {
            return Self { count, source: Source::Device(super::cube::Reading::start(values)) };
        }
        Self { count, source: Source::Host(values.into_data().iter::<f32>().collect()) }
    }

    /// The numbers.
    pub fn wait(self) -> Vec<f32> {
        let Self { count, source } = self;
        match source {
            Source::Host(values) => values.into_iter().take(count).collect(),
            #[cfg(feature = "cube")]
            Source::Device(reading) => reading.wait(count),
        }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reading").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Whether kernels are queued on this device while the host goes on.
pub fn is_asynchronous(device: &Device) -> bool {
    #[cfg(feature = "cube")]
    return super::cube::is_gpu(device);
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        false
    }
}
