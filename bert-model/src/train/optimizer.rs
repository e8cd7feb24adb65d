//! Adam with decoupled weight decay (Loshchilov and Hutter 2019; google-research/bert, `optimization.py`), and LAMB
//! (You et al. 2020) for large batches.
//!
//! With `m` and `v` the running means of the gradient and of its square, every step moves a parameter by
//! `−lr · (m̂ / (√v̂ + ε) + λ·p)`. Biases and LayerNorm have no decay λ. Google's own Adam leaves out the bias correction
//! (`m̂ = m`); LAMB scales the whole step by `‖p‖ / ‖step‖` for parameters that decay.

use std::collections::BTreeMap;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::gradients::{GradientSum, as_matrix};
use crate::ops::{self, adam::AdamStep, adam::adam};
use crate::pretrained::names::{hugging_face_name, is_decayed};
use crate::pretrained::save::HostTensor;

/// Which update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Adam with decoupled weight decay.
    AdamW,
    /// Layer-wise adaptive moments.
    Lamb,
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "adamw" => Ok(Self::AdamW),
            "lamb" => Ok(Self::Lamb),
            _ => Err(format!("`{name}` is none of adamw, lamb")),
        }
    }
}

/// The constants of the update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// AdamW or LAMB.
    pub algorithm: Algorithm,
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the root, outside of it.
    pub epsilon: f64,
    /// λ, on everything but biases and LayerNorm.
    pub weight_decay: f64,
    /// Whether the means are corrected for having started at 0; false is Google's Adam.
    pub bias_correction: bool,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::AdamW,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            weight_decay: 0.01,
            bias_correction: true,
        }
    }
}

/// The running means of one parameter, as matrices.
#[derive(Debug, Clone)]
struct Moments {
    first: Tensor<2>,
    second: Tensor<2>,
}

/// The optimiser and its state.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

impl Optimizer {
    /// Without history.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, moments: BTreeMap::new(), steps: 0 }
    }

    /// Moves every parameter that has a gradient; each gradient is first multiplied by `scale` (see
    /// [`clip_scale`]).
    pub fn step<M: Module>(&mut self, model: M, gradients: GradientSum, learning_rate: f64, scale: f64) -> M {
        self.steps += 1;
        model.map(&mut Update { optimizer: self, gradients, learning_rate, scale, path: Vec::new() })
    }

    /// Counts a step that is left out.
    pub fn skip(&mut self) {
        self.steps += 1;
    }

    /// A parameter after its step.
    fn moved(
        &mut self,
        name: &str,
        value: Tensor<2>,
        gradient: Tensor<2>,
        scale: f64,
        learning_rate: f64,
    ) -> Tensor<2> {
        let Moments { first, second } = self
            .moments
            .remove(name)
            .unwrap_or_else(|| Moments { first: gradient.zeros_like(), second: gradient.zeros_like() });
        let OptimizerConfig { algorithm, beta1, beta2, epsilon, weight_decay, bias_correction } = self.config;
        let correction = |beta: f64| if bias_correction { 1.0 - beta.powf(self.steps as f64) } else { 1.0 };
        let weight_decay = if is_decayed(name) { weight_decay } else { 0.0 };
        if algorithm == Algorithm::AdamW && ops::is_fast(&value) {
            let step = AdamStep {
                gradient_scale: scale as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                correction1: correction(beta1) as f32,
                correction2: correction(beta2) as f32,
                epsilon: epsilon as f32,
                weight_decay: weight_decay as f32,
                learning_rate: learning_rate as f32,
            };
            let [value, first, second] = adam(value, first, second, gradient, step);
            self.moments.insert(name.to_string(), Moments { first, second });
            return value;
        }
        let gradient = if scale == 1.0 { gradient } else { gradient * scale };
        let first = first * beta1 + gradient.clone() * (1.0 - beta1);
        let second = second * beta2 + gradient.powi_scalar(2) * (1.0 - beta2);
        self.moments.insert(name.to_string(), Moments { first: first.clone(), second: second.clone() });
        let root = (second / correction(beta2)).sqrt() + epsilon;
        let step = first / correction(beta1) / root + value.clone() * weight_decay;
        let step = match algorithm {
            Algorithm::Lamb if is_decayed(name) => step.clone() * trust_ratio(value.clone(), step),
            _ => step,
        };
        value - step * learning_rate
    }

    /// The state, for a checkpoint: `NAME.first` and `NAME.second`.
    pub fn state(&self) -> BTreeMap<String, HostTensor> {
        let host = |tensor: &Tensor<2>| HostTensor {
            shape: tensor.dims().to_vec(),
            values: tensor.clone().into_data().iter::<f32>().collect(),
        };
        let named = |(name, moments): (&String, &Moments)| {
            [(format!("{name}.first"), host(&moments.first)), (format!("{name}.second"), host(&moments.second))]
        };
        self.moments.iter().flat_map(named).collect()
    }

    /// Takes up the state after `steps` steps; tensors without a partner are left out.
    pub fn restore(&mut self, steps: u64, state: BTreeMap<String, HostTensor>, device: &Device) {
        let tensor = |host: &HostTensor| {
            let shape = [host.shape[0], host.shape[1]];
            Tensor::<2>::from_data(TensorData::new(host.values.clone(), shape), device)
        };
        self.steps = steps;
        self.moments = state
            .iter()
            .filter_map(|(name, first)| {
                let name = name.strip_suffix(".first")?;
                let second = state.get(&format!("{name}.second"))?;
                Some((name.to_string(), Moments { first: tensor(first), second: tensor(second) }))
            })
            .collect();
    }
}

/// The factor that brings gradients of global norm `norm` down to `limit`, as torch's `clip_grad_norm_` computes it;
/// 1 if they are below it or nothing is to be clipped.
pub fn clip_scale(norm: f64, limit: Option<f64>) -> f64 {
    limit.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0))
}

/// LAMB's ratio `‖p‖ / ‖step‖`, 1 where one of the two is 0. Shape: `[1, 1]`.
fn trust_ratio(value: Tensor<2>, step: Tensor<2>) -> Tensor<2> {
    let norm = |x: Tensor<2>| x.powi_scalar(2).sum_dim(1).sum_dim(0).sqrt();
    let (value, step) = (norm(value), norm(step));
    let is_zero = value.clone().equal_elem(0).bool_or(step.clone().equal_elem(0));
    (value / step).mask_fill(is_zero, 1.0)
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    gradients: GradientSum,
    learning_rate: f64,
    scale: f64,
    path: Vec<String>,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = hugging_face_name(&self.path);
        let Some(gradient) = self.gradients.remove(&name) else { return param };
        param.map(|leaf| {
            let value = leaf.inner();
            let shape = value.shape();
            let moved = self.optimizer.moved(&name, as_matrix(value), gradient, self.scale, self.learning_rate);
            Tensor::from_inner(moved.reshape(shape)).require_grad()
        })
    }
}
