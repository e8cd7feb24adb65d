//! The end of a training step on every backend: the gradient's norm, clipping and the loss scale, then the update of
//! all parameters with AdamW, LAMB or Muon.
//!
//! On a CPU the norm is known before the parameters are updated. On a GPU the norm and everything that depends on it
//! stay on the device, so that the host can queue the next step meanwhile; [`Control::norm`] returns it for the log.

mod flex;
mod muon;
mod reading;
mod slots;

use burn::prelude::*;

use super::is_fast;
use flex::AdamStep;
pub use muon::muon;
pub use reading::Reading;
pub use slots::Slots;

/// The settings of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    /// Factor of the whole step.
    pub learning_rate: f64,
    /// Bias corrections of the first and the second moment, as divisors.
    pub corrections: [f64; 2],
    /// Upper bound of the global gradient norm; `None` for no clipping.
    pub clip: Option<f64>,
    /// Consecutive steps with finite gradients after which the loss scale doubles; `None` for no loss scale.
    pub growth: Option<f64>,
}

/// What applies to all parameters in a step: the factor of the gradients, the learning rate, and whether to take the
/// step.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one of them lives at a time")]
pub enum Control {
    /// Known on the host.
    Host(HostControl),
    /// On a GPU, `[6]`: gradient scale, learning rate, both bias corrections, 1 if the step is taken (else 0), and the
    /// norm.
    Device(Tensor<1>),
}

/// A [`Control`] whose values are known on the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostControl {
    /// Factor of every gradient, applied first: clipping and the inverse of the loss scale.
    pub gradient_scale: f64,
    /// Learning rate and bias corrections.
    pub settings: StepSettings,
    /// Whether the gradient is finite; otherwise the step is skipped.
    pub is_taken: bool,
    /// The global gradient norm √Σ‖g‖² over all parameters, without the loss scale.
    pub norm: f64,
}

// The indices of the values in `Control::Device`.
pub(super) const GRADIENT_SCALE: usize = 0;
pub(super) const LEARNING_RATE: usize = 1;
/// 1 if the step is taken, 0 if the gradient is not finite.
pub(super) const IS_TAKEN: usize = 4;
/// The index of the norm in [`Control::Device`].
pub(super) const NORM: usize = 5;

/// Names of the running means of AdamW and LAMB: of the gradient and of its square.
pub(super) const MOMENTS: [&str; 2] = ["first", "second"];

impl Control {
    /// Computes the control on the host, from the [`sums_of_squares`] of all gradients, each multiplied by `loss_scale`.
    pub fn on_host(squares: &[f32], settings: StepSettings, loss_scale: f64) -> Self {
        let sum: f64 = squares.iter().copied().map(f64::from).sum();
        let norm = sum.sqrt() / loss_scale;
        let gradient_scale = clip_scale(norm, settings.clip) / loss_scale;
        Self::Host(HostControl { gradient_scale, settings, is_taken: norm.is_finite(), norm })
    }

    /// Computes the control on the GPU that holds the gradients. `loss_scale` `[2]` holds the factor by which they were
    /// multiplied and the number of steps with finite gradients since it changed; both are updated in place.
    pub fn on_device(gradients: Vec<Tensor<2>>, settings: StepSettings, loss_scale: &Tensor<1>) -> Self {
        #[cfg(feature = "cube")]
        if super::cube::runs(loss_scale) {
            return Self::Device(super::cube::optimizer::step_control(gradients, &settings, loss_scale));
        }
        let factor = loss_scale.clone().into_data().iter::<f32>().next().map_or(1.0, f64::from);
        Self::on_host(&sums_of_squares(&gradients), settings, factor)
    }

    /// The gradient norm if it is known on the host.
    pub fn host_norm(&self) -> Option<f64> {
        match self {
            Self::Host(host) => Some(host.norm),
            Self::Device(_) => None,
        }
    }

    /// The gradient norm as a tensor `[1]`.
    pub fn norm(&self, device: &Device) -> Tensor<1> {
        match self {
            Self::Host(host) => Tensor::from_data([host.norm as f32], &device.clone().inner()),
            Self::Device(values) => values.clone().slice(NORM..NORM + 1),
        }
    }
}

/// The factor that reduces gradients of global norm `norm` to `limit`, as PyTorch's `clip_grad_norm_` computes it; 1 if
/// the norm is below the limit, or without a limit.
fn clip_scale(norm: f64, limit: Option<f64>) -> f64 {
    limit.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0))
}

/// One of the values of [`Control::Device`], `[1, 1]`.
fn device_value(values: &Tensor<1>, index: usize) -> Tensor<2> {
    values.clone().slice(index..index + 1).reshape([1, 1])
}

/// A parameter with its gradient and the optimizer's running means, all `[R, C]`.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The weights.
    pub value: Tensor<2>,
    /// The gradient of the loss.
    pub gradient: Tensor<2>,
    /// The running means: for AdamW and LAMB the first and the second moment.
    pub slots: Slots,
    /// Whether weight decay applies.
    pub decays: bool,
    /// Whether it is the matrix of an encoder layer, which Muon treats as a matrix.
    pub is_inner_matrix: bool,
}

impl Parameter {
    /// Sets the running means of Adam and LAMB as if all earlier gradients had been like this one; `corrections` are
    /// the bias corrections of the step before. For a parameter that is not trained from the first step on, since the
    /// bias corrections count all steps.
    pub fn start_means(mut self, control: &Control, corrections: [f64; 2]) -> Self {
        let gradient = match control {
            Control::Host(control) if !control.is_taken => return self,
            Control::Host(control) => self.gradient.clone() * control.gradient_scale,
            Control::Device(values) => {
                let skipped = device_value(values, IS_TAKEN).equal_elem(0).expand(self.gradient.dims());
                (self.gradient.clone() * device_value(values, GRADIENT_SCALE)).mask_fill(skipped, 0.0)
            }
        };
        self.slots.set(MOMENTS[0], gradient.clone() * corrections[0]);
        self.slots.set(MOMENTS[1], gradient.clone() * gradient * corrections[1]);
        self
    }
}

/// The constants of Adam and LAMB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    /// β₁, the decay of the first moment.
    pub beta1: f64,
    /// β₂, the decay of the second moment.
    pub beta2: f64,
    /// ε, added to the root of the second moment (not under the root).
    pub epsilon: f64,
    /// λ, the weight decay.
    pub weight_decay: f64,
}

/// A step of AdamW (Loshchilov and Hutter 2019), Adam with decoupled weight decay: `p − lr · (m̂ / (√v̂ + ε) + λ·p)`.
/// Parameters are returned unchanged if the control skips the step.
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

/// A step of LAMB (You et al. 2020): AdamW's direction, scaled by the trust ratio `‖p‖ / ‖direction‖` for parameters
/// with weight decay. Parameters are returned unchanged if the control skips the step.
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

/// AdamW on flex: in place, in one pass over memory.
fn fast_adam(parameter: Parameter, control: &HostControl, constants: Constants) -> Parameter {
    let Parameter { value, gradient, mut slots, decays, is_inner_matrix } = parameter;
    let [first, second] = MOMENTS.map(|name| slots.take(name, &gradient));
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
    let [value, first, second] = flex::adam(value, first, second, gradient.clone(), step);
    MOMENTS.into_iter().zip([first, second]).for_each(|(name, mean)| slots.set(name, mean));
    Parameter { value, gradient, slots, decays, is_inner_matrix }
}

/// The direction `m̂ / (√v̂ + ε) + λ·p`, and the parameter with its moments after this step.
fn direction(parameter: Parameter, control: &HostControl, constants: Constants) -> (Tensor<2>, Parameter) {
    let Parameter { value, gradient, mut slots, decays, is_inner_matrix } = parameter;
    let [first, second] = MOMENTS.map(|name| slots.take(name, &gradient));
    let (Constants { beta1, beta2, epsilon, weight_decay }, scale) = (constants, control.gradient_scale);
    let scaled = if scale == 1.0 { gradient.clone() } else { gradient.clone() * scale };
    let first = first * beta1 + scaled.clone() * (1.0 - beta1);
    let second = second * beta2 + scaled.powi_scalar(2) * (1.0 - beta2);
    let [correction1, correction2] = control.settings.corrections;
    let root = (second.clone() / correction2).sqrt() + epsilon;
    let weight_decay = if decays { weight_decay } else { 0.0 };
    let direction = first.clone() / correction1 / root + value.clone() * weight_decay;
    MOMENTS.into_iter().zip([first, second]).for_each(|(name, mean)| slots.set(name, mean));
    (direction, Parameter { value, gradient, slots, decays, is_inner_matrix })
}

/// LAMB's trust ratio `‖p‖ / ‖step‖`, 1 if either norm is 0: `[1, 1]`.
fn trust_ratio(value: Tensor<2>, step: Tensor<2>) -> Tensor<2> {
    let norm = |x: Tensor<2>| x.powi_scalar(2).sum_dim(1).sum_dim(0).sqrt();
    let (value, step) = (norm(value), norm(step));
    let is_zero = value.clone().equal_elem(0).bool_or(step.clone().equal_elem(0));
    (value / step).mask_fill(is_zero, 1.0)
}

/// `sum + x`, in place where possible.
pub fn accumulate(sum: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    if is_fast(&sum) { flex::accumulate(sum, x) } else { sum + x }
}

/// Adds row i of `rows` to row `ids[i]` of `table`, for all i in order.
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

/// Casts matrices to another number type.
pub fn cast(tensors: Vec<Tensor<2>>, dtype: burn::tensor::DType) -> Vec<Tensor<2>> {
    #[cfg(feature = "cube")]
    if tensors.first().is_some_and(super::cube::runs) {
        return super::cube::optimizer::cast(tensors, dtype);
    }
    tensors.into_iter().map(|tensor| tensor.cast(dtype)).collect()
}

/// The sum of the squares of each gradient; waits for the device.
pub fn sums_of_squares(gradients: &[Tensor<2>]) -> Vec<f32> {
    let squares: Vec<Tensor<1>> = gradients.iter().cloned().map(sum_of_squares).collect();
    if squares.is_empty() { Vec::new() } else { Tensor::cat(squares, 0).into_data().iter::<f32>().collect() }
}

/// The sum of the squares of all elements: `[1]`.
fn sum_of_squares(gradient: Tensor<2>) -> Tensor<1> {
    match is_fast(&gradient) {
        true => flex::sum_of_squares(gradient),
        false => gradient.powi_scalar(2).sum_dim(1).sum(),
    }
}

/// Whether the device runs asynchronously: whether the host only queues kernels, as on a GPU.
pub fn is_asynchronous(device: &Device) -> bool {
    #[cfg(feature = "cube")]
    return super::cube::is_gpu(device);
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        false
    }
}
