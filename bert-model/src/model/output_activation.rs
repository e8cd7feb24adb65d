//! The functions that sentence-transformers applies after a dense layer or to a cross-encoder's score, named after
//! their classes in PyTorch.

use burn::prelude::*;
use burn::tensor::activation;

use crate::ops;

/// A class of `torch.nn` with its default arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutputActivation {
    /// `x`
    #[default]
    Identity,
    /// `max(x, 0) + min(0, exp(x) − 1)`
    Celu,
    /// `x` above 0, else `exp(x) − 1`
    Elu,
    /// `x·Φ(x)`
    Gelu,
    /// `max(0, min(1, x/6 + 1/2))`
    HardSigmoid,
    /// `x·max(0, min(1, x/6 + 1/2))`
    HardSwish,
    /// `max(−1, min(1, x))`
    HardTanh,
    /// `x` above 0, else `0.01·x`
    LeakyRelu,
    /// `log σ(x)`
    LogSigmoid,
    /// `x·tanh(softplus(x))`
    Mish,
    /// `max(0, x)`
    Relu,
    /// `max(0, min(6, x))`
    Relu6,
    /// Scaled ELU, with PyTorch's constants
    Selu,
    /// `σ(x)`
    Sigmoid,
    /// `x·σ(x)`
    Silu,
    /// `log(1 + exp(x))`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `tanh(x)`
    Tanh,
    /// `x − tanh(x)`
    TanhShrink,
}

/// PyTorch's class names. All of these functions are elementwise; others, such as softmax, are not supported.
const CLASSES: [(&str, OutputActivation); 19] = [
    ("Identity", OutputActivation::Identity),
    ("CELU", OutputActivation::Celu),
    ("ELU", OutputActivation::Elu),
    ("GELU", OutputActivation::Gelu),
    ("Hardsigmoid", OutputActivation::HardSigmoid),
    ("Hardswish", OutputActivation::HardSwish),
    ("Hardtanh", OutputActivation::HardTanh),
    ("LeakyReLU", OutputActivation::LeakyRelu),
    ("LogSigmoid", OutputActivation::LogSigmoid),
    ("Mish", OutputActivation::Mish),
    ("ReLU", OutputActivation::Relu),
    ("ReLU6", OutputActivation::Relu6),
    ("SELU", OutputActivation::Selu),
    ("Sigmoid", OutputActivation::Sigmoid),
    ("SiLU", OutputActivation::Silu),
    ("Softplus", OutputActivation::Softplus),
    ("Softsign", OutputActivation::Softsign),
    ("Tanh", OutputActivation::Tanh),
    ("Tanhshrink", OutputActivation::TanhShrink),
];

impl OutputActivation {
    /// The function of a class such as `torch.nn.modules.activation.Tanh`; `None` if it is not a supported class of
    /// PyTorch.
    pub fn of_class(path: &str) -> Option<Self> {
        let name = path.strip_prefix("torch.nn.")?.rsplit('.').next()?;
        CLASSES.iter().find(|(class, _)| *class == name).map(|(_, activation)| *activation)
    }

    /// The path of the class in PyTorch.
    pub fn class(self) -> String {
        let name = CLASSES.iter().find(|(_, activation)| *activation == self).map_or("Identity", |(name, _)| name);
        let module = if self == Self::Identity { "linear" } else { "activation" };
        format!("torch.nn.modules.{module}.{name}")
    }

    /// The supported class names, for messages.
    pub fn names() -> String {
        CLASSES.map(|(name, _)| name).join(", ")
    }

    /// Applies the function to every element.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Identity => x,
            Self::Celu => activation::celu(x, 1.0),
            Self::Elu => activation::elu(x, 1.0),
            Self::Gelu => ops::gelu(x),
            Self::HardSigmoid => activation::hard_sigmoid(x, 1.0 / 6.0, 0.5),
            Self::HardSwish => activation::hard_swish(x),
            Self::HardTanh => activation::hardtanh(x, -1.0, 1.0),
            Self::LeakyRelu => activation::leaky_relu(x, 0.01),
            Self::LogSigmoid => activation::log_sigmoid(x),
            Self::Mish => activation::mish(x),
            Self::Relu => activation::relu(x),
            Self::Relu6 => activation::relu6(x),
            Self::Selu => activation::selu(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::Silu => activation::silu(x),
            Self::Softplus => activation::softplus(x, 1.0),
            Self::Softsign => activation::softsign(x),
            Self::Tanh => activation::tanh(x),
            Self::TanhShrink => activation::tanhshrink(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_their_paths_and_keep_them() {
        for (name, activation) in CLASSES {
            assert_eq!(OutputActivation::of_class(&activation.class()), Some(activation), "{name}");
        }
        assert_eq!(OutputActivation::of_class("torch.nn.Tanh"), Some(OutputActivation::Tanh));
        for path in ["my.module.Tanh", "torch.nn.modules.activation.Softmax", "Tanh", ""] {
            assert_eq!(OutputActivation::of_class(path), None, "{path}");
        }
    }

    /// Values of `torch.nn.X()(torch.tensor([-4., -0.5, 0.7, 7.]))` in PyTorch 2.9, for the classes whose defaults are
    /// easy to get wrong.
    #[test]
    fn functions_are_pytorchs() {
        for (activation, expected) in [
            (OutputActivation::Celu, [-0.981_684_4, -0.393_469_3, 0.7, 7.0]),
            (OutputActivation::Gelu, [-0.000_126_5, -0.154_268_8, 0.530_625_4, 7.0]),
            (OutputActivation::HardSigmoid, [0.0, 0.416_666_7, 0.616_666_7, 1.0]),
            (OutputActivation::HardSwish, [0.0, -0.208_333_3, 0.431_666_7, 7.0]),
            (OutputActivation::LeakyRelu, [-0.04, -0.005, 0.7, 7.0]),
            (OutputActivation::LogSigmoid, [-4.018_15, -0.974_077, -0.403_186, -0.000_911_5]),
            (OutputActivation::Selu, [-1.725_898_6, -0.691_758_2, 0.735_490_7, 7.354_907]),
            (OutputActivation::TanhShrink, [-3.000_670_7, -0.037_882_8, 0.095_632_2, 6.000_002]),
        ] {
            let found = activation.apply(Tensor::<1>::from_data([-4.0, -0.5, 0.7, 7.0], &Device::flex()));
            let found: Vec<f32> = found.into_data().iter::<f32>().collect();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5), "{activation:?}: {found:?}");
        }
    }
}
