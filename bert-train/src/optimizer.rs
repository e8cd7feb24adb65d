//! The optimizers AdamW, LAMB and Muon, and their state. [`bert_model::ops::optimizer`] computes their steps.

use std::collections::BTreeMap;
use std::str::FromStr;

use bert_model::ops::optimizer::{Constants, Control, Parameter, Slots, StepSettings, adam, lamb, muon};
use bert_model::pretrained::names::{is_decayed, is_inner_matrix};
use bert_model::pretrained::save::HostTensor;
use burn::module::{Module, Param};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::gradients::GradientSum;
use super::ownership::Ownership;
use super::parameters::{Change, ParameterPath, as_matrix, change_parameters};
use super::precision::LossScale;

/// The optimization algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019; google-research/bert, `optimization.py`). With `m`
    /// and `v` the running means of the gradient and of its square, every step moves a parameter by
    /// `−lr · (m̂ / (√v̂ + ε) + λ·p)`, without λ for biases and LayerNorm.
    AdamW,
    /// LAMB (You et al. 2020), for large batches: AdamW's step, scaled by `‖p‖ / ‖step‖` for parameters that decay.
    Lamb,
    /// Muon (Jordan 2024): momentum whose singular values are set to about 1, for the matrices of encoder layers; AdamW
    /// for the embeddings, biases, LayerNorm and heads. One learning rate serves both, since updates of matrices are
    /// scaled to the size of AdamW's (Liu et al. 2025).
    Muon,
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "adamw" => Ok(Self::AdamW),
            "lamb" => Ok(Self::Lamb),
            "muon" => Ok(Self::Muon),
            _ => Err(format!("unknown optimizer `{name}`, expected adamw, lamb or muon")),
        }
    }
}

/// Hyperparameters of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// β₁: decay of the running mean of the gradient.
    pub beta1: f64,
    /// β₂: decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// ε, added to the square root of the second mean.
    pub epsilon: f64,
    /// λ: decoupled weight decay, not applied to biases and LayerNorm.
    pub weight_decay: f64,
    /// Whether the means are corrected for their initial value 0; Google's Adam does not.
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

/// An optimizer with its running means.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Running means of each parameter, as matrices.
    slots: BTreeMap<String, Slots>,
    steps: u64,
}

impl Optimizer {
    /// Creates an optimizer before its first step.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, slots: BTreeMap::new(), steps: 0 }
    }

    /// Computes what all parameters share in the next step: the learning rate, and the factor for clipping by the
    /// global norm. In `f16`, the step is skipped if the gradient of the loss times `loss_scale` is not finite. `squares`
    /// has the sum of the squares of each gradient if not all of them are here.
    pub fn control(
        &mut self,
        (gradients, squares): (&GradientSum, Option<Vec<f32>>),
        learning_rate: f64,
        clip: Option<f64>,
        loss_scale: &mut LossScale,
    ) -> Control {
        self.steps += 1;
        let corrections = if self.config.bias_correction { self.corrections(self.steps) } else { [1.0; 2] };
        let settings = StepSettings { learning_rate, corrections, clip, growth: loss_scale.growth() };
        loss_scale.control(gradients.all(), squares, settings)
    }

    /// The bias corrections of step number `step` (from 1) for both running means: 1 − βˢᵗᵉᵖ.
    fn corrections(&self, step: u64) -> [f64; 2] {
        [self.config.beta1, self.config.beta2].map(|beta| 1.0 - beta.powf(step as f64))
    }

    /// Updates every parameter that has a gradient.
    pub fn step<M: Module>(&mut self, model: M, gradients: GradientSum, control: &Control) -> M {
        let OptimizerConfig { algorithm, beta1, beta2, epsilon, weight_decay, bias_correction } = self.config;
        let constants = Constants { beta1, beta2, epsilon, weight_decay };
        let (names, parameters) = (Vec::new(), Vec::new());
        let mut taken = Take { gradients, slots: &mut self.slots, names, parameters, empty: None };
        let model = change_parameters(model, &mut taken);
        let Take { names, parameters, .. } = taken;
        let is_late = |parameter: &Parameter| {
            let has_momentum = algorithm == Algorithm::Muon && parameter.is_inner_matrix;
            bias_correction && self.steps > 1 && parameter.slots.is_empty() && !has_momentum
        };
        let before = self.corrections(self.steps.saturating_sub(1));
        let start = |parameter| if is_late(&parameter) { parameter.start_means(control, before) } else { parameter };
        let parameters = parameters.into_iter().map(start).collect();
        let moved = match algorithm {
            Algorithm::AdamW => adam(parameters, control, constants),
            Algorithm::Lamb => lamb(parameters, control, constants),
            Algorithm::Muon => muon(parameters, control, constants),
        };
        let mut values = BTreeMap::new();
        for (name, Parameter { value, slots, .. }) in names.into_iter().zip(moved) {
            self.slots.insert(name.clone(), slots);
            values.insert(name, value);
        }
        change_parameters(model, &mut Return { values })
    }

    /// Forgets the running means of the parameters that another rank updates.
    pub(crate) fn retain(&mut self, ownership: &Ownership) {
        self.slots.retain(|parameter, _| ownership.is_own(parameter));
    }

    /// The running means for a checkpoint, by `PARAMETER.SLOT`.
    pub fn state(&self) -> BTreeMap<String, HostTensor> {
        let host = |tensor: &Tensor<2>| HostTensor {
            shape: tensor.dims().to_vec(),
            values: tensor.clone().into_data().iter::<f32>().collect(),
        };
        let named = |(parameter, slots): (&String, &Slots)| {
            slots.iter().map(|(name, slot)| (format!("{parameter}.{name}"), host(slot))).collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(named).collect()
    }

    /// Restores the state after `steps` steps. A parameter that lacks a running mean starts without history.
    pub fn restore(&mut self, steps: u64, state: BTreeMap<String, HostTensor>, device: &Device) {
        self.steps = steps;
        self.slots = BTreeMap::new();
        for (name, HostTensor { shape, values }) in state {
            let Some((parameter, slot)) = name.rsplit_once('.') else { continue };
            let mean = Tensor::from_data(TensorData::new(values, [shape[0], shape[1]]), device);
            self.slots.entry(parameter.to_string()).or_default().set(slot, mean);
        }
    }
}

/// Moves the parameters that have a gradient out of a model, so that they can be updated in place.
struct Take<'a> {
    gradients: GradientSum,
    slots: &'a mut BTreeMap<String, Slots>,
    names: Vec<String>,
    parameters: Vec<Parameter>,
    /// Takes the parameters' place.
    empty: Option<Tensor<1>>,
}

impl Change for Take<'_> {
    fn change<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = path.name();
        let Some(gradient) = self.gradients.remove(&name) else { return parameter.map(as_new_leaf) };
        parameter.map(|leaf| {
            let value = leaf.inner();
            let empty = self.empty.get_or_insert_with(|| Tensor::empty([1], &value.device())).clone();
            let (value, slots) = (as_matrix(value), self.slots.remove(&name).unwrap_or_default());
            let (decays, is_inner_matrix) = (is_decayed(&name), is_inner_matrix(&name));
            self.names.push(name.clone());
            self.parameters.push(Parameter { value, gradient: gradient.clone(), slots, decays, is_inner_matrix });
            Tensor::from_inner(empty.reshape([1; D]))
        })
    }
}

/// The parameter as a new leaf of the autodiff graph, if it is one. The copies of the model that a step computes on are
/// nodes of their leaf's graph, which burn keeps, and searches in every backward pass, for as long as the leaf lives.
fn as_new_leaf<const D: usize>(leaf: Tensor<D>) -> Tensor<D> {
    if leaf.is_require_grad() { Tensor::from_inner(leaf.inner()).require_grad() } else { leaf }
}

/// Moves updated parameters back into the model.
struct Return {
    values: BTreeMap<String, Tensor<2>>,
}

impl Change for Return {
    fn change<const D: usize>(&mut self, path: ParameterPath<'_>, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(value) = self.values.remove(&path.name()) else { return parameter };
        parameter.map(|_| {
            let mut shape = [1; D];
            shape[D - 1] = value.dims()[1];
            if D > 1 {
                shape[D - 2] = value.dims()[0];
            }
            Tensor::from_inner(value.reshape(shape)).require_grad()
        })
    }
}
