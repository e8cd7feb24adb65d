//! Loads tokenizers from `tokenizer.json`, or from `vocab.txt` and the files next to it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PaddingParams, PreTokenizerWrapper};

use super::template::Template;
use super::tokenizer::{Normalization, SpecialTokens, Tokenizer};
use super::tokenizer_files::{Configuration, check_algorithm, file_name, read_vocabulary};
use crate::error::{Error, Result};
use crate::file::read_text;
use crate::hub::tokenizer_directory;

impl Tokenizer {
    /// Loads the tokenizer of a model directory: `tokenizer.json` if it exists, otherwise `vocab.txt` with the special
    /// and added tokens named in the files next to it. `path` may also be one of these two files, or a [name on the
    /// Hub](crate::hub).
    ///
    /// # Errors
    /// If there is neither file, or it does not describe a BERT tokenizer.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = &*tokenizer_directory(path)?;
        let metadata = std::fs::metadata(path).map_err(Error::io(path, "open the tokenizer"))?;
        if metadata.is_file() {
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            return if is_json { Self::from_json(path) } else { Self::from_configured_vocab_file(path) };
        }
        let (json, vocab) = (path.join("tokenizer.json"), path.join("vocab.txt"));
        match (json.exists(), vocab.exists()) {
            (true, _) => Self::from_json(&json),
            (false, true) => Self::from_configured_vocab_file(&vocab),
            (false, false) => Err(Error::file(path, "no tokenizer", "tokenizer.json or vocab.txt")),
        }
    }

    fn from_json(path: &Path) -> Result<Self> {
        let inner = parse(&read_text(path)?, path)?;
        let configuration = Configuration::beside(path)?;
        let warnings = disagreements(&inner, &configuration);
        complete(inner, &configuration, path, warnings)
    }

    /// Builds a tokenizer from the contents of a `tokenizer.json` whose special tokens have BERT's names.
    ///
    /// # Errors
    /// If the contents are malformed, or a special token is missing.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let path = Path::new("tokenizer.json");
        let json = std::str::from_utf8(json).map_err(|error| Error::file(path, error.to_string(), "UTF-8"))?;
        complete(parse(json, path)?, &Configuration::default(), path, Vec::new())
    }

    fn from_configured_vocab_file(path: &Path) -> Result<Self> {
        let configuration = Configuration::beside(path)?;
        let config = &configuration.config;
        check_algorithm(config, &configuration.path)?;
        let normalization = Normalization {
            lowercase: config["do_lower_case"].as_bool().unwrap_or(true),
            strip_accents: config["strip_accents"].as_bool(),
            chinese_chars: config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        };
        Self::from_vocab_files(path, normalization, &configuration)
    }

    /// Builds a tokenizer from a vocabulary file alone: one WordPiece per line, in id order.
    ///
    /// # Errors
    /// If the file cannot be read or lacks a special token.
    pub fn from_vocab_file(path: &Path, normalization: Normalization) -> Result<Self> {
        Self::from_vocab_files(path, normalization, &Configuration::default())
    }

    fn from_vocab_files(path: &Path, normalization: Normalization, configuration: &Configuration) -> Result<Self> {
        let (vocabulary, warning) = read_vocabulary(path)?;
        let inner = build(&vocabulary, normalization, configuration.names(), path)?;
        complete(inner, configuration, path, warning.into_iter().collect())
    }

    /// Builds a tokenizer from WordPieces in id order.
    ///
    /// # Errors
    /// If a special token is missing.
    pub fn from_vocabulary(vocabulary: &[String], normalization: Normalization) -> Result<Self> {
        let (configuration, origin) = (Configuration::default(), Path::new("the vocabulary"));
        let inner = build(vocabulary, normalization, configuration.names(), origin)?;
        complete(inner, &configuration, origin, Vec::new())
    }
}

/// Whether a tokenizer splits text as BERT does, so that `vocab.txt` and `tokenizer_config.json` can describe it.
pub(super) fn is_bert(inner: &tokenizers::Tokenizer) -> bool {
    matches!(inner.get_model(), ModelWrapper::WordPiece(_))
        && matches!(inner.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
}

/// Parses the contents of a `tokenizer.json`.
fn parse(json: &str, path: &Path) -> Result<tokenizers::Tokenizer> {
    // The tokenizers crate panics on some malformed JSON, so check it first.
    let _: serde::de::IgnoredAny = serde_json::from_str(json)
        .map_err(|error| Error::line(path, error.line() as u64, error.to_string(), "a tokenizer.json"))?;
    let inner: tokenizers::Tokenizer = json
        .parse()
        .map_err(|error| Error::file(path, format!("{error}"), "a tokenizer.json of the tokenizers library"))?;
    let splitting = inner.get_pre_tokenizer().map(serde_json::to_value).and_then(Result::ok).unwrap_or_default();
    if has_empty_parts(&splitting) {
        return Err(Error::file(path, "a `FixedLength` of 0 in `pre_tokenizer`", "at least 1"));
    }
    Ok(inner)
}

/// Whether text would be split into empty parts, on which the tokenizers crate panics.
fn has_empty_parts(splitting: &Value) -> bool {
    let inside = splitting["pretokenizers"].as_array();
    splitting["type"] == "FixedLength" && splitting["length"] == 0
        || inside.is_some_and(|inside| inside.iter().any(has_empty_parts))
}

/// Builds BERT's own pipeline over a vocabulary, without the special tokens around a text, which [`complete`] adds.
fn build(
    vocabulary: &[String],
    normalization: Normalization,
    [_, unk, ..]: [String; 5],
    origin: &Path,
) -> Result<tokenizers::Tokenizer> {
    let fail = |error: tokenizers::Error| Error::file(origin, error.to_string(), "a WordPiece vocabulary");
    let ids: Vocab = vocabulary.iter().enumerate().map(|(id, piece)| (piece.clone(), id as u32)).collect();
    let model = WordPiece::builder()
        .vocab(ids)
        .unk_token(unk)
        .continuing_subword_prefix("##".into())
        .max_input_chars_per_word(100)
        .build()
        .map_err(fail)?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let Normalization { lowercase, strip_accents, chinese_chars } = normalization;
    inner
        .with_normalizer(Some(BertNormalizer::new(true, chinese_chars, strip_accents, lowercase)))
        .map_err(fail)?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    Ok(inner)
}

/// Adds the tokens named in the files next to a vocabulary, and sets the unknown token and the template of BERT's own
/// pipeline as transformers does.
fn complete(
    mut inner: tokenizers::Tokenizer,
    configuration: &Configuration,
    origin: &Path,
    mut warnings: Vec<String>,
) -> Result<Tokenizer> {
    let truncation = inner.get_truncation().map(|truncation| truncation.direction);
    let truncation_side = configuration.truncation_side().or(truncation).unwrap_or_default();
    // The lengths of truncation and padding are up to the caller, whatever the file says.
    inner.with_padding(None::<PaddingParams>);
    inner.with_truncation(None).map_err(|error| Error::file(origin, error.to_string(), "a tokenizer"))?;
    let names = configuration.names();
    let added = configuration.added_tokens()?;
    warnings.extend(stale_ids(&inner, configuration, &added));
    let is_new = |(_, token): &(&u64, &AddedToken)| inner.token_to_id(&token.content).is_none();
    let new: Vec<(u64, String)> = added.iter().filter(is_new).map(|(id, token)| (*id, token.content.clone())).collect();
    add_new(&mut inner, added.into_values(), origin)?;
    if let Some((id, token)) = new.iter().find(|(id, token)| inner.token_to_id(token).map(u64::from) != Some(*id)) {
        let found = format!("the added token {token:?} with the id {id}");
        return Err(Error::file(origin, found, "ids that continue where the vocabulary ends"));
    }
    let (special, mask) = find_special_tokens(&inner, &names, origin)?;
    let named = names.iter().filter(|name| inner.token_to_id(name).is_some());
    let named: Vec<AddedToken> = named.map(|name| AddedToken::from(name.as_str(), true)).collect();
    add_new(&mut inner, named.into_iter().chain(configuration.extra_tokens()), origin)?;
    Template::of(&inner).map_err(|(found, expected)| Error::file(origin, found, expected))?;
    if is_bert(&inner) && configuration.is_bert_class() {
        follow_names(&mut inner, &names, special, origin)?;
    }
    inner.set_encode_special_tokens(configuration.splits_special_tokens());
    let tokenizer = Tokenizer::new(inner, special, mask, origin, warnings)?;
    Ok(tokenizer.with_conventions(configuration.has_types(), truncation_side))
}

/// Adds those tokens that have not been added yet.
fn add_new(inner: &mut tokenizers::Tokenizer, tokens: impl Iterator<Item = AddedToken>, origin: &Path) -> Result<()> {
    let known = inner.get_added_vocabulary().get_vocab();
    let new: Vec<AddedToken> = tokens.filter(|token| !known.contains_key(&token.content)).collect();
    if !new.is_empty() {
        let fail = |error: tokenizers::Error| Error::file(origin, error.to_string(), "a vocabulary");
        inner.add_tokens(new).map_err(fail)?;
    }
    Ok(())
}

/// Returns a warning if added tokens have ids that differ from the vocabulary's.
fn stale_ids(
    inner: &tokenizers::Tokenizer,
    configuration: &Configuration,
    added: &BTreeMap<u64, AddedToken>,
) -> Option<String> {
    let stale = added.iter().filter_map(|(id, token)| {
        let own = inner.token_to_id(&token.content).map(u64::from).filter(|own| own != id)?;
        Some(format!("{} {id} and {own}", token.content))
    });
    let stale: Vec<String> = stale.collect();
    let (first, place) = (stale.first()?, configuration.added_path());
    let count = stale.len();
    Some(format!(
        "{}: {count} token(s) have different ids in the vocabulary, which takes precedence: {first}, …",
        file_name(&place)
    ))
}

/// Makes BERT's own pipeline use special tokens with these names.
fn follow_names(
    inner: &mut tokenizers::Tokenizer,
    names: &[String; 5],
    special: SpecialTokens,
    origin: &Path,
) -> Result<()> {
    let [_, unk, cls, sep, _] = names.clone();
    if let ModelWrapper::WordPiece(model) = inner.get_model()
        && model.unk_token != unk
    {
        let mut model = model.clone();
        model.unk_token = unk;
        inner.with_model(model);
    }
    let template = Template::of(inner).map_err(|(found, expected)| Error::file(origin, found, expected))?;
    if template != Template::bert(special.cls, special.sep) {
        inner.with_post_processor(Some(BertProcessing::new((sep, special.sep), (cls, special.cls))));
    }
    Ok(())
}

/// Looks up the ids of the special tokens; `[MASK]` may be missing.
fn find_special_tokens(
    inner: &tokenizers::Tokenizer,
    names: &[String; 5],
    origin: &Path,
) -> Result<(SpecialTokens, Option<u32>)> {
    let id = |token: &str| {
        let missing = || format!("the special tokens {}", names[..4].join(" "));
        inner.token_to_id(token).ok_or_else(|| Error::file(origin, format!("no {token}"), missing()))
    };
    let [pad, unk, cls, sep, mask] = names;
    let special = SpecialTokens { pad: id(pad)?, unk: id(unk)?, cls: id(cls)?, sep: id(sep)? };
    Ok((special, inner.token_to_id(mask)))
}

/// Returns warnings about settings in `tokenizer_config.json` that contradict `tokenizer.json`, which takes precedence.
fn disagreements(inner: &tokenizers::Tokenizer, configuration: &Configuration) -> Vec<String> {
    if !configuration.is_bert_class() {
        return Vec::new();
    }
    let Some(NormalizerWrapper::BertNormalizer(normalizer)) = inner.get_normalizer() else {
        let class = configuration.config["tokenizer_class"].as_str().unwrap_or("BertTokenizer");
        return vec![format!(
            "tokenizer.json has another normalizer than BERT's, or none, and is followed; transformers' {class} uses BERT's"
        )];
    };
    // Without `strip_accents`, lowercase text has none.
    let lowercase = configuration.config["do_lower_case"].as_bool().unwrap_or(true);
    let there = configuration.config["strip_accents"].as_bool();
    let strips_alike = normalizer.strip_accents.unwrap_or(normalizer.lowercase) == there.unwrap_or(lowercase);
    let strip_accents = if strips_alike { there } else { normalizer.strip_accents };
    // Of each setting: its value here, and the one that transformers assumes if it is absent.
    let here = [
        ("do_lower_case", Some(normalizer.lowercase), json!(true)),
        ("strip_accents", strip_accents, json!(null)),
        ("tokenize_chinese_chars", Some(normalizer.handle_chinese_chars), json!(true)),
    ];
    let shown = |flag: Option<bool>| flag.map_or("null".to_string(), |flag| flag.to_string());
    let disagrees = |(key, flag, usual): &(&str, Option<bool>, Value)| {
        let there = configuration.config.get(*key).unwrap_or(usual);
        let is_other = there.as_bool() != *flag && (there.is_boolean() || there.is_null());
        is_other.then(|| {
            let absent = if configuration.config.get(*key).is_some() { "" } else { " by default" };
            format!(
                "{}: `{key}` is {there}{absent}, but tokenizer.json says {}, which takes precedence; transformers uses the \
                 former: make them agree",
                file_name(&configuration.path),
                shown(*flag)
            )
        })
    };
    here.iter().filter_map(disagrees).collect()
}
