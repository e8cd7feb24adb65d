//! The pooler (Devlin et al. 2018, §3 and §3.1, "C"): a vector for the whole sequence from the last hidden state of
//! `[CLS]`.

use burn::prelude::*;

use super::Initializer;
use super::linear::Linear;

/// The pooler, `tanh(W·h[CLS] + b)`.
#[derive(Module, Debug)]
pub struct Pooler {
    /// Dense layer, H to H.
    pub dense: Linear,
}

impl Pooler {
    /// A newly initialized pooler.
    pub fn init(initializer: &mut Initializer) -> Self {
        let hidden = initializer.config().hidden_size;
        Self { dense: initializer.linear(hidden, hidden) }
    }

    /// The pooled output, from the first hidden state of each sequence.
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, H]`
    /// - output: `[B, H]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<2> {
        let first = hidden.slice_dim(1, 0..1).squeeze_dim(1);
        self.dense.forward(first).tanh()
    }
}
