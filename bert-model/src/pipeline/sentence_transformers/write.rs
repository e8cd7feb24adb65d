//! Writes a sentence-transformers directory in the format that every version of the library can read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{DenseWeights, MODULES, SETTINGS, SentenceTransformer, Step, TRANSFORMER};
use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::file::write_json;
use crate::model::SentenceEncoder;
use crate::pipeline::Pooling;
use crate::pretrained::save::HostTensor;
use crate::pretrained::{self, save_weights};
use crate::text::Tokenizer;

/// Writes a model, its tokenizer, and the settings in `description`; the weights of dense layers come from `model`.
///
/// # Errors
/// If a file cannot be written, a weight is not finite, or sentence-transformers does not support the pooling.
pub fn save(
    directory: impl AsRef<Path>,
    description: &SentenceTransformer,
    model: &SentenceEncoder,
    config: &BertConfig,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let directory = directory.as_ref();
    let pooling = pooling_config(description, config.hidden_size)?;
    pretrained::save(directory, &model.bert, config, tokenizer)?;
    let length = description.max_length.unwrap_or(config.max_position_embeddings);
    let transformer = json!({"max_seq_length": length, "do_lower_case": description.lowercase});
    write_json(directory.join(TRANSFORMER), &transformer)?;
    write_json(folder(directory, "1_Pooling")?.join("config.json"), &pooling)?;
    let mut modules = vec![module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")];
    let mut layers = model.dense.iter();
    for (place, step) in (2..).zip(&description.steps) {
        let class = match step {
            Step::Dense(_) => "Dense",
            Step::Normalize => "Normalize",
        };
        let name = format!("{place}_{class}");
        let path = folder(directory, &name)?;
        if let Step::Dense(as_read) = step {
            let trained = layers.next().map(DenseWeights::of_module);
            write_dense(&path, &trained.unwrap_or_else(|| as_read.clone()))?;
        }
        modules.push(module(place, &name, class));
    }
    write_json(directory.join(SETTINGS), &settings(description))?;
    // This file comes last, since it is what marks a directory as one of sentence-transformers.
    write_json(directory.join(MODULES), &modules)
}

fn module(place: usize, path: &str, class: &str) -> Value {
    let class = format!("sentence_transformers.models.{class}");
    json!({"idx": place, "name": place.to_string(), "path": path, "type": class})
}

fn folder(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::create_dir_all(&path).map_err(Error::io(&path, "create the directory"))?;
    Ok(path)
}

/// The pooling configuration, with one Boolean key per mode, which implies the order of the table when several are
/// concatenated. Any other order is written as a list of names, which only newer versions can read.
fn pooling_config(description: &SentenceTransformer, width: usize) -> Result<Value> {
    let place = |pooling: &Pooling| {
        let known = Pooling::SENTENCE_TRANSFORMERS.iter().position(|(.., known)| known == pooling);
        known.ok_or_else(|| Error::Setting(format!("pooling: sentence-transformers has no {pooling:?}")))
    };
    let places = description.pooling.iter().map(place).collect::<Result<Vec<_>>>()?;
    let mut config = json!({"word_embedding_dimension": width});
    match places.is_sorted_by(|a, b| a < b) {
        true => {
            for (place, (_, key, _)) in Pooling::SENTENCE_TRANSFORMERS.iter().enumerate() {
                config[*key] = places.contains(&place).into();
            }
        }
        false => config["pooling_mode"] = places.iter().map(|&place| Pooling::SENTENCE_TRANSFORMERS[place].0).collect(),
    }
    config["include_prompt"] = description.include_prompt.into();
    Ok(config)
}

fn write_dense(path: &Path, dense: &DenseWeights) -> Result<()> {
    let DenseWeights { inputs, outputs, activation, weight, bias, is_residual, residual } = dense;
    let mut config = json!({
        "in_features": inputs,
        "out_features": outputs,
        "bias": bias.is_some(),
        "activation_function": activation.class(),
    });
    if *is_residual {
        config["use_residual"] = true.into();
    }
    let matrix = |values: &Vec<f32>| HostTensor { shape: vec![*outputs, *inputs], values: values.clone() };
    let mut tensors = BTreeMap::from([("linear.weight".to_string(), matrix(weight))]);
    tensors.extend(
        bias.iter().map(|bias| ("linear.bias".to_string(), HostTensor { shape: vec![*outputs], values: bias.clone() })),
    );
    tensors.extend(residual.iter().map(|residual| ("residual.weight".to_string(), matrix(residual))));
    write_json(path.join("config.json"), &config)?;
    save_weights(path.join("model.safetensors"), &tensors)
}

fn settings(description: &SentenceTransformer) -> Value {
    let mut settings = json!({
        "model_type": "SentenceTransformer",
        "prompts": description.prompts.texts,
        "default_prompt_name": description.prompts.default,
        "similarity_fn_name": description.similarity.name(),
    });
    if let Some(width) = description.truncate_dim {
        settings["truncate_dim"] = width.into();
    }
    settings
}
