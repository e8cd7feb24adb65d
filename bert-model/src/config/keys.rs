//! Reads a `config.json` key by key, so that an error message can name the key with a bad value.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::BertConfig;
use crate::error::{Error, Result};

/// Maximum number of characters of a value shown in an error message.
const SHOWN: usize = 80;

impl BertConfig {
    /// Builds a configuration from `keys`; errors name `origin` as the source.
    pub(super) fn from_keys(mut keys: Map<String, Value>, origin: &str) -> Result<Self> {
        // Some tools write -1 for "no such token" where transformers writes null.
        if keys.get("pad_token_id") == Some(&Value::from(-1)) {
            keys.insert("pad_token_id".into(), Value::Null);
        }
        // A null value means the key's default, as if the key were absent.
        keys.retain(|key, value| !value.is_null() || alone(key, value).is_ok());
        for (key, value) in &keys {
            alone(key, value).map_err(|error| {
                let found: String = value.to_string().chars().take(SHOWN).collect();
                Error::config(origin, key, found, expected(&error.to_string()))
            })?;
        }
        let fail =
            |error: serde_json::Error| Error::file(origin, error.to_string(), "a Hugging Face BERT configuration");
        Self::deserialize(Value::from(keys)).map_err(fail)
    }
}

/// Builds a configuration from a single key and defaults for all others.
fn alone(key: &str, value: &Value) -> serde_json::Result<BertConfig> {
    BertConfig::deserialize(Value::from(Map::from_iter([(key.to_string(), value.clone())])))
}

/// Rewrites what a serde error message says it expected, without the names of Rust types.
fn expected(message: &str) -> String {
    match message.rsplit_once("expected ").map_or(message, |(_, expected)| expected) {
        "usize" => "a whole number".into(),
        "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        other => other.into(),
    }
}
