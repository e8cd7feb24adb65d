//! The dense layer, of which nearly all of BERT's weights are.

use burn::module::Param;
use burn::prelude::*;

use crate::ops;

/// `x·W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[I, O]`; transposed in Hugging Face's files.
    pub weight: Param<Tensor<2>>,
    /// `[O]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// # Shapes
    /// - `x`: `[…, I]`
    /// - output: `[…, O]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, self.weight.val(), self.bias.val())
    }
}
