//! The dense layers after pooling, as stored in their folders.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

use super::read::{check_input, read_json};
use crate::error::{Error, Result};
use crate::model::{Dense, OutputActivation};
use crate::pretrained::load::transposed;
use crate::pretrained::weights::Weights;

/// The name of a pooled vector in sentence-transformers.
pub(super) const POOLED: &str = "sentence_embedding";

/// A dense layer that is not on a device yet. Matrices are in PyTorch's layout, `[output, input]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DenseWeights {
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
    /// The activation applied to the output.
    pub activation: OutputActivation,
    /// `outputs` rows of `inputs` numbers.
    pub weight: Vec<f32>,
    /// `outputs` numbers.
    pub bias: Option<Vec<f32>>,
    /// Whether the input is added to the output.
    pub is_residual: bool,
    /// The projection of the input before that sum, needed if the widths differ: `outputs` rows of `inputs` numbers.
    pub residual: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct Config {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    /// If absent, tanh.
    #[serde(default = "tanh")]
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

fn tanh() -> Option<String> {
    Some(OutputActivation::Tanh.class())
}

impl DenseWeights {
    /// Reads the folder of a dense layer: `config.json`, and `model.safetensors` or `pytorch_model.bin`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let config: Config = read_json(&path)?;
        let wrong = |key: &str, found: String, expected: String| {
            Err(Error::config(path.display().to_string(), key, found, expected))
        };
        check_input(&path)?;
        let activation = match config.activation_function.as_deref() {
            None => OutputActivation::Identity,
            Some(class) => match OutputActivation::of_class(class) {
                Some(activation) => activation,
                None => {
                    let expected = format!("a class of torch.nn: {}", OutputActivation::names());
                    return wrong("activation_function", format!("{class:?}"), expected);
                }
            },
        };
        let (inputs, outputs) = (config.in_features, config.out_features);
        for (key, width) in [("in_features", inputs), ("out_features", outputs)] {
            if !(1..=1 << 20).contains(&width) {
                return wrong(key, width.to_string(), "a whole number from 1 to 1048576".into());
            }
        }
        let weights = Weights::open(folder)?;
        let tensor = |name: &str, shape: &[usize]| {
            let missing =
                || Error::tensor(weights.path(), name, "no such tensor", format!("{shape:?} (see {})", path.display()));
            weights.read(name, shape)?.ok_or_else(missing)
        };
        let has_residual = config.use_residual && inputs != outputs;
        Ok(Self {
            inputs,
            outputs,
            activation,
            weight: tensor("linear.weight", &[outputs, inputs])?,
            bias: config.bias.then(|| tensor("linear.bias", &[outputs])).transpose()?,
            is_residual: config.use_residual,
            residual: has_residual.then(|| tensor("residual.weight", &[outputs, inputs])).transpose()?,
        })
    }

    /// Builds the layer on a device.
    pub fn to_module(&self, device: &Device) -> Dense {
        let matrix = |values: &[f32]| {
            let values = transposed(values, self.outputs, self.inputs);
            Param::from_data(TensorData::new(values, [self.inputs, self.outputs]), device)
        };
        let vector = |values: &Vec<f32>| Param::from_data(TensorData::new(values.clone(), [self.outputs]), device);
        Dense {
            weight: matrix(&self.weight),
            bias: self.bias.as_ref().map(vector),
            activation: self.activation,
            residual: self.residual.as_deref().map(matrix),
            is_residual: self.is_residual,
        }
    }

    /// Reads the current parameters of a layer back from its device.
    pub fn of_module(module: &Dense) -> Self {
        let [inputs, outputs] = module.weight.val().dims();
        let matrix =
            |matrix: Tensor<2>| transposed(&matrix.into_data().iter::<f32>().collect::<Vec<_>>(), inputs, outputs);
        Self {
            inputs,
            outputs,
            activation: module.activation,
            weight: matrix(module.weight.val()),
            bias: module.bias.as_ref().map(|bias| bias.val().into_data().iter::<f32>().collect()),
            is_residual: module.is_residual,
            residual: module.residual.as_ref().map(|residual| matrix(residual.val())),
        }
    }
}
