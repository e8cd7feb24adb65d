//! Readers for Hugging Face's tokenizer files: `vocab.txt`, `tokenizer_config.json`,
//! `special_tokens_map.json`, `added_tokens.json`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::tokenizer::{Normalization, SpecialTokens, Tokenizer};
use crate::error::{Error, Result};
use crate::file::replace_file;

/// The special tokens of BERT; learned vocabularies start with them, in this order.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The keys of `tokenizer_config.json` that name the special tokens, in the order of
/// [`SPECIAL_TOKENS`].
const SPECIAL_KEYS: [&str; 5] = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];

/// Reads a JSON file; `null` if it does not exist.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::line(path, error.line() as u64, error.to_string(), "a tokenizer configuration"))
}

/// Reads the WordPieces of a `vocab.txt`, in id order.
pub(super) fn read_vocabulary(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let mut vocabulary = Vec::new();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line)
            .map_err(|_| Error::line(path, number as u64 + 1, "bytes that are not UTF-8", "a WordPiece in UTF-8"))?;
        vocabulary.push(line.trim_end_matches('\r').to_string());
    }
    while vocabulary.last().is_some_and(String::is_empty) {
        vocabulary.pop();
    }
    let mut seen = HashSet::new();
    if let Some(line) = vocabulary.iter().position(|piece| !seen.insert(piece.as_str())) {
        let found = format!("a duplicate of {:?}", vocabulary[line]);
        return Err(Error::line(path, line as u64 + 1, found, "each WordPiece once"));
    }
    Ok(vocabulary)
}

/// The names of the special tokens according to the files beside `path`, in the order of
/// [`SPECIAL_TOKENS`], which are the default.
pub(super) fn special_names(path: &Path) -> Result<[String; 5]> {
    let config = read_json(&path.with_file_name("tokenizer_config.json"))?;
    let map = read_json(&path.with_file_name("special_tokens_map.json"))?;
    let mut names = SPECIAL_TOKENS.map(str::to_string);
    for (name, key) in names.iter_mut().zip(SPECIAL_KEYS) {
        // Either a string or an object that also has matching options.
        let stated =
            [&config[key], &map[key]].into_iter().find_map(|value| value.as_str().or(value["content"].as_str()));
        if let Some(stated) = stated {
            *name = stated.into();
        }
    }
    Ok(names)
}

/// The tokens added to a `vocab.txt` after training, by id, from the files beside it.
pub(super) fn added_tokens(path: &Path, config: &Value) -> Result<BTreeMap<u64, AddedToken>> {
    let bad =
        |path: &Path, found: &str| Error::file(path, found, "added tokens and their ids as Hugging Face writes them");
    if let Some(decoder) = config["added_tokens_decoder"].as_object() {
        let path = path.with_file_name("tokenizer_config.json");
        let token = |(id, token): (&String, &Value)| {
            let token: AddedToken =
                serde_json::from_value(token.clone()).map_err(|_| bad(&path, &token.to_string()))?;
            Ok((id.parse().map_err(|_| bad(&path, id))?, token))
        };
        return decoder.iter().map(token).collect();
    }
    let path = path.with_file_name("added_tokens.json");
    match read_json(&path)? {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(ids) => ids
            .into_iter()
            .map(|(token, id)| {
                Ok((id.as_u64().ok_or_else(|| bad(&path, &id.to_string()))?, AddedToken::from(token, false)))
            })
            .collect(),
        other => Err(bad(&path, &other.to_string())),
    }
}

/// Refuses a vocabulary of another algorithm than BERT's, which only a `tokenizer.json` can
/// describe.
pub(super) fn check_algorithm(config: &Value, path: &Path) -> Result<()> {
    const CLASSES: [&str; 6] = [
        "BertTokenizer",
        "BertTokenizerFast",
        "DistilBertTokenizer",
        "DistilBertTokenizerFast",
        "ElectraTokenizer",
        "ElectraTokenizerFast",
    ];
    let known: [(&str, &[&str]); 3] = [
        ("tokenizer_class", &CLASSES),
        ("word_tokenizer_type", &["basic"]),
        ("subword_tokenizer_type", &["wordpiece"]),
    ];
    let refuse = |key: &str, found: &str, expected: &str| {
        let expected = format!("{expected}, or a tokenizer.json beside the vocabulary");
        Err(Error::config(path.display().to_string(), key, found, expected))
    };
    for (key, names) in known {
        if let Some(found) = config[key].as_str()
            && !names.contains(&found)
        {
            return refuse(key, found, names[0]);
        }
    }
    if config["do_basic_tokenize"] == false { refuse("do_basic_tokenize", "false", "true") } else { Ok(()) }
}

impl Tokenizer {
    /// How text is normalized, as far as the tokenizer file says; otherwise as in Google's uncased
    /// models.
    pub fn normalization(&self) -> Normalization {
        let normalizer = self.inner.get_normalizer().map(serde_json::to_value).and_then(Result::ok).unwrap_or_default();
        Normalization {
            lowercase: normalizer["lowercase"].as_bool().unwrap_or(true),
            strip_accents: normalizer["strip_accents"].as_bool(),
            chinese_chars: normalizer["handle_chinese_chars"].as_bool().unwrap_or(true),
        }
    }

    /// Whether this is BERT's own pipeline, which `vocab.txt` and `tokenizer_config.json` can
    /// describe.
    fn is_bert(&self) -> bool {
        matches!(self.inner.get_model(), ModelWrapper::WordPiece(_))
            && matches!(self.inner.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
            && matches!(self.inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
    }

    /// Serializes the tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// If part of a third-party tokenizer cannot be serialized.
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
        let mut config = match self.is_bert() {
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
            false => json!({"tokenizer_class": "PreTrainedTokenizerFast"}),
        };
        config["model_max_length"] = max_length.into();
        let SpecialTokens { pad, unk, cls, sep, mask } = self.special();
        for (key, id) in SPECIAL_KEYS.into_iter().zip([pad, unk, cls, sep, mask]) {
            config[key] = self.piece(id).into();
        }
        let config = serde_json::to_string_pretty(&config).map_err(|error| Error::Setting(error.to_string()))?;
        replace_file(directory.join("tokenizer_config.json"), (config + "\n").as_bytes())?;
        match self.inner.get_model() {
            ModelWrapper::WordPiece(_) => {
                replace_file(directory.join("vocab.txt"), (self.vocabulary().join("\n") + "\n").as_bytes())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
