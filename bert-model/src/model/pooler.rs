//! The pooler (paper, section 3.1, "C"): the final hidden state of `[CLS]` as the summary of the whole sequence.

use burn::prelude::*;

use super::Initializer;
use super::linear::Linear;

/// `tanh(W·h[CLS] + b)`.
#[derive(Module, Debug)]
pub struct Pooler {
    /// H to H.
    pub dense: Linear,
}

impl Pooler {
    /// A fresh projection.
    pub fn init(initializer: &mut Initializer) -> Self {
        let hidden = initializer.config().hidden_size;
        Self { dense: initializer.linear(hidden, hidden) }
    }

    /// # Shapes
    /// - `hidden`: `[B, T, H]`
    /// - output: `[B, H]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<2> {
        let first = hidden.slice_dim(1, 0..1).squeeze_dim(1);
        self.dense.forward(first).tanh()
    }
}
