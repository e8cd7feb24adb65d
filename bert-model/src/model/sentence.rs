//! BERT with the dense layers that some sentence-embedding models apply after pooling (Reimers and Gurevych 2019,
//! "Sentence-BERT"; LaBSE, Feng et al. 2022).

use burn::module::Param;
use burn::prelude::*;

use super::output_activation::OutputActivation;
use super::{BertModel, Initializer};

/// The encoder of a sentence-embedding model.
#[derive(Module, Debug)]
pub struct SentenceEncoder {
    /// The BERT encoder, from token ids to hidden states.
    pub bert: BertModel,
    /// The dense layers applied to the pooled vectors, in order; most models have none.
    pub dense: Vec<Dense>,
}

impl SentenceEncoder {
    /// Creates a randomly initialized BERT with a pooler and no dense layers.
    pub fn init_with(initializer: &mut Initializer) -> Self {
        Self { bert: BertModel::init_with_pooler(initializer), dense: Vec::new() }
    }
}

/// A dense layer, `act(W·x + b)`, optionally with a residual connection.
#[derive(Module, Debug)]
pub struct Dense {
    /// The weights `[I, O]`; PyTorch's files store them transposed.
    pub weight: Param<Tensor<2>>,
    /// The bias `[O]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The activation applied to the output.
    #[module(skip)]
    pub activation: OutputActivation,
    /// The projection `[I, O]` of the input before it is added to the output.
    pub residual: Option<Param<Tensor<2>>>,
    /// Whether the input is added to the output, after `residual` if the widths differ.
    #[module(skip)]
    pub is_residual: bool,
}

impl Dense {
    /// Applies the layer to a batch of vectors.
    ///
    /// # Shapes
    /// - `x`: `[B, I]`
    /// - output: `[B, O]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut y = x.clone().matmul(self.weight.val());
        if let Some(bias) = &self.bias {
            y = y + bias.val().unsqueeze_dim(0);
        }
        let y = self.activation.apply(y);
        match (&self.residual, self.is_residual) {
            (Some(residual), _) => y + x.matmul(residual.val()),
            (None, true) => y + x,
            (None, false) => y,
        }
    }
}
