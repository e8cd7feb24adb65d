//! Half-precision training (Micikevicius et al. 2018, "Mixed Precision Training"): the forward and backward pass compute
//! with half-precision copies of the weights; the weights themselves, their gradients' sum and the optimizer stay in `f32`,
//! and so do softmax, LayerNorm and the losses.

use std::str::FromStr;

use bert_model::{Error, Result};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::DType;
use serde::{Deserialize, Serialize};

/// The numbers in which a model computes while it learns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: the range of `f32`, eight bits of precision.
    Bf16,
    /// IEEE half precision: eleven bits, but nothing above 65,504, so that the loss is scaled (see [`LossScale`]).
    F16,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(format!("`{name}` is none of f32, bf16, f16")),
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

    /// # Errors
    /// If the device cannot compute in this precision.
    pub fn check(self, device: &Device) -> Result<()> {
        match device.supports_dtype(self.dtype()) {
            true => Ok(()),
            false => Err(Error::Setting(format!(
                "--precision: found {:?}, which this device does not compute in, expected f32 or another --device",
                self.dtype()
            ))),
        }
    }

    /// A copy of the model with gradients of its own, in this precision.
    pub(super) fn copy<M: Module>(self, model: &M, device: &Device) -> M {
        let copy = model.clone().fork(device);
        if self == Self::F32 { copy } else { copy.map(&mut Cast(self.dtype())) }
    }
}

struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|leaf| {
            let learns = leaf.is_require_grad();
            let copy = Tensor::from_inner(leaf.inner().cast(self.0));
            if learns { copy.require_grad() } else { copy }
        })
    }
}

/// What the loss is multiplied by in `f16`, so that small gradients do not become 0: doubled after 2,000 good steps,
/// halved whenever a gradient overflows, in a step that is then left out (as PyTorch's `GradScaler` does).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    factor: f64,
    good_steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65_536.0, good_steps: 0 }
    }
}

impl LossScale {
    /// The factor for this precision; 1 unless it is `f16`.
    pub(super) fn factor(&self, precision: Precision) -> f64 {
        if precision == Precision::F16 { self.factor } else { 1.0 }
    }

    /// Learns whether the gradients of a step were finite; true if the step is to be left out. Where no factor helps, it
    /// is not: then the numbers have gone bad.
    pub(super) fn update(&mut self, precision: Precision, finite: bool) -> bool {
        if precision != Precision::F16 {
            return false;
        }
        self.good_steps = if finite { self.good_steps + 1 } else { 0 };
        match finite {
            true if self.good_steps == 2000 => *self = Self { factor: self.factor * 2.0, good_steps: 0 },
            true => {}
            false => self.factor /= 2.0,
        }
        !finite && self.factor >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_falls_when_gradients_overflow_and_rises_when_they_do_not() {
        let mut scale = LossScale::default();
        assert!(scale.update(Precision::F16, false));
        assert_eq!(scale.factor(Precision::F16), 32_768.0);
        assert!((0..2000).all(|_| !scale.update(Precision::F16, true)));
        assert_eq!(scale.factor(Precision::F16), 65_536.0);
        assert_eq!(scale.factor(Precision::Bf16), 1.0);
        let left_out = (0..100).filter(|_| scale.update(Precision::F16, false)).count();
        assert_eq!(left_out, 16, "then it is no matter of scale");
        assert!(!LossScale::default().update(Precision::F32, false));
    }

    #[test]
    fn a_device_without_it_says_so() {
        #[allow(deprecated)]
        let error = Precision::Bf16.check(&Device::ndarray()).unwrap_err();
        assert!(error.to_string().contains("BF16"), "{error}");
        Precision::Bf16.check(&Device::flex()).unwrap();
    }
}
