//! BERT with the dense layers that some sentence embeddings pass after pooling (Reimers and Gurevych 2019,
//! "Sentence-BERT"; LaBSE, Feng et al. 2022).

use burn::module::Param;
use burn::prelude::*;

use super::output_activation::OutputActivation;
use super::{BertModel, Initializer};

/// The encoder of sentence embeddings.
#[derive(Module, Debug)]
pub struct SentenceEncoder {
    /// Texts to hidden states.
    pub bert: BertModel,
    /// What pooled vectors pass, in this order; most models have none.
    pub dense: Vec<Dense>,
}

impl SentenceEncoder {
    /// A fresh BERT with a pooler and no dense layer.
    pub fn init_with(initializer: &mut Initializer) -> Self {
        Self { bert: BertModel::init_with_pooler(initializer), dense: Vec::new() }
    }
}

/// `act(W·x + b)`, optionally with a residual sum.
#[derive(Module, Debug)]
pub struct Dense {
    /// `[I, O]`; transposed in the files of PyTorch.
    pub weight: Param<Tensor<2>>,
    /// `[O]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// How the output is changed.
    #[module(skip)]
    pub activation: OutputActivation,
    /// What the input passes before it is added to the output.
    pub residual: Option<Param<Tensor<2>>>,
    /// Whether the input is added to the output; through `residual` where the widths differ.
    #[module(skip)]
    pub is_residual: bool,
}

impl Dense {
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
