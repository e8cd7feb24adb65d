//! Initial weights, as in google-research/bert's `create_initializer`: weights from N(0, σ²), with σ the
//! configuration's `initializer_range` (0.02), truncated at two standard deviations, biases 0, layer normalization the
//! identity. For task heads see [`Initializer::task_head`].
//!
//! Random numbers are drawn on the host, with a separate generator for each parameter, so that a seed gives the same
//! model on every device. Parameters are lazy: those that a checkpoint provides are never drawn.

use burn::module::{Param, ParamId};
use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::Distribution;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::layer_norm::LayerNorm;
use super::linear::Linear;
use crate::config::BertConfig;

/// Creates newly initialized layers on a device.
#[derive(Debug)]
pub struct Initializer<'a> {
    config: &'a BertConfig,
    device: &'a Device,
    seeds: ChaCha8Rng,
}

impl<'a> Initializer<'a> {
    /// For models of the configuration `config`, with random weights from `seed`.
    ///
    /// # Panics
    /// If the configuration is invalid (see [`BertConfig::validate`]).
    pub fn new(config: &'a BertConfig, seed: u64, device: &'a Device) -> Self {
        let problem = config.validate("BertConfig").err().map(|error| error.to_string());
        assert!(problem.is_none(), "{}", problem.unwrap_or_default());
        Self { config, device, seeds: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// For models of the configuration `config`, with a seed from the generator of `device` (see [`Device::seed`]).
    ///
    /// # Panics
    /// If the configuration is invalid (see [`BertConfig::validate`]).
    pub fn from_device(config: &'a BertConfig, device: &'a Device) -> Self {
        let draw = Tensor::<1, Int>::random([1], Distribution::Uniform(0.0, f64::from(i32::MAX)), device);
        let seed = draw.into_data().iter::<i64>().next().unwrap_or_default();
        Self::new(config, seed as u64, device)
    }

    /// The configuration of the model.
    pub fn config(&self) -> &'a BertConfig {
        self.config
    }

    /// A dense layer, `x·W + b`, with W `[input, output]` from the truncated normal distribution and b `[output]` zero.
    pub fn linear(&mut self, input: usize, output: usize) -> Linear {
        Linear { weight: self.weight([input, output], None), bias: self.zeros([output]) }
    }

    /// The dense layer of a task head, H → `outputs`, with weights from N(0, 0.02·768/H), or N(0, 0.02) if H ≥ 768.
    ///
    /// Fine-tuning takes few steps, and Adam changes a weight by about the learning rate per step. With the usual
    /// initial weights, the logits and the encoder of a narrow model would therefore change less than those of
    /// BERT-base, since each logit sums over fewer weights. This is the output layer of μP (Yang et al. 2022, table 3),
    /// with BERT-base as its reference.
    pub fn task_head(&mut self, outputs: usize) -> Linear {
        let hidden = self.config.hidden_size;
        let deviation = 0.02 * (768.0 / hidden as f32).max(1.0);
        let weight =
            self.random([hidden, outputs], None, move |seed, count| normal(seed, deviation, f32::INFINITY, count));
        Linear { weight, bias: self.zeros([outputs]) }
    }

    /// An embedding table `[rows, H]`. The row `padding` of the padding token, if given, is zero.
    pub fn embedding(&mut self, rows: usize, padding: Option<usize>) -> Embedding {
        Embedding { weight: self.weight([rows, self.config.hidden_size], padding) }
    }

    /// Layer normalization over H with γ = 1, β = 0 and the configured ε.
    pub fn layer_norm(&self) -> LayerNorm {
        let size = self.config.hidden_size;
        LayerNorm {
            gamma: lazy([size], self.device, move |device| Tensor::ones([size], device)),
            beta: self.zeros([size]),
            epsilon: self.config.layer_norm_eps,
        }
    }

    /// A parameter initialized to zero.
    pub fn zeros<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        lazy(shape, self.device, move |device| Tensor::zeros(shape, device))
    }

    /// A matrix from the truncated normal distribution. The row `zero_row`, if given, is zero.
    pub fn weight(&mut self, shape: [usize; 2], zero_row: Option<usize>) -> Param<Tensor<2>> {
        let deviation = self.config.initializer_range as f32;
        self.random(shape, zero_row, move |seed, count| normal(seed, deviation, 2.0, count))
    }

    /// A matrix of random values, which `draw` returns for a seed and their number.
    fn random(
        &mut self,
        shape: [usize; 2],
        zero_row: Option<usize>,
        draw: impl FnOnce(u64, usize) -> Vec<f32> + Send + Sync + 'static,
    ) -> Param<Tensor<2>> {
        let seed = self.seeds.next_u64();
        lazy(shape, self.device, move |device| {
            let mut values = draw(seed, shape[0] * shape[1]);
            if let Some(row) = zero_row {
                values[row * shape[1]..(row + 1) * shape[1]].fill(0.0);
            }
            Tensor::from_data(TensorData::new(values, shape), device)
        })
    }
}

/// A trainable parameter that is computed when it is first read.
fn lazy<const D: usize>(
    shape: [usize; D],
    device: &Device,
    value: impl FnOnce(&Device) -> Tensor<D> + Send + Sync + 'static,
) -> Param<Tensor<D>> {
    let initialize = move |device: &Device, require_grad: bool| value(device).set_require_grad(require_grad);
    Param::uninitialized(ParamId::new(), initialize, device.clone(), true, shape.into())
}

/// `count` draws from N(0, deviation²), truncated at `limit` standard deviations.
fn normal(seed: u64, deviation: f32, limit: f32, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // Box–Muller: two uniform numbers give two normal numbers.
        let radius = (-2.0 * (1.0 - uniform(&mut rng)).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * uniform(&mut rng)).sin_cos();
        values.extend([radius * cos, radius * sin].into_iter().filter(|x| x.abs() <= limit).map(|x| x * deviation));
    }
    values.truncate(count);
    values
}

/// Uniform in [0, 1) with 24 random bits.
fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A normal distribution truncated at ±2σ has the standard deviation 0.8796σ.
    #[test]
    fn weights_are_normal_and_truncated_at_two_deviations() {
        let values = normal(7, 0.02, 2.0, 100_000);
        let mean = values.iter().sum::<f32>() / 1e5;
        let deviation = (values.iter().map(|x| x * x).sum::<f32>() / 1e5 - mean * mean).sqrt();
        assert!(values.iter().all(|x| x.abs() <= 0.04));
        assert!(mean.abs() < 3.0 * 0.0176 / 316.0, "mean {mean}");
        assert!((deviation / 0.02 - 0.8796).abs() < 0.01, "deviation {deviation}");
    }

    #[test]
    fn a_seed_determines_the_weights() {
        assert_eq!(normal(1, 0.02, 2.0, 64), normal(1, 0.02, 2.0, 64));
        assert_ne!(normal(1, 0.02, 2.0, 64), normal(2, 0.02, 2.0, 64));
    }

    #[test]
    fn heads_of_narrow_models_have_larger_weights() {
        for (hidden, expected) in [(1024, 0.02), (768, 0.02), (384, 0.04), (96, 0.16)] {
            let config = BertConfig { hidden_size: hidden, num_attention_heads: 1, ..BertConfig::default() };
            let device = Device::flex();
            let head = Initializer::new(&config, 3, &device).task_head(64).weight.val();
            let deviation = head.powi_scalar(2).mean().into_scalar::<f32>().sqrt();
            assert!((deviation / expected - 1.0).abs() < 0.05, "{hidden}: {deviation}");
        }
    }
}
