//! Half-precision training (Micikevicius et al. 2018, "Mixed Precision Training"): the forward and backward pass use
//! half-precision copies of the weights; the weights themselves, the sum of their gradients and the optimizer stay in
//! `f32`, and so do softmax, LayerNorm and the losses.
//!
//! On a CPU, `bf16` rounds the operands of the dense layers' products alone ([`autocast`]), and copies nothing.

use std::str::FromStr;

use bert_model::ops::autocast;
use bert_model::ops::optimizer::{Control, StepSettings, cast, is_asynchronous, sums_of_squares};
use bert_model::pipeline;
use bert_model::{Error, Result};
use burn::module::{Module, Param};
use burn::prelude::*;
use burn::tensor::DType;
use serde::{Deserialize, Serialize};

use super::parameters::{Change, ParameterPath, Visit, as_matrix, change_parameters, visit_parameters};

/// Floating-point precision of the forward and backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: the range of `f32`, eight bits of precision.
    Bf16,
    /// IEEE half precision: eleven bits, but nothing above 65,504, which is why the loss is scaled (see [`LossScale`]).
    F16,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(format!("unknown precision `{name}`, expected f32, bf16 or f16")),
        }
    }
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// Checks that `device` supports this precision.
    ///
    /// # Errors
    /// If the device cannot compute in this precision.
    pub fn check(self, device: &Device) -> Result<()> {
        match device.supports_dtype(self.dtype()) {
            true => Ok(()),
            false => Err(Error::Setting(format!(
                "precision: found {:?}, which this device does not support, expected f32 or another device",
                self.dtype()
            ))),
        }
    }

    /// Whether tensors stay `f32` and products round what they read: bf16 on a CPU.
    fn uses_autocast(self, device: &Device) -> bool {
        self == Self::Bf16 && device.clone().inner() == Device::flex()
    }

    /// Runs `passes`, forward and backward, with products in this precision if it is not that of the tensors.
    pub(super) fn run<R>(self, device: &Device, passes: impl FnOnce() -> R) -> R {
        let uses_autocast = self.uses_autocast(device);
        autocast(if uses_autocast { pipeline::Precision::Bf16 } else { pipeline::Precision::F32 }, passes)
    }

    /// A copy of the model on `device` in this precision, for the forward and backward passes of one step, which are
    /// [`run`](Self::run).
    pub(super) fn copy<M: Module>(self, model: &M, device: &Device) -> M {
        if self == Self::F32 || self.uses_autocast(device) {
            return model.clone();
        }
        let mut collected = Collect { matrices: Vec::new() };
        visit_parameters(model, &mut collected);
        let copies = cast(collected.matrices, self.dtype()).into_iter();
        change_parameters(model.clone(), &mut Replace { copies })
    }
}

/// Collects all parameters as matrices.
struct Collect {
    matrices: Vec<Tensor<2>>,
}

impl Visit for Collect {
    fn visit<const D: usize>(&mut self, _path: ParameterPath<'_>, parameter: &Param<Tensor<D>>) {
        self.matrices.push(as_matrix(parameter.val().inner()));
    }
}

/// Replaces all parameters, in the same order.
struct Replace {
    copies: std::vec::IntoIter<Tensor<2>>,
}

impl Change for Replace {
    fn change<const D: usize>(&mut self, _path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(copy) = self.copies.next() else { return parameter };
        parameter.map(|leaf| {
            let copy = Tensor::from_inner(copy.reshape(leaf.shape()));
            if leaf.is_require_grad() { copy.require_grad() } else { copy }
        })
    }
}

/// Number of consecutive finite steps after which the loss scale doubles.
const GROWTH: u32 = 2000;

/// The loss scale of `f16` training, a factor that keeps small gradients from becoming 0. It doubles after 2,000 finite
/// steps and halves whenever a gradient overflows; that step is skipped, as in PyTorch's `GradScaler`, but counts
/// for the schedule and the bias correction. In other precisions, it is 1.
#[derive(Debug, Clone)]
pub struct LossScale {
    precision: Precision,
    /// The state on a CPU; on a GPU, the state at the start of training.
    host: SavedScale,
    /// Factor and number of finite steps `[2]` on a GPU, which updates them without involving the host.
    device: Option<Tensor<1>>,
}

/// A loss scale in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SavedScale {
    factor: f64,
    good_steps: u32,
}

impl Default for SavedScale {
    fn default() -> Self {
        Self { factor: 65_536.0, good_steps: 0 }
    }
}

impl LossScale {
    /// Creates the loss scale for training in `precision` on `device`, from a saved state.
    pub fn new(precision: Precision, saved: SavedScale, device: &Device) -> Self {
        let factor = if precision == Precision::F16 { saved.factor } else { 1.0 };
        let values = [factor as f32, saved.good_steps as f32];
        let device = device.clone().inner();
        let device = is_asynchronous(&device).then(|| Tensor::from_data(&values[..], &device));
        Self { precision, host: SavedScale { factor, ..saved }, device }
    }

    /// The state to store in a checkpoint; waits for a GPU.
    pub fn saved(&self) -> SavedScale {
        let read = |values: &Tensor<1>| {
            let values: Vec<f32> = values.clone().into_data().iter::<f32>().collect();
            SavedScale { factor: f64::from(values[0]), good_steps: values[1] as u32 }
        };
        match self.precision {
            Precision::F16 => self.device.as_ref().map_or(self.host, read),
            _ => SavedScale::default(),
        }
    }

    /// Multiplies a loss by the factor.
    pub(super) fn scaled(&self, loss: Tensor<1>) -> Tensor<1> {
        match (&self.device, self.precision) {
            (Some(device), Precision::F16) => loss * Tensor::from_inner(device.clone().slice(0..1)),
            (None, Precision::F16) => loss * self.host.factor,
            _ => loss,
        }
    }

    pub(super) fn growth(&self) -> Option<f64> {
        (self.precision == Precision::F16).then_some(f64::from(GROWTH))
    }

    /// Computes how the step changes the parameters from gradients of the scaled loss, or from the sum of the squares of
    /// each, and updates the scale.
    pub(super) fn control(
        &mut self,
        gradients: Vec<Tensor<2>>,
        squares: Option<Vec<f32>>,
        settings: StepSettings,
    ) -> Control {
        if let Some(device) = &self.device {
            let roots = |squares: Vec<f32>| -> Vec<Tensor<2>> {
                let roots: Vec<f32> = squares.into_iter().map(f32::sqrt).collect();
                vec![Tensor::<1>::from_data(&roots[..], &device.device()).unsqueeze()]
            };
            return Control::on_device(squares.map_or(gradients, roots), settings, device);
        }
        let squares = squares.unwrap_or_else(|| sums_of_squares(&gradients));
        let control = Control::on_host(&squares, settings, self.host.factor);
        if let Control::Host(host) = &control {
            self.update(host.is_taken);
        }
        control
    }

    fn update(&mut self, is_finite: bool) {
        if self.precision != Precision::F16 {
            return;
        }
        let SavedScale { factor, good_steps } = self.host;
        self.host = match is_finite {
            true if good_steps + 1 == GROWTH => SavedScale { factor: factor * 2.0, good_steps: 0 },
            true => SavedScale { factor, good_steps: good_steps + 1 },
            false => SavedScale { factor: factor / 2.0, good_steps: 0 },
        };
    }

    /// The factor as a tensor `[1]`, to be read with a step's losses.
    pub(super) fn factor(&self, device: &Device) -> Tensor<1> {
        match &self.device {
            Some(values) => values.clone().slice(0..1),
            None => Tensor::from_data([self.host.factor as f32], &device.clone().inner()),
        }
    }

    /// Whether a step whose gradient is not finite may be skipped, since a smaller factor might help.
    pub(super) fn may_skip(precision: Precision, factor: f32) -> bool {
        precision == Precision::F16 && factor >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_falls_when_gradients_overflow_and_rises_when_they_do_not() {
        let device = Device::flex();
        let mut scale = LossScale::new(Precision::F16, SavedScale::default(), &device);
        scale.update(false);
        assert_eq!(scale.saved(), SavedScale { factor: 32_768.0, good_steps: 0 });
        (0..2000).for_each(|_| scale.update(true));
        assert_eq!(scale.saved(), SavedScale { factor: 65_536.0, good_steps: 0 });
        let skipped = (0..100).take_while(|_| {
            scale.update(false);
            LossScale::may_skip(Precision::F16, scale.saved().factor as f32)
        });
        assert_eq!(skipped.count(), 16, "then it is no matter of scale");
        let mut unscaled = LossScale::new(Precision::Bf16, SavedScale::default(), &device);
        unscaled.update(false);
        assert_eq!(unscaled.host.factor, 1.0);
        assert!(!LossScale::may_skip(Precision::F32, 1.0));
    }

    #[test]
    fn a_device_without_it_says_so() {
        #[allow(deprecated)]
        let error = Precision::Bf16.check(&Device::ndarray()).unwrap_err();
        assert!(error.to_string().contains("BF16"), "{error}");
        Precision::Bf16.check(&Device::flex()).unwrap();
    }
}
