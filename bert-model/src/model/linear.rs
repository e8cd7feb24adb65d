//! The dense layer, which holds most of BERT's weights.

use burn::module::Param;
use burn::prelude::*;

use crate::ops;

/// A dense layer, `x·W + b`, I → O.
#[derive(Module, Debug)]
pub struct Linear {
    /// Weights W, `[I, O]` (transposed in Hugging Face's files).
    pub weight: Param<Tensor<2>>,
    /// Bias b, `[O]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Applies the layer along the last dimension.
    ///
    /// # Shapes
    /// - `x`: `[…, I]`
    /// - output: `[…, O]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, self.weight.val(), self.bias.val())
    }
}
