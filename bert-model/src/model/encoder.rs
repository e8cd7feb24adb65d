//! The Transformer encoder (Devlin et al. 2018, §3; Vaswani et al. 2017, §3.1): L layers of self-attention and a
//! feed-forward network, each with dropout, a residual connection and layer normalization *after* the sum (post-norm).

use burn::prelude::*;
use burn::tensor::activation;

use super::Initializer;
use super::attention::MultiHeadAttention;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::config::Activation;
use crate::ops::{self, dropout::Dropout, tape};

/// The Transformer encoder: a stack of L layers.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The layers, from input to output.
    pub layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// `num_hidden_layers` newly initialized layers.
    pub fn init(initializer: &mut Initializer) -> Self {
        let layers = initializer.config().num_hidden_layers;
        Self { layers: (0..layers).map(|_| EncoderLayer::init(initializer)).collect() }
    }

    /// The hidden states of the last layer.
    ///
    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    /// - `padding`: `[B, T]`, true for padding tokens
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        self.layers.iter().fold(hidden, |hidden, layer| {
            let padding = padding.clone();
            tape::layer(layer, hidden, move |layer, hidden| layer.forward(hidden, padding.clone()))
        })
    }
}

/// One encoder layer (Vaswani et al. 2017, §3.1): self-attention, then the feed-forward network, each followed by a
/// residual sum and layer normalization.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Self-attention over the tokens.
    pub attention: MultiHeadAttention,
    /// Normalization of the attention's residual sum.
    pub attention_norm: LayerNorm,
    /// The feed-forward network, applied to each token separately.
    pub feed_forward: FeedForward,
    /// Normalization of the feed-forward network's residual sum.
    pub feed_forward_norm: LayerNorm,
    /// Dropout of both outputs, before the residual sum.
    pub dropout: Dropout,
}

impl EncoderLayer {
    /// A newly initialized layer.
    pub fn init(initializer: &mut Initializer) -> Self {
        Self {
            attention: MultiHeadAttention::init(initializer),
            attention_norm: initializer.layer_norm(),
            feed_forward: FeedForward::init(initializer),
            feed_forward_norm: initializer.layer_norm(),
            dropout: Dropout::new(initializer.config().hidden_dropout_prob),
        }
    }

    /// The hidden states after this layer.
    ///
    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    /// - `padding`: `[B, T]`, true for padding tokens
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let context = self.attention.forward(hidden.clone(), padding);
        let hidden = self.attention_norm.after_residual(hidden, &self.attention.output, context, &self.dropout);
        let activated = self.feed_forward.forward(hidden.clone());
        self.feed_forward_norm.after_residual(hidden, &self.feed_forward.output, activated, &self.dropout)
    }
}

/// The position-wise feed-forward network (Vaswani et al. 2017, §3.3): `W₂·act(W₁·x + b₁) + b₂`, H → I → H, in BERT with
/// I = 4·H. It has no dropout of its own.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// The inner layer, H to I.
    pub intermediate: Linear,
    /// The outer layer, I to H.
    pub output: Linear,
    /// The nonlinearity between the two.
    #[module(skip)]
    pub activation: Activation,
}

impl FeedForward {
    /// Newly initialized layers.
    pub fn init(initializer: &mut Initializer) -> Self {
        let config = initializer.config();
        Self {
            intermediate: initializer.linear(config.hidden_size, config.intermediate_size),
            output: initializer.linear(config.intermediate_size, config.hidden_size),
            activation: config.hidden_act,
        }
    }

    /// The inner layer, `act(W₁·x + b₁)`. The outer layer is applied with the residual sum, by
    /// [`LayerNorm::after_residual`].
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, H]`
    /// - output: `[B, T, I]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        dense_activation(&self.intermediate, self.activation, hidden)
    }
}

/// Applies a dense layer and a nonlinearity. Shapes: see [`Linear::forward`].
pub fn dense_activation<const D: usize>(linear: &Linear, activation: Activation, x: Tensor<D>) -> Tensor<D> {
    match activation {
        Activation::Gelu => ops::linear_gelu(x, linear.weight.val(), linear.bias.val()),
        _ => activate(activation, linear.forward(x)),
    }
}

/// Applies a nonlinearity elementwise.
fn activate<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    match activation {
        Activation::Gelu => ops::gelu(x),
        Activation::GeluNew => activation::gelu_approximate(x),
        Activation::Relu => activation::relu(x),
        Activation::Silu => activation::silu(x),
        Activation::Tanh => activation::tanh(x),
    }
}
