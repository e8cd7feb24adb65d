//! Reads the files of a sentence-transformers directory written by any version of the library.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::dense::POOLED;
use super::{
    CrossEncoderSettings, DenseWeights, MODULES, Prompts, SETTINGS, SentenceTransformer, Similarity, Step, TRANSFORMER,
};
use crate::error::{Error, Result};
use crate::file;
use crate::pipeline::Pooling;

/// Reads a JSON file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    file::read_json(path, "a sentence-transformers configuration")
}

/// Reads a JSON file; the default if it does not exist.
fn read_optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    if path.exists() { read_json(path) } else { Ok(T::default()) }
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

impl Module {
    /// The name of the class if it belongs to sentence-transformers itself; its module path differs between versions.
    fn class(&self) -> &str {
        let path = self.r#type.strip_prefix("sentence_transformers.");
        path.and_then(|path| path.rsplit('.').next()).unwrap_or_default()
    }

    fn folder(&self, directory: &Path) -> Result<PathBuf> {
        let path = Path::new(&self.path);
        let stays = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        match stays {
            true => Ok(directory.join(path)),
            false => Err(Error::config(
                directory.join(MODULES).display().to_string(),
                "path",
                format!("{:?}", self.path),
                "a folder in the model directory",
            )),
        }
    }
}

/// The contents of `sentence_bert_config.json`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Transformer {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
    transformer_task: Option<String>,
    modality_config: Option<Value>,
    module_output_name: Option<String>,
    processing_kwargs: Value,
    processor_kwargs: Value,
    tokenizer_args: Value,
}

/// The contents of `1_Pooling/config.json`.
#[derive(Deserialize)]
struct PoolingConfig {
    pooling_mode: Option<Value>,
    #[serde(default = "yes")]
    include_prompt: bool,
    /// Boolean keys such as `pooling_mode_cls_token`.
    #[serde(flatten)]
    other: Map<String, Value>,
}

fn yes() -> bool {
    true
}

/// The contents of `config_sentence_transformers.json`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Settings {
    model_type: Option<String>,
    prompts: Option<Map<String, Value>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<usize>,
    activation_fn: Option<String>,
}

impl Settings {
    fn is_cross_encoder(&self) -> bool {
        self.model_type.as_deref() == Some("CrossEncoder")
    }
}

/// See [`super::encoder_directory`].
pub(super) fn encoder_directory(directory: &Path) -> Result<PathBuf> {
    let path = directory.join(MODULES);
    if !path.exists() {
        return Ok(directory.into());
    }
    // Old versions also wrote a config.json of their own into the directory.
    let modules: Vec<Module> = read_json(&path)?;
    let has_own = directory.join("config.json").exists();
    let encoder = modules.first().filter(|first| !has_own || first.r#type.ends_with("Transformer"));
    encoder.map_or_else(|| Ok(directory.into()), |first| first.folder(directory))
}

/// See [`CrossEncoderSettings::read`].
pub(super) fn cross_encoder(directory: &Path) -> Result<CrossEncoderSettings> {
    let path = directory.join(SETTINGS);
    let settings: Settings = read_optional(&path)?;
    let activation = settings.activation_fn.clone();
    // Of a directory without modules, the library reads no prompts.
    let prompt = match directory.join(MODULES).exists() {
        true => describe(settings, &path)?.0.default_text().to_string(),
        false => String::new(),
    };
    Ok(CrossEncoderSettings { activation, prompt })
}

/// See [`SentenceTransformer::read`].
pub(super) fn read(directory: &Path) -> Result<Option<SentenceTransformer>> {
    let path = directory.join(MODULES);
    let settings: Settings = read_optional(&directory.join(SETTINGS))?;
    if !path.exists() || settings.is_cross_encoder() {
        return Ok(None);
    }
    let modules: Vec<Module> = read_json(&path)?;
    let wrong = |place: usize, expected: &str| {
        let found =
            modules.get(place).map_or("no module".to_string(), |module| format!("the module {:?}", module.r#type));
        Err(Error::file(&path, format!("{found} at position {place}"), expected))
    };
    const EXPECTED: &str = "sentence-transformers' Transformer, then Pooling, then any number of Dense and Normalize";
    let mut found = SentenceTransformer::default();
    for place in 0..modules.len().max(2) {
        let Some(module) = modules.get(place) else { return wrong(place, EXPECTED) };
        let folder = module.folder(directory)?;
        match (place, module.class()) {
            (0, "Transformer") => (found.max_length, found.lowercase) = transformer(&folder)?,
            (1, "Pooling") => (found.pooling, found.include_prompt) = pooling(&folder.join("config.json"))?,
            (2.., "Dense") => found.steps.push(Step::Dense(DenseWeights::read(&folder)?)),
            (2.., "Normalize") => {
                check_input(&folder.join("config.json"))?;
                found.steps.push(Step::Normalize);
            }
            _ => return wrong(place, EXPECTED),
        }
    }
    found.truncate_dim = settings.truncate_dim;
    (found.prompts, found.similarity) = describe(settings, &directory.join(SETTINGS))?;
    Ok(Some(found))
}

/// Checks that a module reads the pooled vector rather than those of tokens. Older versions do not write this file.
pub(super) fn check_input(path: &Path) -> Result<()> {
    let config: Map<String, Value> = read_optional(path)?;
    for key in ["module_input_name", "module_output_name"] {
        if let Some(name) = config.get(key).filter(|name| !name.is_null() && *name != POOLED) {
            return Err(Error::config(path.display().to_string(), key, name.to_string(), format!("{POOLED:?}")));
        }
    }
    Ok(())
}

/// The maximum sequence length in the tokenizer's configuration, where 1e30 means none.
pub(super) fn tokenizer_length(folder: &Path) -> Result<Option<usize>> {
    let config: Map<String, Value> = read_optional(&folder.join("tokenizer_config.json"))?;
    let length = config
        .get("model_max_length")
        .or(config.get("max_len"))
        .and_then(Value::as_f64)
        .filter(|length| (1.0..1e9).contains(length));
    Ok(length.map(|length| length as usize))
}

/// The maximum sequence length, and whether texts are lowercased.
fn transformer(folder: &Path) -> Result<(Option<usize>, bool)> {
    let path = folder.join(TRANSFORMER);
    let config: Transformer = read_optional(&path)?;
    let wrong =
        |key: &str, found: String, expected: &str| Err(Error::config(path.display().to_string(), key, found, expected));
    if let Some(task) = config.transformer_task.filter(|task| task != "feature-extraction") {
        return wrong("transformer_task", format!("{task:?}"), "\"feature-extraction\"");
    }
    if let Some(name) = config.module_output_name.filter(|name| name != "token_embeddings") {
        return wrong("module_output_name", format!("{name:?}"), "\"token_embeddings\"");
    }
    let output = config.modality_config.as_ref().map(|modalities| &modalities["text"]["method_output_name"]);
    if let Some(output) = output.filter(|output| *output != "last_hidden_state") {
        return wrong("modality_config", format!("{output} as the output for text"), "\"last_hidden_state\"");
    }
    if config.max_seq_length == Some(0) {
        return wrong("max_seq_length", "0".into(), "at least 1");
    }
    // Options of the tokenizer and of its calls take precedence, under the names of newer and of older versions.
    let of_call = ["text", "common"].into_iter().find_map(|kind| config.processing_kwargs[kind]["max_length"].as_u64());
    let of_tokenizer = [&config.processor_kwargs, &config.tokenizer_args];
    let mut of_tokenizer = of_tokenizer.into_iter().filter_map(|options| options["model_max_length"].as_u64());
    if let Some(length) = of_call.or_else(|| of_tokenizer.next()).filter(|length| *length > 0) {
        return Ok((Some(length as usize), config.do_lower_case));
    }
    // Newer versions store the length in the tokenizer's configuration only.
    let length = config.max_seq_length.map_or_else(|| tokenizer_length(folder), |length| Ok(Some(length)))?;
    Ok((length, config.do_lower_case))
}

/// The pooling modes, and whether the tokens of a prompt are included.
fn pooling(path: &Path) -> Result<(Vec<Pooling>, bool)> {
    let config: PoolingConfig = read_json(path)?;
    let wrong = |key: &str, found: String| {
        let names = Pooling::SENTENCE_TRANSFORMERS.map(|(name, ..)| name).join(", ");
        Error::config(path.display().to_string(), key, found, format!("one or more of {names}"))
    };
    let named = |mode: &Value| {
        let known = Pooling::SENTENCE_TRANSFORMERS.iter().find(|(name, ..)| mode == name);
        known.map(|(.., pooling)| *pooling).ok_or_else(|| wrong("pooling_mode", mode.to_string()))
    };
    let modes = match &config.pooling_mode {
        Some(Value::Array(modes)) => modes.iter().map(named).collect::<Result<Vec<_>>>()?,
        Some(mode) => vec![named(mode)?],
        None => {
            let is_known = |key: &&String| Pooling::SENTENCE_TRANSFORMERS.iter().any(|(_, known, _)| key == known);
            let set = |key: &str| config.other.get(key).is_some_and(|value| *value == true);
            let unknown =
                config.other.keys().find(|key| key.starts_with("pooling_mode_") && set(key) && !is_known(key));
            if let Some(key) = unknown {
                return Err(wrong(key, "true".into()));
            }
            let modes =
                Pooling::SENTENCE_TRANSFORMERS.iter().filter(|(_, key, _)| set(key)).map(|(.., pooling)| *pooling);
            let modes: Vec<Pooling> = modes.collect();
            if modes.is_empty() { vec![Pooling::Mean] } else { modes }
        }
    };
    if modes.is_empty() {
        return Err(wrong("pooling_mode", "an empty list".into()));
    }
    Ok((modes, config.include_prompt))
}

/// Converts settings to prompts and similarity.
fn describe(settings: Settings, path: &Path) -> Result<(Prompts, Similarity)> {
    let wrong =
        |key: &str, found: String, expected: String| Error::config(path.display().to_string(), key, found, expected);
    let mut prompts = Prompts { default: settings.default_prompt_name, ..Prompts::default() };
    for (name, text) in settings.prompts.into_iter().flatten() {
        match text {
            Value::String(text) => drop(prompts.texts.insert(name, text)),
            Value::Null => {}
            other => return Err(wrong("prompts", format!("{other} as the prompt `{name}`"), "a text".into())),
        }
    }
    // The library has these two, empty, whatever the file says.
    let is_known = |name: &&String| prompts.texts.contains_key(*name) || ["query", "document"].contains(&name.as_str());
    if let Some(name) = prompts.default.as_ref().filter(|name| !is_known(name)) {
        let names: Vec<&str> = prompts.texts.keys().map(String::as_str).collect();
        return Err(wrong(
            "default_prompt_name",
            format!("{name:?}"),
            format!("one of the prompts: {}", names.join(", ")),
        ));
    }
    let similarity = match settings.similarity_fn_name {
        None => Similarity::default(),
        Some(name) => Similarity::named(&name).ok_or_else(|| {
            wrong("similarity_fn_name", format!("{name:?}"), "cosine, dot, euclidean or manhattan".into())
        })?,
    };
    Ok((prompts, similarity))
}
