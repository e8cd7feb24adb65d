//! BERT's tokenizer (SEMANTICS: clean, split at whitespace and punctuation, then greedy longest-match WordPiece), by
//! way of the `tokenizers` crate, with the files that Hugging Face keeps beside a model.

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

/// Where a piece or a word stands in a text: start and end, in code points.
pub type Offsets = (usize, usize);

/// Ids of the special tokens; a directory may call them otherwise than BERT does (`<s>` for `[CLS]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`, fills a batch up.
    pub pad: u32,
    /// `[UNK]`, a word that the vocabulary cannot spell.
    pub unk: u32,
    /// `[CLS]`, begins every sequence.
    pub cls: u32,
    /// `[SEP]`, ends every segment.
    pub sep: u32,
    /// `[MASK]`, a hidden word.
    pub mask: u32,
}

/// How text is prepared before it is cut into WordPieces; the keys of `tokenizer_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalization {
    /// Lowercase everything (an "uncased" model).
    pub lowercase: bool,
    /// Remove accents; `None` means when lowercasing.
    pub strip_accents: Option<bool>,
    /// Set CJK characters apart as words of their own.
    pub chinese_chars: bool,
}

impl Normalization {
    /// As Google's uncased or cased models.
    pub fn new(lowercase: bool) -> Self {
        Self { lowercase, strip_accents: None, chinese_chars: true }
    }
}

/// Text to WordPiece ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    /// One more than the highest id.
    end_of_ids: u64,
    /// Texts that were cut so far.
    truncated: Arc<AtomicU64>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model directory: `tokenizer.json`, else `vocab.txt` with `tokenizer_config.json` and the
    /// tokens that were added to it. A path to one of the first two files works, too.
    ///
    /// # Errors
    /// If there is neither, or what is there is no BERT tokenizer.
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
        let json = std::fs::read(path).map_err(Error::io(path, "read"))?;
        Self::parse(&json, &special_names(path)?, path)
    }

    /// Reads the contents of a `tokenizer.json` whose special tokens have BERT's names.
    ///
    /// # Errors
    /// If it is none, or lacks a special token.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        Self::parse(json, &SPECIAL_TOKENS.map(str::to_string), Path::new("tokenizer.json"))
    }

    fn parse(json: &[u8], names: &[String; 5], path: &Path) -> Result<Self> {
        // The library panics where its own reader would meet bad JSON halfway through.
        let _: serde::de::IgnoredAny = serde_json::from_slice(json)
            .map_err(|error| Error::line(path, error.line() as u64, error.to_string(), "a tokenizer.json"))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| Error::file(path, format!("{error}"), "a tokenizer.json of the tokenizers library"))?;
        // Length and padding are the caller's to choose, whatever the file was saved with.
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
                return Err(Error::file(path, found, "ids that go on where the vocabulary ends"));
            }
        }
        Self::wrap(inner, &names, path)
    }

    /// A tokenizer from a vocabulary by itself: a WordPiece a line, in id order.
    ///
    /// # Errors
    /// If the file cannot be read, a piece comes twice, or a special token is missing.
    pub fn from_vocab_file(path: &Path, normalization: Normalization) -> Result<Self> {
        let names = SPECIAL_TOKENS.map(str::to_string);
        Self::wrap(Self::build(&read_vocabulary(path)?, normalization, &names, path)?, &names, path)
    }

    /// A tokenizer from the pieces of a vocabulary, in id order.
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
        // Lists by id are as long as the highest id says, so it must be of the size of what the file holds.
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

    /// The WordPiece with this id; "" for an id that there is not.
    pub fn piece(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_default()
    }

    /// All WordPieces in id order.
    pub fn vocabulary(&self) -> Vec<String> {
        (0..self.end_of_ids).map(|id| self.piece(id as u32)).collect()
    }

    /// For each id, whether the piece continues a word (`##…`).
    pub fn continuations(&self) -> Vec<bool> {
        self.vocabulary().iter().map(|piece| piece.starts_with("##")).collect()
    }

    /// WordPieces back to text.
    ///
    /// # Errors
    /// If the decoder of a foreign `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| Error::Setting(format!("cannot decode: {error}")))
    }

    /// The same tokenizer, cutting what is longer than `max_length` tokens, special tokens included; of a pair, the
    /// longer side loses tokens first. [`Tokenizer::truncated_count`] tells how many texts were cut.
    ///
    /// # Errors
    /// If `max_length` has no room for the special tokens.
    pub fn truncating(&self, max_length: usize) -> Result<Self> {
        // `[CLS]` and two times `[SEP]`, for BERT.
        let least = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true)).max(1);
        if max_length < least {
            return Err(Error::Setting(format!(
                "maximal length: found {max_length}, expected at least {least}, for the special tokens"
            )));
        }
        let mut truncating = Self { truncated: Arc::default(), ..self.clone() };
        let parameters = TruncationParams { max_length, ..TruncationParams::default() };
        truncating
            .inner
            .with_truncation(Some(parameters))
            .map_err(|error| Error::Setting(format!("maximal length {max_length}: {error}")))?;
        Ok(truncating)
    }

    /// `[CLS] text [SEP]`, or `[CLS] text [SEP] pair [SEP]` with token types 0 and 1. Offsets count code points.
    ///
    /// # Errors
    /// If a foreign `tokenizer.json` cannot process the text.
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

    /// How many texts this tokenizer and its clones have cut so far; see [`Tokenizer::truncating`].
    pub fn truncated_count(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// The WordPieces of a text without special tokens around it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| Error::Setting(format!("cannot tokenize: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The WordPieces of a text without special tokens around it, and where each stands, in code points.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn pieces_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Offsets>)> {
        let encoding = self.plain(text)?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// Where each word of a text stands, in code points: words are what whitespace and punctuation set apart.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
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

    /// Checks that every id of this tokenizer is a row of the model's word table.
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
