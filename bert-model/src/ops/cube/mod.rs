//! The operations of the model on GPUs: each is one or a few kernels, written in CubeCL, which compiles them for CUDA,
//! Vulkan, Metal or WebGPU when they first run.
//!
//! Elementwise work between two matrix products is one kernel, forward and backward. Rows are computed in `f32` whatever
//! the tensors hold. Every sum has a fixed order, so that a run repeats bit for bit. What changes from step to step (the
//! keys of dropout) is read from a tensor, so that a step's launches are those of the step before.
//!
//! [`rows`] sums along a row and down columns, [`launch`] has sizes and buffers; the rest is a file for each operation.

mod activation;
mod add_norm;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod launch;
mod product;
mod rows;

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Tensor};

pub use activation::linear_gelu;
pub use add_norm::{layer_norm, linear_add_norm};
pub use attention::self_attention;
pub use cross_entropy::cross_entropy;
pub use dropout::dropout;
pub use embedding::embed;
pub use product::linear;

/// Whether a tensor is on a GPU and of a kind that the kernels take: `f32`, `f16` or `bf16`.
pub fn runs<const D: usize>(x: &Tensor<D>) -> bool {
    let is_on_gpu = matches!(x.device().inner().as_dispatch(), DispatchDevice::Cube(_));
    is_on_gpu && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}
