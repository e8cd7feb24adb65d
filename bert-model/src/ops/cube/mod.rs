//! The model's operations on GPUs, as kernels written in CubeCL, which compiles them at run time for CUDA, Vulkan,
//! Metal or WebGPU.
//!
//! All elementwise work between two matrix products is one kernel, forward and backward. Rows are computed in `f32`,
//! whatever the tensors' number type. Every sum has a fixed order, so that runs repeat bit for bit. What changes from
//! step to step (the dropout keys) is read from a tensor, so that all steps launch the same kernels with the same
//! arguments.
//!
//! [`rows`] sums along rows and down columns, [`launch`] has sizes and buffers; every other file is one operation.

#![allow(
    clippy::too_many_arguments,
    clippy::collapsible_if,
    clippy::manual_div_ceil,
    clippy::useless_conversion,
    clippy::assign_op_pattern,
    clippy::explicit_counter_loop,
    reason = "kernels are written for CubeCL's macro, which gives these forms their meaning"
)]

mod activation;
mod add_norm;
mod add_rows;
mod attention;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cublas;
mod dropout;
mod embedding;
mod gather;
mod launch;
mod layer_norm;
pub mod optimizer;
mod product;
mod reading;
mod rows;
mod tiles;

use burn::backend::{BackendTensor, DispatchDevice, DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;

pub use activation::linear_gelu;
pub use add_norm::linear_add_norm;
pub use add_rows::add_rows;
pub use attention::self_attention;
pub use cross_entropy::cross_entropy;
pub use dropout::dropout;
pub use embedding::embed;
pub use gather::gather_rows;
pub use layer_norm::layer_norm;
pub use product::linear;
pub use reading::Reading;

/// Whether the kernels apply to a tensor: whether it is on a GPU, and `f32`, `f16` or `bf16`.
pub fn runs<const D: usize>(x: &Tensor<D>) -> bool {
    is_gpu(&x.device()) && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// Whether a device is a GPU.
pub fn is_gpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_))
}

/// The CubeCL tensor of a tensor without an autodiff graph.
///
/// # Panics
/// If the tensor is not on a GPU, or has a graph.
#[allow(clippy::panic, reason = "the callers have checked `runs`")]
fn primitive<const D: usize>(x: Tensor<D>) -> CubeTensor {
    match x.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Float(x)) => x,
        _ => panic!("expected a float tensor on a GPU, without an autodiff graph"),
    }
}

/// [`primitive`] for an integer tensor.
#[allow(clippy::panic, reason = "the callers have checked `runs`")]
fn integers<const D: usize>(x: Tensor<D, Int>) -> CubeTensor {
    match x.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Int(x)) => x,
        _ => panic!("expected an integer tensor on a GPU"),
    }
}

/// The inverse of [`primitive`].
fn tensor<const D: usize>(x: CubeTensor) -> Tensor<D> {
    let kind = DispatchTensorKind::Cube(BackendTensor::Float(x));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() })
}
