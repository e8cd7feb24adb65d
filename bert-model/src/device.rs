//! Selects the device that a user names: "flex", "wgpu", "cuda", …
//!
//! Backends are cargo features of this crate and of the programs. `flex` (pure Rust, the fastest on a CPU) is always
//! available.

use std::fmt;
use std::path::Path;

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::{DeviceKind, DeviceType};

use crate::error::{Error, Result};

/// All names that [`select`] accepts.
pub const NAMES: [&str; 8] = ["auto", "flex", "ndarray", "wgpu", "vulkan", "metal", "cuda", "rocm"];

/// A device and the name it was selected by.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NamedDevice {
    /// One of [`NAMES`], never "auto".
    pub name: &'static str,
    /// The device, without autodiff.
    pub device: Device,
}

/// The name, and what it is: `flex (CPU)`, or `cuda (GPU: NVIDIA H200, for ptx_sm90)`, with what kernels are compiled
/// for.
impl fmt::Display for NamedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.name, "flex" | "ndarray") {
            return write!(f, "{} (CPU)", self.name);
        }
        #[cfg(feature = "cube")]
        if let Some(gpu) = self.device.identity() {
            return write!(f, "{} (GPU: {}, for {})", self.name, gpu.name, gpu.fingerprint);
        }
        write!(f, "{} (GPU)", self.name)
    }
}

/// Selects a device by name; `auto` selects the fastest one available in this build and on this machine. The name of a
/// GPU backend may end with the number of a GPU, from 0: `cuda:1`. For wgpu, Vulkan and Metal, 0 is the driver's
/// choice, and the others are counted among the discrete GPUs.
///
/// # Errors
/// If the name is unknown, this build lacks the backend (the message names the cargo feature to add), or the machine
/// has no suitable GPU.
///
/// ```
/// assert_eq!(bert_model::device::select("flex").unwrap().name, "flex");
/// assert!(bert_model::device::select("abacus").is_err());
/// assert!(bert_model::device::select("flex:1").is_err());
/// ```
pub fn select(name: &str) -> Result<NamedDevice> {
    select_number(name, 0)
}

/// Selects a device as [`select`] does, but if it is a GPU whose number the name does not say, the one with this
/// number, from 0: several processes on one machine can each use one of their own.
///
/// # Errors
/// As [`select`], and if the machine has fewer such GPUs.
pub fn select_number(name: &str, number: usize) -> Result<NamedDevice> {
    if let Some((backend, own)) = name.split_once(':') {
        return match own.parse() {
            _ if ["auto", "flex", "ndarray"].contains(&backend) => Err(error(backend, "takes no number, as GPUs do")),
            Ok(own) => select_number(backend, own),
            Err(_) => Err(error(name, "expected the number of a GPU, as in `cuda:1`")),
        };
    }
    match name {
        "auto" => match fastest() {
            gpu if number > 0 && gpu.name != "flex" => select_number(gpu.name, number),
            device => Ok(device),
        },
        "flex" => Ok(NamedDevice { name: "flex", device: Device::flex() }),
        "ndarray" => ndarray(),
        "wgpu" => wgpu(number),
        "vulkan" => vulkan(number),
        "metal" => metal(number),
        "cuda" => cuda(number),
        "rocm" => rocm(number),
        _ => Err(error(name, format!("no such device; expected one of {}", NAMES.join(", ")))),
    }
}

/// A hardware GPU if there is one, otherwise the CPU. A software rasterizer is never chosen: flex is faster.
fn fastest() -> NamedDevice {
    #[cfg(feature = "cuda")]
    if let Ok(device) = cuda(0) {
        return device;
    }
    #[cfg(feature = "rocm")]
    if let Ok(device) = rocm(0) {
        return device;
    }
    #[cfg(feature = "wgpu")]
    if may_have_gpu() {
        let adapters = Device::enumerate(DeviceType::Wgpu);
        for kind in [DeviceKind::DiscreteGpu(0), DeviceKind::IntegratedGpu(0), DeviceKind::VirtualGpu(0)] {
            let device = Device::wgpu(kind);
            if adapters.contains(&device) {
                return NamedDevice { name: "wgpu", device };
            }
        }
    }
    NamedDevice { name: "flex", device: Device::flex() }
}

/// Whether this machine appears to have a GPU but this build has no backend for it.
pub fn is_gpu_idle() -> bool {
    !cfg!(feature = "cube") && has_gpu_node()
}

/// Whether enumerating adapters is worthwhile: loading the drivers takes time and writes to stderr.
#[cfg(feature = "wgpu")]
fn may_have_gpu() -> bool {
    !cfg!(target_os = "linux") || has_gpu_node()
}

/// Whether a Linux device node of a GPU exists.
fn has_gpu_node() -> bool {
    ["/dev/dri", "/dev/nvidiactl", "/dev/dxg"].iter().any(|node| Path::new(node).exists())
}

/// Builds an error about the device `name`.
fn error(name: &str, reason: impl Into<String>) -> Error {
    Error::Device { name: name.into(), reason: reason.into() }
}

/// burn deprecates ndarray; it is kept as a second, independent CPU implementation.
#[cfg(feature = "ndarray")]
#[allow(deprecated)]
fn ndarray() -> Result<NamedDevice> {
    Ok(NamedDevice { name: "ndarray", device: Device::ndarray() })
}

#[cfg(not(feature = "ndarray"))]
fn ndarray() -> Result<NamedDevice> {
    Err(not_built("ndarray"))
}

/// The error for a backend that this build lacks.
fn not_built(feature: &'static str) -> Error {
    Error::NotBuilt { feature }
}

/// Defines a GPU backend: its device, if the build has the feature and the machine an adapter.
macro_rules! gpu {
    ($name:ident, $feature:literal, $kind:ident, $device:expr) => {
        #[cfg(feature = $feature)]
        fn $name(number: usize) -> Result<NamedDevice> {
            use burn::tensor::DeviceType;
            let (all, device) = (Device::enumerate(DeviceType::$kind), $device(number));
            if all.is_empty() {
                return Err(error($feature, "this machine has no such device, or its driver is not installed"));
            }
            if number > 0 && !all.contains(&device) {
                let found = format!("this machine has none with the number {number}");
                return Err(error(
                    $feature,
                    format!("{found}; if each process sees one GPU only, name it {}:0", $feature),
                ));
            }
            Ok(NamedDevice { name: $feature, device })
        }

        #[cfg(not(feature = $feature))]
        fn $name(_number: usize) -> Result<NamedDevice> {
            Err(not_built($feature))
        }
    };
}

/// The kind of a GPU with this number; the driver's choice for 0.
#[cfg(feature = "wgpu")]
fn kind(number: usize) -> DeviceKind {
    if number == 0 { DeviceKind::DefaultDevice } else { DeviceKind::DiscreteGpu(number) }
}

gpu!(wgpu, "wgpu", Wgpu, |number| Device::wgpu(kind(number)));
gpu!(vulkan, "vulkan", Vulkan, |number| Device::vulkan(kind(number)));
gpu!(metal, "metal", Metal, |number| Device::metal(kind(number)));
gpu!(cuda, "cuda", Cuda, |number: usize| Device::cuda(number));
gpu!(rocm, "rocm", Rocm, |number: usize| Device::rocm(number));
