//! The number types of products.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device};

use crate::error::{Error, Result};
use crate::ops::optimizer::is_asynchronous;

/// The number type of weights and activations in the products of an encoder's dense layers; on a GPU, of all that its
/// layers store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16, the range of `f32` with eight bits of precision, summed in single precision.
    Bf16,
    /// 8-bit integers, with a scale for each output and each token. No calibration is needed.
    Int8,
}

impl Precision {
    /// Checks that a device computes in this precision: all of them in `f32`, `flex` in the others too, and a GPU in
    /// bf16 if it has it.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(self, device: &Device) -> Result<()> {
        let is_supported = match self {
            Self::F32 => true,
            Self::Int8 => *device == Device::flex(),
            Self::Bf16 => *device == Device::flex() || is_asynchronous(device) && device.supports_dtype(DType::BF16),
        };
        match is_supported {
            true => Ok(()),
            false => Err(Error::Setting(format!(
                "precision: found {self}, which this device does not compute in, expected f32 or the device flex"
            ))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Self::F32, Self::Bf16, Self::Int8].into_iter().find(|precision| precision.to_string() == name);
        known.ok_or_else(|| format!("`{name}` is none of f32, bf16, int8"))
    }
}
