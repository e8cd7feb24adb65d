//! The operations of the model on GPUs: each is one or a few kernels, written in CubeCL, which compiles them for CUDA,
//! Vulkan, Metal or WebGPU when they first run.
//!
//! Elementwise work between two matrix products is one kernel, forward and backward. Rows are computed in `f32` whatever
//! the tensors hold. Every sum has a fixed order, so that a run repeats bit for bit. What changes from step to step (the
//! keys of dropout) is read from a tensor, so that a step's launches are those of the step before.
//!
//! [`rows`] sums along a row and down columns, [`launch`] has sizes and buffers; the rest is a file for each operation.

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
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod gather;
mod launch;
pub mod optimizer;
mod product;
mod reading;
mod rows;

use burn::backend::{BackendTensor, DispatchDevice, DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;

pub use activation::linear_gelu;
pub use add_norm::{layer_norm, linear_add_norm};
pub use attention::self_attention;
pub use cross_entropy::cross_entropy;
pub use dropout::dropout;
pub use embedding::{add_rows, embed};
pub use gather::gather_rows;
pub use product::linear;
pub use reading::Reading;

/// Whether a tensor is on a GPU and of a kind that the kernels take: `f32`, `f16` or `bf16`.
pub fn runs<const D: usize>(x: &Tensor<D>) -> bool {
    is_gpu(&x.device()) && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// Whether a device is a GPU.
pub fn is_gpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_))
}

/// What the kernels take: the tensor itself, outside of any graph.
///
/// # Panics
/// If it is not on a GPU, or part of a graph.
#[allow(clippy::panic, reason = "the callers have asked `runs`")]
fn primitive<const D: usize>(x: Tensor<D>) -> CubeTensor {
    match x.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Float(x)) => x,
        _ => panic!("a tensor that is not on a GPU, or that is part of a graph"),
    }
}

/// [`primitive`] for whole numbers.
#[allow(clippy::panic, reason = "the callers have asked `runs`")]
fn integers<const D: usize>(x: Tensor<D, Int>) -> CubeTensor {
    match x.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Int(x)) => x,
        _ => panic!("a tensor of whole numbers that is not on a GPU"),
    }
}

/// The reverse of [`primitive`].
fn tensor<const D: usize>(x: CubeTensor) -> Tensor<D> {
    let kind = DispatchTensorKind::Cube(BackendTensor::Float(x));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() })
}
