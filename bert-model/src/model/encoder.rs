//! The Transformer encoder (Devlin et al. 2018, §3; Vaswani et al. 2017, §3.1): L layers of self-attention and a
//! feed-forward network, each with dropout, a residual connection and layer normalization *after* the sum (post-norm).

use std::sync::Arc;

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{DType, activation};

use super::Initializer;
use super::attention::MultiHeadAttention;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::config::Activation;
use crate::ops::packed::{self, Norm, PackedLayer, Precision};
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
        let packed: Option<Vec<&PackedLayer>> = self.layers.iter().map(|layer| layer.packed.as_deref()).collect();
        if let Some(layers) = packed.filter(|layers| !layers.is_empty()) {
            return packed::encode(&layers, hidden, padding);
        }
        let dtype = hidden.dtype();
        let hidden = hidden.cast(self.layers.first().map_or(dtype, EncoderLayer::dtype));
        let forward = |hidden, layer: &EncoderLayer| {
            let padding = padding.clone();
            tape::layer(layer, hidden, move |layer, hidden| layer.forward(hidden, padding.clone()))
        };
        self.layers.iter().fold(hidden, forward).cast(dtype)
    }

    /// Rounds the weights of all layers to a precision, for inference: the encoder can no longer be trained. On `flex`
    /// they are also packed for its products, which frees those of the dense layers; on a GPU the layers then compute
    /// in this precision. The device must support the precision ([`Precision::check`]). Layers that are packed stay as
    /// they are.
    pub fn pack(&mut self, precision: Precision) {
        let layers = std::mem::take(&mut self.layers).into_iter();
        self.layers = layers.map(|layer| layer.pack(precision)).collect();
    }

    /// Undoes [`Encoder::pack`]; the weights stay rounded.
    pub fn unpack(&mut self) {
        let layers = std::mem::take(&mut self.layers).into_iter();
        self.layers = layers.map(EncoderLayer::unpack).collect();
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
    /// The weights of all six dense layers, if they are packed for inference ([`Encoder::pack`]); the layers above then
    /// have none.
    #[module(skip)]
    pub packed: Option<Arc<PackedLayer>>,
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
            packed: None,
        }
    }

    /// The hidden states after this layer.
    ///
    /// # Shapes
    /// - `hidden` and output: `[B, T, H]`
    /// - `padding`: `[B, T]`, true for padding tokens
    pub fn forward(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        if let Some(packed) = &self.packed {
            return packed::encode(&[packed], hidden, padding);
        }
        let dtype = hidden.dtype();
        let hidden = hidden.cast(self.dtype());
        let context = self.attention.forward(hidden.clone(), padding);
        let hidden = self.attention_norm.after_residual(hidden, &self.attention.output, context, &self.dropout);
        let activated = self.feed_forward.forward(hidden.clone());
        self.feed_forward_norm.after_residual(hidden, &self.feed_forward.output, activated, &self.dropout).cast(dtype)
    }

    /// The number type that the layer computes in.
    fn dtype(&self) -> DType {
        self.attention_norm.gamma.val().dtype()
    }

    /// The attention probabilities of this layer; see [`MultiHeadAttention::probabilities`].
    pub fn probabilities(&self, hidden: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<4> {
        match &self.packed {
            Some(packed) => {
                let [query, key] = packed.queries_and_keys(hidden);
                ops::attention::probabilities(query, key, padding, self.attention.heads)
            }
            None => {
                let dtype = hidden.dtype();
                self.attention.probabilities(hidden.cast(self.dtype()), padding).cast(dtype)
            }
        }
    }

    /// The dense layers in the order of [`PackedLayer::new`].
    fn dense(&mut self) -> [&mut Linear; 6] {
        let (attention, feed_forward) = (&mut self.attention, &mut self.feed_forward);
        [
            &mut attention.query,
            &mut attention.key,
            &mut attention.value,
            &mut attention.output,
            &mut feed_forward.intermediate,
            &mut feed_forward.output,
        ]
    }

    fn pack(mut self, precision: Precision) -> Self {
        if self.attention_norm.gamma.val().device() != Device::flex() {
            return self.map(&mut Cast(if precision == Precision::Bf16 { DType::BF16 } else { DType::F32 }));
        }
        if self.packed.is_some() {
            return self;
        }
        let norms = [&self.attention_norm, &self.feed_forward_norm].map(|norm| Norm {
            gamma: host(&norm.gamma),
            beta: host(&norm.beta),
            epsilon: norm.epsilon as f32,
        });
        let (activation, heads) = (self.feed_forward.activation, self.attention.heads);
        let mut dense = self.dense();
        let take = |number: usize| {
            let linear = &mut *dense[number];
            let (weights, device) = (host(&linear.weight), linear.bias.val().device());
            linear.weight = Param::from_tensor(Tensor::empty([0, 0], &device));
            (weights, host(&linear.bias))
        };
        self.packed = Some(Arc::new(PackedLayer::new(precision, take, norms, activation, heads)));
        self
    }

    fn unpack(mut self) -> Self {
        let Some(packed) = self.packed.take() else { return self.map(&mut Cast(DType::F32)) };
        for (linear, (weights, bias)) in self.dense().into_iter().zip(packed.dense()) {
            let device = linear.bias.val().device();
            let shape = [weights.len() / bias.len().max(1), bias.len()];
            linear.weight = Param::from_data(TensorData::new(weights, shape), &device);
        }
        self
    }
}

/// Casts all parameters to a number type.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|values| values.cast(self.0))
    }
}

/// The values of a parameter.
fn host<const D: usize>(parameter: &Param<Tensor<D>>) -> Vec<f32> {
    parameter.val().into_data().iter::<f32>().collect()
}

/// The position-wise feed-forward network (Vaswani et al. 2017, §3.3): `W₂·act(W₁·x + b₁) + b₂`, H → I → H, in BERT
/// with I = 4·H. It has no dropout of its own.
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
pub(super) fn dense_activation<const D: usize>(linear: &Linear, activation: Activation, x: Tensor<D>) -> Tensor<D> {
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
