//! Writes tokenizers to files that transformers can read.

use std::path::Path;

use serde_json::json;
use tokenizers::ModelWrapper;
use tokenizers::TruncationDirection;

use super::loading::is_bert;
use super::tokenizer::{Normalization, SpecialTokens, Tokenizer};
use super::tokenizer_files::SPECIAL_KEYS;
use crate::error::{Error, Result};
use crate::file::{replace_file, write_json};

impl Tokenizer {
    /// How text is normalized, as far as the tokenizer file says; other settings are those of Google's uncased models.
    pub fn normalization(&self) -> Normalization {
        let normalizer = self.inner.get_normalizer().map(serde_json::to_value).and_then(Result::ok).unwrap_or_default();
        Normalization {
            lowercase: normalizer["lowercase"].as_bool().unwrap_or(true),
            strip_accents: normalizer["strip_accents"].as_bool(),
            chinese_chars: normalizer["handle_chinese_chars"].as_bool().unwrap_or(true),
        }
    }

    /// Serializes the tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// If a component of a third-party tokenizer cannot be serialized.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(|error| Error::Setting(format!("cannot write the tokenizer: {error}")))
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and, for WordPiece, `vocab.txt`.
    /// `max_length` is the model's maximum sequence length.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: impl AsRef<Path>, max_length: usize) -> Result<()> {
        let directory = directory.as_ref();
        replace_file(directory.join("tokenizer.json"), self.to_json()?.as_bytes())?;
        let mut config = match is_bert(&self.inner) && self.has_bert_template() {
            true => {
                let Normalization { lowercase, strip_accents, chinese_chars } = self.normalization();
                json!({
                    "tokenizer_class": "BertTokenizer",
                    "do_lower_case": lowercase,
                    "strip_accents": strip_accents,
                    "tokenize_chinese_chars": chinese_chars,
                })
            }
            // Makes transformers use tokenizer.json as it is.
            false => {
                let names = ["input_ids", "token_type_ids", "attention_mask"];
                let names = names.into_iter().filter(|name| self.has_types || *name != "token_type_ids");
                let names: Vec<&str> = names.collect();
                json!({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names})
            }
        };
        if self.truncation_side == TruncationDirection::Left {
            config["truncation_side"] = self.truncation_side.as_ref().into();
        }
        if self.inner.get_encode_special_tokens() {
            config["split_special_tokens"] = true.into();
        }
        config["model_max_length"] = max_length.into();
        let SpecialTokens { pad, unk, cls, sep } = self.special();
        let ids = [Some(pad), Some(unk), Some(cls), Some(sep), self.optional_mask()];
        for (key, id) in SPECIAL_KEYS.into_iter().zip(ids) {
            config[key] = id.map(|id| self.piece(id)).into();
        }
        write_json(directory.join("tokenizer_config.json"), &config)?;
        match self.inner.get_model() {
            ModelWrapper::WordPiece(_) => {
                replace_file(directory.join("vocab.txt"), (self.vocabulary().join("\n") + "\n").as_bytes())
            }
            _ => Ok(()),
        }
    }
}
