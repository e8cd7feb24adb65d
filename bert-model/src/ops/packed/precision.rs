//! The number types of inference.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::error::{Error, Result};

/// The number type of weights and activations in the products of an encoder's dense layers.
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
    /// Checks that a device computes in this precision: all of them in `f32`, `flex` also in the others.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(self, device: &Device) -> Result<()> {
        match self == Self::F32 || *device == Device::flex() {
            true => Ok(()),
            false => Err(Error::Setting(format!(
                "--precision: found {self}, which only the device flex computes in, expected f32 or --device flex"
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
