//! BERT's tokenizer, a thin wrapper around the `tokenizers` crate: normalize, split on whitespace
//! and punctuation, then greedy longest-match WordPiece. Reads and writes the tokenizer files of a
//! Hugging Face model directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, EncodeInput, Encoding, PaddingParams, PostProcessor, TruncationParams};

pub use super::tokenizer_files::SPECIAL_TOKENS;
use super::tokenizer_files::{added_tokens, check_algorithm, read_json, read_vocabulary, special_names};
use crate::config::BertConfig;
use crate::error::{Error, Result};

/// Start and end of a WordPiece or word in its text, in code points; the end is exclusive.
pub type Offsets = (usize, usize);

/// Ids of the special tokens. A model directory may give them other names, such as `<s>` for
/// `[CLS]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`, fills sequences up to the length of the batch.
    pub pad: u32,
    /// `[UNK]`, stands for a word that the vocabulary cannot represent.
    pub unk: u32,
    /// `[CLS]`, starts every sequence.
    pub cls: u32,
    /// `[SEP]`, ends every segment.
    pub sep: u32,
    /// `[MASK]`, replaces a token to predict.
    pub mask: u32,
}

/// How text is normalized before WordPiece; the keys of `tokenizer_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalization {
    /// Lowercase the text (an "uncased" model).
    pub lowercase: bool,
    /// Strip accents; `None` means if and only if `lowercase`.
    pub strip_accents: Option<bool>,
    /// Split CJK characters into words of their own.
    pub chinese_chars: bool,
}

impl Normalization {
    /// The settings of Google's uncased (`lowercase`) or cased models.
    pub fn new(lowercase: bool) -> Self {
        Self { lowercase, strip_accents: None, chinese_chars: true }
    }
}

/// Converts text to WordPiece ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    /// One more than the highest id.
    end_of_ids: u64,
    /// Number of texts truncated so far, shared by clones.
    truncated: Arc<AtomicU64>,
}

impl Tokenizer {
    /// Loads the tokenizer of a model directory: `tokenizer.json` if present, else `vocab.txt` with
    /// `tokenizer_config.json` and added tokens. `path` may also be one of the first two files.
    ///
    /// # Errors
    /// If there is neither file, or it does not describe a BERT tokenizer.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
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
        let json = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        Self::parse(&json, &special_names(path)?, path)
    }

    /// Reads the contents of a `tokenizer.json` whose special tokens have BERT's names.
    ///
    /// # Errors
    /// If the contents are malformed, or a special token is missing.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let path = Path::new("tokenizer.json");
        let json = std::str::from_utf8(json).map_err(|error| Error::file(path, error.to_string(), "UTF-8"))?;
        Self::parse(json, &SPECIAL_TOKENS.map(str::to_string), path)
    }

    fn parse(json: &str, names: &[String; 5], path: &Path) -> Result<Self> {
        // The tokenizers crate panics on some malformed JSON, so check it first.
        let _: serde::de::IgnoredAny = serde_json::from_str(json)
            .map_err(|error| Error::line(path, error.line() as u64, error.to_string(), "a tokenizer.json"))?;
        let mut inner: tokenizers::Tokenizer = json
            .parse()
            .map_err(|error| Error::file(path, format!("{error}"), "a tokenizer.json of the tokenizers library"))?;
        // The caller decides about truncation and padding, whatever the file was saved with.
        inner.with_padding(None::<PaddingParams>);
        inner.with_truncation(None).map_err(|error| Error::file(path, error.to_string(), "a tokenizer"))?;
        Self::wrap(inner, names, path)
    }

    fn from_configured_vocab_file(path: &Path) -> Result<Self> {
        let config_path = path.with_file_name("tokenizer_config.json");
        let config = read_json(&config_path)?;
        check_algorithm(&config, &config_path)?;
        let normalization = Normalization {
            lowercase: config["do_lower_case"].as_bool().unwrap_or(true),
            strip_accents: config["strip_accents"].as_bool(),
            chinese_chars: config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        };
        let names = special_names(path)?;
        let mut inner = Self::build(&read_vocabulary(path)?, normalization, &names, path)?;
        let added = added_tokens(path, &config)?;
        inner
            .add_tokens(added.values().cloned())
            .map_err(|error| Error::file(path, error.to_string(), "a vocabulary"))?;
        for (id, token) in added {
            let found = inner.token_to_id(&token.content).map(u64::from);
            if found != Some(id) {
                let found = format!("the added token {:?} with the id {id}", token.content);
                return Err(Error::file(path, found, "ids that continue where the vocabulary ends"));
            }
        }
        Self::wrap(inner, &names, path)
    }

    /// Builds a tokenizer from a vocabulary file alone: one WordPiece per line, in id order.
    ///
    /// # Errors
    /// If the file cannot be read, contains a WordPiece twice, or lacks a special token.
    pub fn from_vocab_file(path: &Path, normalization: Normalization) -> Result<Self> {
        let names = SPECIAL_TOKENS.map(str::to_string);
        Self::wrap(Self::build(&read_vocabulary(path)?, normalization, &names, path)?, &names, path)
    }

    /// Builds a tokenizer from WordPieces in id order.
    ///
    /// # Errors
    /// If a special token is missing.
    pub fn from_vocabulary(vocabulary: &[String], normalization: Normalization) -> Result<Self> {
        let (names, origin) = (SPECIAL_TOKENS.map(str::to_string), Path::new("the vocabulary"));
        Self::wrap(Self::build(vocabulary, normalization, &names, origin)?, &names, origin)
    }

    fn build(
        vocabulary: &[String],
        normalization: Normalization,
        names: &[String; 5],
        origin: &Path,
    ) -> Result<tokenizers::Tokenizer> {
        let [_, unk, cls, sep, _] = names.clone();
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
        let special = Self::find_special_tokens(&inner, names, origin)?;
        inner.with_post_processor(Some(BertProcessing::new((sep, special.sep), (cls, special.cls))));
        inner.add_special_tokens(names.each_ref().map(|token| AddedToken::from(token, true))).map_err(fail)?;
        Ok(inner)
    }

    fn wrap(inner: tokenizers::Tokenizer, names: &[String; 5], origin: &Path) -> Result<Self> {
        let special = Self::find_special_tokens(&inner, names, origin)?;
        let vocabulary = inner.get_vocab(true);
        let pieces = vocabulary.len() as u64;
        let end_of_ids = vocabulary.into_values().max().map_or(0, |highest| u64::from(highest) + 1);
        // Tables indexed by id are as long as the highest id, so bound it by the size of the file.
        if end_of_ids > 1024 + 8 * pieces {
            let found = format!("the id {} among {pieces} pieces", end_of_ids - 1);
            return Err(Error::file(origin, found, "ids from 0 on"));
        }
        Ok(Self { inner, special, end_of_ids, truncated: Arc::default() })
    }

    fn find_special_tokens(inner: &tokenizers::Tokenizer, names: &[String; 5], origin: &Path) -> Result<SpecialTokens> {
        let id = |token: &str| {
            let missing = || format!("the special tokens {}", names.join(" "));
            inner.token_to_id(token).ok_or_else(|| Error::file(origin, format!("no {token}"), missing()))
        };
        let [pad, unk, cls, sep, mask] = names;
        Ok(SpecialTokens { pad: id(pad)?, unk: id(unk)?, cls: id(cls)?, sep: id(sep)?, mask: id(mask)? })
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Number of WordPieces.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The WordPiece with this id; the empty string if there is none.
    pub fn piece(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_default()
    }

    /// All WordPieces in id order.
    pub fn vocabulary(&self) -> Vec<String> {
        (0..self.end_of_ids).map(|id| self.piece(id as u32)).collect()
    }

    /// For each id, whether the WordPiece continues a word (`##…`).
    pub fn continuations(&self) -> Vec<bool> {
        self.vocabulary().iter().map(|piece| piece.starts_with("##")).collect()
    }

    /// Converts WordPiece ids back to text, omitting special tokens.
    ///
    /// # Errors
    /// If the decoder of a third-party `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| Error::Setting(format!("cannot decode: {error}")))
    }

    /// A tokenizer that truncates to `max_length` tokens, special tokens included; in a pair, the
    /// longer text loses tokens first. [`Tokenizer::truncated_count`] counts the truncated texts.
    ///
    /// # Errors
    /// If `max_length` leaves no room for the special tokens.
    pub fn truncating(&self, max_length: usize) -> Result<Self> {
        // In BERT: one `[CLS]` and two `[SEP]`.
        let least = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true)).max(1);
        if max_length < least {
            return Err(Error::Setting(format!(
                "maximum length: found {max_length}, expected at least {least}, for the special tokens"
            )));
        }
        let mut truncating = Self { truncated: Arc::default(), ..self.clone() };
        let parameters = TruncationParams { max_length, ..TruncationParams::default() };
        truncating
            .inner
            .with_truncation(Some(parameters))
            .map_err(|error| Error::Setting(format!("maximum length {max_length}: {error}")))?;
        Ok(truncating)
    }

    /// Encodes a text as `[CLS] text [SEP]`, or a pair as `[CLS] text [SEP] pair [SEP]` with token
    /// types 0 and 1. Offsets count code points.
    ///
    /// # Errors
    /// If a third-party `tokenizer.json` cannot process the text.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoding> {
        let input: EncodeInput = match pair {
            Some(pair) => (text, pair).into(),
            None => text.into(),
        };
        let encoded = self.inner.encode_char_offsets(input, true);
        let encoding = encoded.map_err(|error| Error::Setting(format!("cannot tokenize: {error}")))?;
        if !encoding.get_overflowing().is_empty() {
            self.truncated.fetch_add(1, Ordering::Relaxed);
        }
        Ok(encoding)
    }

    /// The length in tokens at which texts are truncated; `None` if they are not, see [`Tokenizer::truncating`].
    pub fn max_length(&self) -> Option<usize> {
        self.inner.get_truncation().map(|truncation| truncation.max_length)
    }

    /// Number of texts (or pairs) that this tokenizer and its clones have truncated so far; see
    /// [`Tokenizer::truncating`].
    pub fn truncated_count(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// The WordPiece ids of a text, without special tokens.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| Error::Setting(format!("cannot tokenize: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The WordPiece ids of a text, without special tokens, and the offsets of each in code points.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn pieces_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Offsets>)> {
        let encoding = self.plain(text)?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// The offsets, in code points, of each word of a text, as split on whitespace and punctuation.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn word_offsets(&self, text: &str) -> Result<Vec<Offsets>> {
        let encoding = self.plain(text)?;
        let mut offsets: Vec<(Option<u32>, (usize, usize))> = Vec::new();
        for (&word, &(start, end)) in encoding.get_word_ids().iter().zip(encoding.get_offsets()) {
            match offsets.last_mut() {
                Some((last, span)) if *last == word => span.1 = end,
                _ => offsets.push((word, (start, end))),
            }
        }
        Ok(offsets.into_iter().map(|(_, span)| span).collect())
    }

    fn plain(&self, text: &str) -> Result<Encoding> {
        let encoded = self.inner.encode_char_offsets(text, false);
        encoded.map_err(|error| Error::Setting(format!("cannot tokenize: {error}")))
    }

    /// Checks that every id has a row in the model's word embeddings.
    ///
    /// # Errors
    /// If the vocabulary is larger than the model's.
    pub fn check_fits(&self, config: &BertConfig) -> Result<()> {
        let pieces = self.end_of_ids;
        if pieces <= config.vocab_size as u64 {
            return Ok(());
        }
        Err(Error::Mismatch {
            left: format!("the tokenizer's vocabulary of {pieces}"),
            right: format!("the model's of {}", config.vocab_size),
            advice: "use the tokenizer that the model was trained with".into(),
        })
    }
}
