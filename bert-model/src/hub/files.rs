//! Which files a model needs. Weights are fetched last, so a snapshot with weights is complete.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::HubName;
use super::environment::Hub;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::file::read_json;
use crate::pretrained::weights::shards;

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Hub {
    /// Returns the directory of a model with its configuration, its tokenizer, its weights in one format, and the
    /// modules of sentence-transformers. Downloads only files that are not cached.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub) if a file cannot be obtained, [`Error::Io`](crate::Error::Io) if the cache cannot
    /// be written.
    pub fn model(&self, name: &HubName) -> Result<PathBuf> {
        let mut snapshot = Snapshot::open(self, name, "config.json")?;
        let folder = modules(&mut snapshot)?;
        snapshot.required(&format!("{folder}config.json"))?;
        snapshot.file("finetune.json")?;
        tokenizer(&mut snapshot, &folder)?;
        weights(&mut snapshot, &folder)?;
        Ok(snapshot.directory())
    }

    /// Returns a directory with a model's tokenizer files, downloading only those.
    ///
    /// # Errors
    /// As [`Hub::model`].
    pub fn tokenizer(&self, name: &HubName) -> Result<PathBuf> {
        let mut snapshot = Snapshot::open(self, name, "tokenizer_config.json")?;
        match tokenizer(&mut snapshot, "")? {
            true => Ok(snapshot.directory()),
            false => Err(snapshot.missing("tokenizer.json, no vocab.txt", "one of the two")),
        }
    }

    /// Returns the path of one file of a model, or `None` if the model has no such file.
    ///
    /// # Errors
    /// As [`Hub::model`].
    pub fn file(&self, name: &HubName, file: &str) -> Result<Option<PathBuf>> {
        Snapshot::open(self, name, file)?.file(file)
    }
}

/// Fetches the files of sentence-transformers. Returns the folder of the encoder's files, which is empty or ends in
/// `/`.
fn modules(snapshot: &mut Snapshot<'_>) -> Result<String> {
    let mut encoder = String::new();
    let Some(path) = snapshot.file("modules.json")? else { return Ok(encoder) };
    let modules: Vec<Module> = read_json(&path, "a list of modules")?;
    snapshot.file("config_sentence_transformers.json")?;
    for Module { path, kind } in modules {
        let folder = if path.is_empty() { path } else { path + "/" };
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {
                snapshot.file(&format!("{folder}sentence_bert_config.json"))?;
                encoder = folder;
            }
            kind => {
                snapshot.file(&format!("{folder}config.json"))?;
                if kind == "Dense" {
                    weights(snapshot, &folder)?;
                }
            }
        }
    }
    Ok(encoder)
}

/// Fetches the tokenizer in one of its two formats. Returns whether there is one.
fn tokenizer(snapshot: &mut Snapshot<'_>, folder: &str) -> Result<bool> {
    for file in ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        snapshot.file(&format!("{folder}{file}"))?;
    }
    if snapshot.file(&format!("{folder}tokenizer.json"))?.is_some() {
        return Ok(true);
    }
    Ok(snapshot.file(&format!("{folder}vocab.txt"))?.is_some())
}

/// Fetches the weights in the first available format.
fn weights(snapshot: &mut Snapshot<'_>, folder: &str) -> Result<()> {
    const SAFETENSORS: &str = "model.safetensors";
    const PICKLE: &str = "pytorch_model.bin";
    let forms: &[&str] = if cfg!(feature = "pickle") { &[SAFETENSORS, PICKLE] } else { &[SAFETENSORS] };
    for form in forms {
        if snapshot.file(&format!("{folder}{form}"))?.is_some() {
            return Ok(());
        }
        if let Some(index) = snapshot.file(&format!("{folder}{form}.index.json"))? {
            for shard in shards(&index)?.into_values().collect::<BTreeSet<_>>() {
                snapshot.required(&format!("{folder}{shard}"))?;
            }
            return Ok(());
        }
    }
    let expected = match cfg!(feature = "pickle") {
        true => "weights in one of these formats",
        false => "weights in that format (pytorch_model.bin needs a build of bert-model with the feature `pickle`)",
    };
    Err(snapshot.missing(&forms.join(", no "), expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::hub::HubProblem;

    #[test]
    fn names_of_modules_and_shards_must_stay_inside() {
        let name = HubName::parse("owner/name").unwrap().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let hub = Hub::from_env().unwrap().cache(directory.path()).offline(true);
        let snapshot = directory.path().join("models--owner--name/snapshots/c0ffee");
        for folder in ["snapshots/c0ffee", "refs"] {
            std::fs::create_dir_all(directory.path().join("models--owner--name").join(folder)).unwrap();
        }
        std::fs::write(directory.path().join("models--owner--name/refs/main"), "c0ffee").unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        let refused = |file: &str, content: &str| {
            std::fs::write(snapshot.join(file), content).unwrap();
            let error = hub.model(&name).unwrap_err();
            assert!(matches!(error, Error::Hub { problem: HubProblem::Name, .. }), "{error}");
            std::fs::remove_file(snapshot.join(file)).unwrap();
        };
        refused("modules.json", r#"[{"path": "../../x", "type": "sentence_transformers.models.Pooling"}]"#);
        refused("modules.json", r#"[{"path": "/etc", "type": "sentence_transformers.models.Transformer"}]"#);
        refused("model.safetensors.index.json", r#"{"weight_map": {"a": "../../../etc/passwd"}}"#);
    }
}
