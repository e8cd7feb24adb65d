//! Converts text to WordPieces. The tokenizers library needs hundreds of bytes for each character that it processes at
//! once, so long texts are passed to it in parts, with the same result.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use tokenizers::{EncodeInput, Encoding, PostProcessor, Token, TruncationDirection};

use super::batch::Sequence;
use super::long::{LONG, Part};
use super::tokenizer::{Offsets, Tokenizer};
use crate::error::{Error, Result};

impl Tokenizer {
    /// Encodes a text as `[CLS] text [SEP]`, or a pair as `[CLS] text [SEP] pair [SEP]` with token types 0 and 1.
    /// Offsets count code points. Needs much memory for long texts; [`Tokenizer::sequence`] does not.
    ///
    /// # Errors
    /// If a third-party `tokenizer.json` cannot process the text.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoding> {
        let input: EncodeInput = match pair {
            Some(pair) => (text, pair).into(),
            None => text.into(),
        };
        let encoding = self.inner.encode_char_offsets(input, true).map_err(cannot_tokenize)?;
        Ok(self.counted(encoding))
    }

    /// Returns the ids and token types of [`Tokenizer::encode`]. For a long text that is truncated, only the kept part
    /// takes memory, unless it is truncated at the beginning.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn sequence(&self, text: &str, pair: Option<&str>) -> Result<Sequence> {
        if !self.is_long(text) && !pair.is_some_and(|pair| self.is_long(pair)) {
            return Ok(self.sequence_of(&self.encode(text, pair)?));
        }
        let limit = self.inner.get_truncation().map(|truncation| truncation.max_length);
        match (limit, pair) {
            (None, pair) => {
                let pair = pair.map(|pair| self.pieces(pair)).transpose()?;
                Ok(self.template.sequence(&self.pieces(text)?, pair.as_deref()))
            }
            (Some(limit), None) => {
                let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
                let room = limit.saturating_sub(special);
                let mut pieces = match self.truncation_side {
                    TruncationDirection::Right => self.first_pieces(text, room)?.1,
                    TruncationDirection::Left => self.pieces(text)?,
                };
                if let Some(excess) = pieces.len().checked_sub(room).filter(|excess| *excess > 0) {
                    self.truncated.fetch_add(1, Ordering::Relaxed);
                    match self.truncation_side {
                        TruncationDirection::Right => pieces.truncate(room),
                        TruncationDirection::Left => drop(pieces.drain(..excess)),
                    }
                }
                Ok(self.template.sequence(&pieces, None))
            }
            // Which text loses an odd token depends on how the library counts, so let it truncate the pair itself.
            (Some(_), Some(pair)) if self.truncation_side == TruncationDirection::Left => {
                Ok(self.sequence_of(&self.encode(text, Some(pair))?))
            }
            (Some(limit), Some(pair)) => {
                let (text, pair) = (self.first_pieces(text, limit)?.0, self.first_pieces(pair, limit)?.0);
                Ok(self.sequence_of(&self.encode(&text, Some(&pair))?))
            }
        }
    }

    /// The sequence of the WordPieces of a pair, and where those of the second text begin. The pair has
    /// [`Tokenizer::special_tokens_of_a_pair`] tokens more.
    pub fn pair_sequence(&self, first: &[u32], second: &[u32]) -> (Sequence, usize) {
        (self.template.sequence(first, Some(second)), self.template.start_of_second(first.len()))
    }

    /// The number of special tokens around a pair of texts, 3 for BERT.
    pub fn special_tokens_of_a_pair(&self) -> usize {
        self.template.special_tokens_of_a_pair()
    }

    fn sequence_of(&self, encoding: &Encoding) -> Sequence {
        let mut sequence = Sequence::from(encoding);
        if !self.has_types {
            sequence.types.fill(0);
        }
        sequence
    }

    /// As [`Tokenizer::sequence`], for a text that must not be truncated.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], and [`Error::TooLong`] if there are more than `limit` tokens.
    pub fn whole_sequence(&self, text: &str, pair: Option<&str>, limit: usize) -> Result<Sequence> {
        let sequence = self.sequence(text, pair)?;
        sequence.check_length(limit)?;
        Ok(sequence)
    }

    /// Returns the first WordPieces of a text (more than `count`, unless it has no more) and a text that has exactly
    /// these.
    fn first_pieces<'a>(&self, text: &'a str, count: usize) -> Result<(Cow<'a, str>, Vec<u32>)> {
        let Some(cuts) = self.cuts.as_ref().filter(|_| self.is_long(text)) else {
            return Ok((text.into(), self.pieces(text)?));
        };
        let (mut beginning, mut pieces) = (String::new(), Vec::new());
        for part in cuts.parts(text) {
            let found = self.part_pieces(text, &part)?;
            if !found.is_empty() {
                beginning.push_str(cuts.shortened(text, &part));
                pieces.extend(found);
            }
            if pieces.len() > count {
                break;
            }
        }
        Ok((beginning.into(), pieces))
    }

    /// Whether a text is tokenized in parts.
    fn is_long(&self, text: &str) -> bool {
        text.len() > LONG && self.cuts.is_some()
    }

    fn counted(&self, encoding: Encoding) -> Encoding {
        if !encoding.get_overflowing().is_empty() {
            self.truncated.fetch_add(1, Ordering::Relaxed);
        }
        encoding
    }

    /// The length in tokens to which texts are truncated; `None` if they are not. See [`Tokenizer::truncating`].
    pub fn max_length(&self) -> Option<usize> {
        self.inner.get_truncation().map(|truncation| truncation.max_length)
    }

    /// Number of texts (or pairs) that this tokenizer and its clones have truncated so far; see
    /// [`Tokenizer::truncating`].
    pub fn truncated_count(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// The parts of a text that are tokenized separately; a short text is one part.
    fn parts<'a>(&'a self, text: &'a str) -> Box<dyn Iterator<Item = Part> + 'a> {
        match &self.cuts {
            Some(cuts) if self.is_long(text) => Box::new(cuts.parts(text)),
            _ => Box::new(std::iter::once(Part { range: 0..text.len(), unknown_word: None })),
        }
    }

    /// The WordPiece ids of a text, without special tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>> {
        let mut pieces = Vec::new();
        for part in self.parts(text) {
            pieces.extend(self.part_pieces(text, &part)?);
        }
        Ok(pieces)
    }

    fn part_pieces(&self, text: &str, part: &Part) -> Result<Vec<u32>> {
        if part.unknown_word.is_some() {
            return Ok(vec![self.special().unk]);
        }
        let encoding = self.inner.encode_fast(&text[part.range.clone()], false).map_err(cannot_tokenize)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The WordPiece ids of a text, without special tokens, and their offsets in code points.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn pieces_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Offsets>)> {
        let (mut ids, mut offsets) = (Vec::new(), Vec::new());
        self.each_part(text, |start, encoding| {
            ids.extend(encoding.get_ids());
            offsets.extend(encoding.get_offsets().iter().map(|(from, to)| (start + from, start + to)));
        })?;
        Ok((ids, offsets))
    }

    /// The offsets, in code points, of the words of a text, split on whitespace and punctuation.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn word_offsets(&self, text: &str) -> Result<Vec<Offsets>> {
        let mut parts: Vec<Vec<Offsets>> = Vec::new();
        self.each_part(text, |start, encoding| {
            let (mut offsets, mut last): (Vec<Offsets>, _) = (Vec::new(), None);
            for (&word, &(from, to)) in encoding.get_word_ids().iter().zip(encoding.get_offsets()) {
                match offsets.last_mut() {
                    Some(span) if last == Some(word) => span.1 = start + to,
                    _ => offsets.push((start + from, start + to)),
                }
                last = Some(word);
            }
            parts.push(offsets);
        })?;
        Ok(parts.concat())
    }

    /// Calls `take` with the index of the first code point and the encoding, without special tokens, of each part of a
    /// text.
    fn each_part(&self, text: &str, mut take: impl FnMut(usize, &Encoding)) -> Result<()> {
        let mut start = 0;
        for part in self.parts(text) {
            let content = &text[part.range.clone()];
            let length = content.chars().count();
            let encoding = match &part.unknown_word {
                Some(word) => Encoding::from_tokens(vec![Token::new(self.special().unk, String::new(), word.place)], 0),
                None => self.inner.encode_char_offsets(content, false).map_err(cannot_tokenize)?,
            };
            take(start, &encoding);
            start += length;
        }
        Ok(())
    }
}

fn cannot_tokenize(error: tokenizers::Error) -> Error {
    Error::Setting(format!("cannot tokenize: {error}"))
}

#[cfg(test)]
mod tests;
