//! The Transformer encoder (paper, section 3; Vaswani et al. 2017, section 3.1): L layers of attention and a
//! feed-forward network, each with dropout, a residual connection and LayerNorm *after* the sum (post-norm).

use burn::prelude::*;
use burn::tensor::activation;

use super::Initializer;
use super::attention::MultiHeadAttention;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::config::Activation;
use crate::ops::{self, dropout::Dropout, tape};

/// L encoder layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// From the input to the output.
    pub layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// `num_hidden_layers` fresh layers.
    pub fn init(initializer: &mut Initializer) -> Self {
        let layers = initializer.config().num_hidden_layers;
        Self { layers: (0..layers).map(|_| EncoderLayer::init(initializer)).collect() }
    }

    /// # Shapes
    /// - `hidden`: `[B, T, H]`
    /// - `padding`: `[B, T]`, true at padding
    /// - output: `[B, T, H]`
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        self.layers.iter().fold(hidden, |hidden, layer| {
            let padding = padding.clone();
            tape::layer(layer, hidden, move |layer, hidden| layer.forward(hidden, padding.clone()))
        })
    }
}

/// Attention, then feed-forward.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Mixes tokens.
    pub attention: MultiHeadAttention,
    /// After attention and its residual.
    pub attention_norm: LayerNorm,
    /// Works on each token by itself.
    pub feed_forward: FeedForward,
    /// After the feed-forward network and its residual.
    pub feed_forward_norm: LayerNorm,
    /// On the output of each of the two, before the residual is added.
    pub dropout: Dropout,
}

impl EncoderLayer {
    /// A fresh layer.
    pub fn init(initializer: &mut Initializer) -> Self {
        Self {
            attention: MultiHeadAttention::init(initializer),
            attention_norm: initializer.layer_norm(),
            feed_forward: FeedForward::init(initializer),
            feed_forward_norm: initializer.layer_norm(),
            dropout: Dropout::new(initializer.config().hidden_dropout_prob),
        }
    }

    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    /// - `padding`: `[B, T]`, true at padding
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let attended = self.attention.forward(hidden.clone(), padding);
        let hidden = self.attention_norm.after_residual(hidden, attended, &self.dropout);
        let fed = self.feed_forward.forward(hidden.clone());
        self.feed_forward_norm.after_residual(hidden, fed, &self.dropout)
    }
}

/// `W₂·act(W₁·x + b₁) + b₂`, H → 4H → H. There is no dropout inside.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// H to the intermediate size.
    pub intermediate: Linear,
    /// Back to H.
    pub output: Linear,
    /// Between the two.
    #[module(skip)]
    pub activation: Activation,
}

impl FeedForward {
    /// Fresh projections.
    pub fn init(initializer: &mut Initializer) -> Self {
        let config = initializer.config();
        Self {
            intermediate: initializer.linear(config.hidden_size, config.intermediate_size),
            output: initializer.linear(config.intermediate_size, config.hidden_size),
            activation: config.hidden_act,
        }
    }

    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.output.forward(activate(self.activation, self.intermediate.forward(hidden)))
    }
}

/// Applies a nonlinearity to every element.
pub fn activate<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    match activation {
        Activation::Gelu => ops::gelu(x),
        Activation::GeluNew => activation::gelu_approximate(x),
        Activation::Relu => activation::relu(x),
        Activation::Silu => activation::silu(x),
        Activation::Tanh => activation::tanh(x),
    }
}
