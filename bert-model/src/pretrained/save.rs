//! Writes a model to a model directory in the format of transformers: `[output, input]` matrices, `f32`, tied weights
//! once.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use super::load::transposed;
use super::{Pretrained, names};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::file::replace_file;
use crate::text::Tokenizer;

/// A tensor on the host, in Hugging Face's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<f32>,
}

/// All parameters of a model by their Hugging Face names.
pub fn state_dict<M: Module>(model: &M) -> BTreeMap<String, HostTensor> {
    let mut collector = TensorCollector { path: Vec::new(), tensors: BTreeMap::new() };
    model.visit(&mut collector);
    let mut tensors = collector.tensors;
    if tensors.contains_key("cls.predictions.decoder.weight")
        && let Some(bias) = tensors.get("cls.predictions.bias").cloned()
    {
        // An untied decoder has the bias that transformers uses; the other name is kept because transformers expects
        // it.
        tensors.insert("cls.predictions.decoder.bias".into(), bias);
    }
    tensors
}

/// Writes `config.json`, `model.safetensors` and the tokenizer's files into `directory`, which is created if necessary.
///
/// # Errors
/// If a file cannot be written, a weight is not finite, or the model has low-rank adapters that have not been merged.
pub fn save<M: Pretrained>(
    directory: impl AsRef<Path>,
    model: &M,
    config: &BertConfig,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let directory = directory.as_ref();
    let mut unpacked = model.clone();
    unpacked.encoder_mut().unpack();
    let tensors = state_dict(&unpacked);
    if let Some(adapter) = tensors.keys().find(|name| names::is_adapter(name)) {
        let advice = "merged adapters (`model.materialize()`): other readers would ignore this one";
        return Err(Error::tensor(directory, adapter, "a low-rank adapter", advice));
    }
    std::fs::create_dir_all(directory).map_err(Error::io(directory, "create the directory"))?;
    save_config(directory, config, M::ARCHITECTURE)?;
    tokenizer.save(directory, config.max_position_embeddings)?;
    save_weights(directory.join("model.safetensors"), &tensors)
}

/// Writes the `config.json` of `f32` weights of the given architecture, a class of transformers.
///
/// # Errors
/// If the file cannot be written.
pub fn save_config(directory: impl AsRef<Path>, config: &BertConfig, architecture: &str) -> Result<()> {
    let mut config = config.clone();
    config.architectures = Some(vec![architecture.to_string()]);
    for key in ["dtype", "torch_dtype"] {
        // transformers computes in the type that these keys name.
        if let Some(dtype) = config.other.get_mut(key) {
            *dtype = "float32".into();
        }
    }
    config.save(directory.as_ref().join("config.json"))
}

/// Writes tensors as one safetensors file, atomically.
///
/// # Errors
/// If the file cannot be written, or a number is not finite.
pub fn save_weights(path: impl AsRef<Path>, tensors: &BTreeMap<String, HostTensor>) -> Result<()> {
    let path = path.as_ref();
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if let Some(value) = tensor.values.iter().find(|value| !value.is_finite()) {
            return Err(Error::tensor(path, name, value.to_string(), "finite numbers; nothing was written"));
        }
        let bytes = bytemuck::cast_slice(&tensor.values);
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
            .map_err(|error| Error::tensor(path, name, error.to_string(), "a tensor"))?;
        views.push((name.as_str(), view));
    }
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    let bytes = safetensors::serialize(views, metadata)
        .map_err(|error| Error::file(path, error.to_string(), "a safetensors file"))?;
    replace_file(path, &bytes)
}

struct TensorCollector {
    path: Vec<String>,
    tensors: BTreeMap<String, HostTensor>,
}

impl ModuleVisitor for TensorCollector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = names::hugging_face_name(&self.path);
        let mut shape = param.lazy_shape().to_vec();
        let mut values: Vec<f32> = param.val().into_data().iter::<f32>().collect();
        if names::is_transposed(&name) {
            values = transposed(&values, shape[0], shape[1]);
            shape.reverse();
        }
        self.tensors.insert(name, HostTensor { shape, values });
    }
}
