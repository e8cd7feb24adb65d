//! BERT's tokenizer, a thin wrapper around the `tokenizers` crate: normalize, split on whitespace and punctuation, then
//! greedy longest-match WordPiece.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokenizers::normalizers::{self, Lowercase, NormalizerWrapper};
use tokenizers::{PostProcessor, TruncationDirection, TruncationParams};

use super::long::Cuts;
use super::template::Template;
pub use super::tokenizer_files::SPECIAL_TOKENS;
use crate::config::BertConfig;
use crate::error::{Error, Result};

/// Start and end of a WordPiece or word in its text, in code points; the end is exclusive.
pub type Offsets = (usize, usize);

/// Ids of the special tokens that every tokenizer has. A model directory may give them other names, such as `<s>` for
/// `[CLS]`. The fifth special token, [`Tokenizer::mask`], is optional.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`, which fills sequences up to the length of the batch.
    pub pad: u32,
    /// `[UNK]`, which represents a word that the vocabulary cannot.
    pub unk: u32,
    /// `[CLS]`, which starts every sequence.
    pub cls: u32,
    /// `[SEP]`, which ends every segment.
    pub sep: u32,
}

/// How text is normalized before WordPiece; the fields correspond to keys of `tokenizer_config.json`.
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
    mask: Option<u32>,
    /// The special tokens around a text, and the token types.
    pub(super) template: Template,
    /// Whether the model gets token types; otherwise all are 0.
    pub(super) has_types: bool,
    /// The end at which texts that are too long lose tokens.
    pub(super) truncation_side: TruncationDirection,
    /// Where long texts can be cut; `None` if they cannot be.
    pub(super) cuts: Option<Cuts>,
    /// One more than the highest id.
    end_of_ids: u64,
    /// The file that the tokenizer was read from.
    origin: Arc<Path>,
    warnings: Arc<[String]>,
    /// Number of texts truncated so far, shared by clones.
    pub(super) truncated: Arc<AtomicU64>,
}

impl Tokenizer {
    /// Wraps a tokenizer of the `tokenizers` crate whose special tokens have these ids.
    pub(super) fn new(
        inner: tokenizers::Tokenizer,
        special: SpecialTokens,
        mask: Option<u32>,
        origin: &Path,
        warnings: Vec<String>,
    ) -> Result<Self> {
        let vocabulary = inner.get_vocab(true);
        let pieces = vocabulary.len() as u64;
        let end_of_ids = vocabulary.into_values().max().map_or(0, |highest| u64::from(highest) + 1);
        // Tables indexed by id are as long as the highest id, so bound it by the size of the file.
        if end_of_ids > 1024 + 8 * pieces {
            let found = format!("the id {} among {pieces} pieces", end_of_ids - 1);
            return Err(Error::file(origin, found, "ids close to the number of pieces"));
        }
        let template = Template::of(&inner).map_err(|(found, expected)| Error::file(origin, found, expected))?;
        Ok(Self {
            cuts: Cuts::of(&inner),
            inner,
            special,
            mask,
            template,
            has_types: true,
            truncation_side: TruncationDirection::Right,
            end_of_ids,
            origin: origin.into(),
            warnings: warnings.into(),
            truncated: Arc::default(),
        })
    }

    /// The tokenizer with the conventions of its model: whether that gets token types, and at which end texts are
    /// truncated.
    pub(super) fn with_conventions(self, has_types: bool, truncation_side: TruncationDirection) -> Self {
        let template = if has_types { self.template } else { self.template.without_types() };
        Self { template, has_types, truncation_side, ..self }
    }

    /// Whether the model gets token types; otherwise, those of a pair are 0, too.
    pub fn has_types(&self) -> bool {
        self.has_types
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Id of `[MASK]`, which replaces a token to predict.
    ///
    /// # Errors
    /// If the vocabulary has no `[MASK]`. Such a tokenizer works for everything except masked-token prediction.
    pub fn mask(&self) -> Result<u32> {
        let expected = "one, which masked-token prediction requires";
        self.mask.ok_or_else(|| Error::file(&self.origin, "no [MASK] token", expected))
    }

    /// Id of `[MASK]`, if the vocabulary has one.
    pub(super) fn optional_mask(&self) -> Option<u32> {
        self.mask
    }

    /// Whether texts are encoded as `[CLS] A [SEP] B [SEP]` with BERT's token types.
    pub(super) fn has_bert_template(&self) -> bool {
        self.template == Template::bert(self.special.cls, self.special.sep)
    }

    /// Warnings for the user about the files that the tokenizer was read from, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of WordPieces.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The WordPiece with this id; an empty string if there is none.
    pub fn piece(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_default()
    }

    /// All WordPieces in id order; an empty string for an id without one.
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

    /// Returns a tokenizer that truncates to `max_length` tokens, special tokens included, at the end or, if the
    /// model's files say so (`truncation_side`), at the beginning; in a pair, the longer text loses tokens first.
    /// [`Tokenizer::truncated_count`] counts the truncated texts.
    ///
    /// # Errors
    /// If `max_length` leaves no room for the special tokens.
    pub fn truncating(&self, max_length: usize) -> Result<Self> {
        // For BERT: one `[CLS]` and two `[SEP]`.
        let added = |pair| self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
        let least = added(false).max(added(true)).max(1);
        if max_length < least {
            return Err(Error::Setting(format!(
                "maximum length: found {max_length}, expected at least {least}, for the special tokens"
            )));
        }
        let mut truncating = Self { truncated: Arc::default(), ..self.clone() };
        let direction = self.truncation_side;
        let parameters = TruncationParams { max_length, direction, ..TruncationParams::default() };
        truncating
            .inner
            .with_truncation(Some(parameters))
            .map_err(|error| Error::Setting(format!("maximum length {max_length}: {error}")))?;
        Ok(truncating)
    }

    /// Returns a tokenizer that lowercases texts before normalizing them, which `do_lower_case` of
    /// sentence-transformers requires even for a cased vocabulary. Special tokens within a text are left unchanged.
    ///
    /// # Errors
    /// If the normalizers cannot be combined.
    pub fn lowercasing(&self) -> Result<Self> {
        let own = self.inner.get_normalizer().cloned();
        let all = std::iter::once(NormalizerWrapper::Lowercase(Lowercase)).chain(own).collect();
        let mut lowercasing = self.clone();
        lowercasing
            .inner
            .with_normalizer(Some(normalizers::Sequence::new(all)))
            .map_err(|error| Error::Setting(format!("lowercasing: {error}")))?;
        Ok(lowercasing)
    }

    /// Checks that a model has an embedding for every id of the vocabulary and for every token type of a single text.
    /// [`Sequence::check_fits`](super::Sequence::check_fits) checks the tokens of a text.
    ///
    /// # Errors
    /// If the vocabulary is larger than the model's, or a token type is higher than the model's.
    pub fn check_fits(&self, config: &BertConfig) -> Result<()> {
        let pieces = self.end_of_ids;
        if pieces > config.vocab_size as u64 {
            return Err(Error::Mismatch {
                left: format!("{}: a vocabulary of {pieces}", self.origin.display()),
                right: format!("the model's of {} (`vocab_size` in config.json)", config.vocab_size),
                advice: "use the tokenizer that the model was trained with".into(),
            });
        }
        self.check_types(self.template.highest_type(), config)
    }

    /// As [`Tokenizer::check_fits`], for pairs of texts.
    ///
    /// # Errors
    /// As [`Tokenizer::check_fits`]; if the model has only one token type and the tokenizer gives a pair two; and if the
    /// tokenizer leaves out one of the texts.
    pub fn check_fits_pairs(&self, config: &BertConfig) -> Result<()> {
        self.check_fits(config)?;
        if !self.template.has_both_texts() {
            let found = "a template for pairs without both texts";
            return Err(Error::file(&*self.origin, found, "one with each of them once"));
        }
        if self.template.highest_pair_type() > 0 {
            config.check_pairs()?;
        }
        self.check_types(self.template.highest_pair_type(), config)
    }

    fn check_types(&self, highest: u32, config: &BertConfig) -> Result<()> {
        if (highest as usize) < config.type_vocab_size {
            return Ok(());
        }
        Err(Error::Mismatch {
            left: format!("{}: the token type {highest} in `post_processor`", self.origin.display()),
            right: format!("a model with {} token type(s) (`type_vocab_size` in config.json)", config.type_vocab_size),
            advice: "use the tokenizer that the model was trained with".into(),
        })
    }
}
