//! Where a backward pass begins with a given gradient, rather than with 1 at a loss.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;

use super::TensorMetadata;
use super::autodiff::{Differentiable, apply};

/// A scalar `[1]` whose backward pass gives `x` the gradient `gradient`; its value means nothing.
///
/// # Shapes
/// - `x` and `gradient`: the same
pub fn seed<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::begin_with(x.into_dispatch(), gradient.into_dispatch()))
}

/// See [`seed`].
#[backend_extension(Flex, NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Autodiff)]
pub trait SeedOps: Backend {
    /// Outside of a graph there is nothing to begin: any scalar does.
    fn begin_with(_x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let count = gradient.shape().num_elements();
        let values = Self::float_reshape(gradient, Shape::from([count]));
        Self::float_slice(values, &[burn::tensor::Slice::from(0..1)])
    }
}

impl SeedOps for Flex {}
#[cfg(feature = "ndarray")]
impl SeedOps for burn::backend::NdArray {}
#[cfg(feature = "cube")]
impl SeedOps for burn::backend::Cube {}

#[derive(Debug, Clone)]
struct Seed<B: Backend> {
    gradient: FloatTensor<B>,
}

impl<B: SeedOps> Differentiable<B, 1> for Seed<B> {
    type Saved = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, ()) {
        (B::begin_with(x, self.gradient.clone()), ())
    }

    fn backward(self, (): (), _one: FloatTensor<B>, _wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(self.gradient)]
    }
}

impl<B: SeedOps, C: CheckpointStrategy> SeedOps for Autodiff<B, C> {
    fn begin_with(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<_, B, C, 1>(Seed::<B> { gradient: gradient.into_primitive() }, [x])
    }
}
