//! A stand-in for the loss, from which a backward pass starts at any tensor with a given gradient.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;

use super::TensorMetadata;
use super::autodiff::{Differentiable, apply};

/// A scalar `[1]` whose gradient with respect to `x` is `gradient`, of the same shape. Its value has no meaning.
pub fn surrogate_loss<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::surrogate_loss(x.into_dispatch(), gradient.into_dispatch()))
}

/// [`surrogate_loss`] on a backend.
#[backend_extension(Flex, NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Autodiff)]
pub trait SurrogateLossOps: Backend {
    /// Without autodiff there is nothing to differentiate: returns any scalar.
    fn surrogate_loss(_x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let count = gradient.shape().num_elements();
        let values = Self::float_reshape(gradient, Shape::from([count]));
        Self::float_slice(values, &[burn::tensor::Slice::from(0..1)])
    }
}

impl SurrogateLossOps for Flex {}
#[cfg(feature = "ndarray")]
impl SurrogateLossOps for burn::backend::NdArray {}
#[cfg(feature = "cube")]
impl SurrogateLossOps for burn::backend::Cube {}

/// [`SurrogateLossOps::surrogate_loss`] for autodiff.
#[derive(Debug, Clone)]
struct SurrogateLoss<B: Backend> {
    gradient: FloatTensor<B>,
}

impl<B: SurrogateLossOps> Differentiable<B, 1> for SurrogateLoss<B> {
    type Saved = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, ()) {
        (B::surrogate_loss(x, self.gradient.clone()), ())
    }

    fn backward(self, (): (), _one: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(self.gradient)]
    }
}

impl<B: SurrogateLossOps, C: CheckpointStrategy> SurrogateLossOps for Autodiff<B, C> {
    fn surrogate_loss(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(SurrogateLoss::<B> { gradient: gradient.into_primitive() }, [x])
    }
}
