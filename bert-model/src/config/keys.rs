//! The keys of a `config.json`, one by one, so that a message can name the one with a bad value.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::BertConfig;
use crate::error::{Error, Result};

/// Characters of a value that a message shows.
const SHOWN: usize = 80;

impl BertConfig {
    /// The configuration with these keys; errors name `origin` as the source.
    pub(super) fn from_keys(mut keys: Map<String, Value>, origin: &str) -> Result<Self> {
        // Some tools write -1 for "no such token", where transformers writes null.
        if keys.get("pad_token_id") == Some(&Value::from(-1)) {
            keys.insert("pad_token_id".into(), Value::Null);
        }
        // Null means that a key has its default, as if it were absent.
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

/// A configuration with this key alone: all have defaults.
fn alone(key: &str, value: &Value) -> serde_json::Result<BertConfig> {
    BertConfig::deserialize(Value::from(Map::from_iter([(key.to_string(), value.clone())])))
}

/// What a message of serde expects, without Rust's names of types.
fn expected(message: &str) -> String {
    match message.rsplit_once("expected ").map_or(message, |(_, expected)| expected) {
        "usize" => "a whole number".into(),
        "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        other => other.into(),
    }
}
