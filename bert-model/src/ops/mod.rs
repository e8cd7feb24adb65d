//! The operations whose speed matters, each with a gradient of its own.
//!
//! Every backend has a reference implementation in burn's own operations. On flex (CPU) and, with the feature `cube`,
//! on GPUs a fused version replaces it for the number types that it supports. Only this module chooses between them;
//! the tests compare them, values and gradients.
//!
//! The model calls [`embed()`] and [`gather_rows()`], [`self_attention()`], [`linear()`], [`linear_gelu()`],
//! [`linear_transposed()`] and [`linear_add_norm()`], [`layer_norm()`], [`gelu()`], [`dropout()`] and
//! [`cross_entropy()`]. [`autocast()`] rounds the operands of products, [`tape`] runs the backward pass layer by layer,
//! and [`optimizer`] updates the parameters.

// burn deprecates ndarray; here it is the second, independent CPU implementation.
#![allow(deprecated)]

mod add_norm;
pub mod attention;
mod autocast;
mod autodiff;
pub mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
pub mod denormals;
pub mod dropout;
mod elementwise;
pub mod embedding;
mod flex;
mod gemm;
pub mod hash;
pub mod layer_norm;
pub mod linear;
mod math;
pub mod optimizer;
pub mod packed;
mod surrogate_loss;
pub mod tape;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Device, Shape, Tensor};

pub use add_norm::{add_norm, linear_add_norm};
pub use attention::{attention, self_attention};
pub use autocast::autocast;
pub use cross_entropy::cross_entropy;
use elementwise::dropout_with;
pub use elementwise::{dropout, gelu, softmax};
pub use embedding::{embed, gather_rows};
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_gelu, linear_transposed};

/// Whether the fused operations of flex apply to a tensor: whether it is `f32` and on flex.
pub(crate) fn is_fast<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// Whether a tensor has half precision, which is too little for sums over a row.
fn is_half<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F16 | DType::BF16)
}

/// Casts a tensor of half precision to `f32`; returns any other tensor unchanged.
pub fn upcast<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_half(&x) { x.cast(DType::F32) } else { x }
}

/// Applies `f` to a tensor reshaped to a matrix along its last dimension, and restores the shape.
fn by_rows<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<D> {
    let shape: Shape = x.shape();
    let columns = shape[D - 1];
    f(x.reshape([shape.num_elements() / columns.max(1), columns])).reshape(shape)
}

/// Rows per sequence of a tensor `[B, …, H]` as a matrix along its last dimension; at least 1.
fn rows_of_a_sequence<const D: usize>(x: &Tensor<D>) -> usize {
    let dims = x.dims();
    dims[..D - 1].iter().skip(1).product::<usize>().max(1)
}
