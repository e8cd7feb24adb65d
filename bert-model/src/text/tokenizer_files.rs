//! Readers for Hugging Face's tokenizer files: `vocab.txt`, `tokenizer_config.json`,
//! `special_tokens_map.json`, `added_tokens.json`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, TruncationDirection};

use crate::error::{Error, Result};
use crate::file::{self, read_text};

/// The special tokens of BERT; learned vocabularies start with them, in this order.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The keys of `tokenizer_config.json` that name the special tokens, in the order of [`SPECIAL_TOKENS`].
pub(super) const SPECIAL_KEYS: [&str; 5] = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];

/// Reads a JSON file; `null` if it does not exist.
fn read_json(path: &Path) -> Result<Value> {
    if path.exists() { file::read_json(path, "a tokenizer configuration") } else { Ok(Value::Null) }
}

/// Reads the WordPieces of a `vocab.txt`, in id order, without a byte order mark and blanks at the ends of lines, and
/// returns a warning if one occurs twice.
pub(super) fn read_vocabulary(path: &Path) -> Result<(Vec<String>, Option<String>)> {
    let text = read_text(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let end = if text.contains('\n') { '\n' } else { '\r' };
    let mut vocabulary: Vec<String> = text.split(end).map(|line| line.trim_ascii_end().to_string()).collect();
    while vocabulary.last().is_some_and(String::is_empty) {
        vocabulary.pop();
    }
    let mut lines = HashMap::new();
    let mut again = Vec::new();
    for (index, piece) in vocabulary.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
        if let Some(first) = lines.insert(piece, index + 1) {
            again.push((first, index + 1, piece));
        }
    }
    let warning = again.first().map(|(first, second, piece)| {
        let (file, count) = (file_name(path), again.len());
        format!(
            "{file}:{second}: duplicate {piece:?} (first on line {first}), {count} duplicate line(s) in all; the last \
             one takes precedence, as in transformers"
        )
    });
    Ok((vocabulary, warning))
}

/// The name of a file without its directory, for warnings, which name the directory separately.
pub(super) fn file_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The files next to a `tokenizer.json` or `vocab.txt`, as far as they exist.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    /// The contents of `tokenizer_config.json`.
    pub config: Value,
    /// The path of `tokenizer_config.json`.
    pub path: PathBuf,
    /// The contents of `special_tokens_map.json`, which is ignored if the newer `added_tokens_decoder` exists.
    map: Value,
    /// The contents of `added_tokens.json`, ignored likewise.
    added: Value,
}

impl Configuration {
    /// Reads the files in the same directory as `path`.
    pub fn beside(path: &Path) -> Result<Self> {
        let mut at = path.with_file_name("tokenizer_config.json");
        let mut config = read_json(&at)?;
        // If this file does not name the class, config.json may.
        if config["tokenizer_class"].is_null() {
            let of_model = path.with_file_name("config.json");
            let class = read_json(&of_model)?.get("tokenizer_class").and_then(Value::as_str).map(str::to_string);
            if let Some(class) = class.filter(|_| config.is_null() || config.is_object()) {
                at = if config.is_null() { of_model } else { at };
                config["tokenizer_class"] = class.into();
            }
        }
        let (mut map, mut added) = (Value::Null, Value::Null);
        if !config["added_tokens_decoder"].is_object() {
            map = read_json(&path.with_file_name("special_tokens_map.json"))?;
            added = read_json(&path.with_file_name("added_tokens.json"))?;
        }
        Ok(Self { config, path: at, map, added })
    }

    /// The name of a special token, stored as a string or an object with matching options. The older file takes
    /// precedence, as in transformers.
    pub fn name(&self, key: &str) -> Option<&str> {
        [&self.map[key], &self.config[key]].into_iter().find_map(|value| value.as_str().or(value["content"].as_str()))
    }

    /// The names of the special tokens, in the order of [`SPECIAL_TOKENS`], which provides the defaults.
    pub fn names(&self) -> [String; 5] {
        let mut names = SPECIAL_TOKENS.map(str::to_string);
        for (name, key) in names.iter_mut().zip(SPECIAL_KEYS) {
            if let Some(stated) = self.name(key) {
                *name = stated.into();
            }
        }
        names
    }

    /// The path of the file that lists the added tokens.
    pub fn added_path(&self) -> PathBuf {
        match self.config["added_tokens_decoder"].is_object() {
            true => self.path.clone(),
            false => self.path.with_file_name("added_tokens.json"),
        }
    }

    /// The tokens that were added to a vocabulary after training, by id.
    pub fn added_tokens(&self) -> Result<BTreeMap<u64, AddedToken>> {
        const EXPECTED: &str = "added tokens and their ids as Hugging Face writes them";
        let bad = |found: &str| Error::file(self.added_path(), found, EXPECTED);
        if let Some(decoder) = self.config["added_tokens_decoder"].as_object() {
            let token = |(id, token): (&String, &Value)| {
                let id = id.parse().map_err(|_| bad(id))?;
                Ok((id, added_token(token, false).ok_or_else(|| bad(&token.to_string()))?))
            };
            return decoder.iter().map(token).collect();
        }
        let special: Vec<String> =
            self.extra_tokens().into_iter().map(|token| token.content).chain(self.names()).collect();
        match &self.added {
            Value::Null => Ok(BTreeMap::new()),
            Value::Object(ids) => {
                let token = |(token, id): (&String, &Value)| {
                    let id = id.as_u64().ok_or_else(|| bad(&id.to_string()))?;
                    Ok((id, AddedToken::from(token.as_str(), special.contains(token))))
                };
                ids.iter().map(token).collect()
            }
            other => Err(bad(&other.to_string())),
        }
    }

    /// Special tokens other than BERT's own, in the order in which they are added if the vocabulary lacks them.
    pub fn extra_tokens(&self) -> Vec<AddedToken> {
        let keys = ["extra_special_tokens", "additional_special_tokens"];
        let lists = [&self.map, &self.config].into_iter().flat_map(|file| keys.map(|key| &file[key]));
        let tokens = |list: &Value| -> Vec<AddedToken> {
            let values = match list {
                Value::Array(values) => values.iter().collect(),
                Value::Object(named) => named.values().collect(),
                _ => Vec::new(),
            };
            values.into_iter().filter_map(|value| added_token(value, true)).collect()
        };
        let mut found: Vec<AddedToken> = Vec::new();
        for token in lists.flat_map(tokens) {
            if !found.iter().any(|known| known.content == token.content) {
                found.push(token);
            }
        }
        found
    }

    /// Whether the model gets token types; `model_input_names` may leave them out.
    pub fn has_types(&self) -> bool {
        let names = self.config["model_input_names"].as_array();
        names.is_none_or(|names| names.iter().any(|name| name == "token_type_ids"))
    }

    /// The end at which texts that are too long lose tokens, if the files say so.
    pub fn truncation_side(&self) -> Option<TruncationDirection> {
        match self.config["truncation_side"].as_str()? {
            "left" => Some(TruncationDirection::Left),
            _ => Some(TruncationDirection::Right),
        }
    }

    /// Whether a special token that occurs in a text is split like any other word.
    pub fn splits_special_tokens(&self) -> bool {
        self.config["split_special_tokens"] == true
    }

    /// Whether transformers treats the tokenizer as BERT's and rebuilds it from the vocabulary, instead of using its
    /// file unchanged.
    pub fn is_bert_class(&self) -> bool {
        !matches!(self.config["tokenizer_class"].as_str(), Some("PreTrainedTokenizerFast" | "TokenizersBackend"))
    }
}

/// Parses a token: its content, or an object with the content and matching options.
fn added_token(value: &Value, is_special: bool) -> Option<AddedToken> {
    let content = value.as_str().or(value["content"].as_str()).filter(|content| !content.is_empty())?;
    let none = Map::new();
    let options = value.as_object().unwrap_or(&none);
    let flag = |key: &str, default: bool| options.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = is_special || flag("special", false);
    Some(AddedToken {
        content: content.into(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

/// Rejects a vocabulary for an algorithm other than BERT's, which only a `tokenizer.json` can describe.
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

#[cfg(test)]
mod tests;
