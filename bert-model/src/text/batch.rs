//! Collates sequences of different lengths into one padded batch.

use burn::prelude::*;
use tokenizers::Encoding;

use crate::config::BertConfig;
use crate::error::{Error, Result};
use crate::model::BertInput;

/// A tokenized text or pair of texts, including special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    /// WordPiece ids.
    pub ids: Vec<u32>,
    /// Token type (segment) of each token; as long as `ids`.
    pub types: Vec<u8>,
}

impl Sequence {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Checks that the sequence has at most `limit` tokens.
    ///
    /// # Errors
    /// [`Error::TooLong`] if it has more.
    pub fn check_length(&self, limit: usize) -> Result<()> {
        if self.len() > limit { Err(Error::TooLong { tokens: self.len(), limit }) } else { Ok(()) }
    }

    /// Checks that a model can read the sequence: that it has enough positions, WordPieces and token types.
    ///
    /// # Errors
    /// [`Error::TooLong`], or [`Error::Mismatch`], which names the id or type.
    pub fn check_fits(&self, config: &BertConfig) -> Result<()> {
        self.check_length(config.max_position_embeddings)?;
        let mismatch = |left: String, key: &str, size: usize, advice: &str| Error::Mismatch {
            left,
            right: format!("a model with `{key}` {size} in config.json"),
            advice: advice.into(),
        };
        if let Some(id) = self.ids.iter().find(|id| **id as usize >= config.vocab_size) {
            let advice = "use the tokenizer that the model was trained with";
            return Err(mismatch(format!("the token id {id}"), "vocab_size", config.vocab_size, advice));
        }
        let types = config.type_vocab_size;
        match self.types.iter().find(|token_type| usize::from(**token_type) >= types) {
            // The token types of single texts were already checked with the tokenizer, so this must be a pair.
            Some(_) if types == 1 => config.check_pairs(),
            Some(token_type) => {
                let advice = "use the tokenizer that the model was trained with";
                Err(mismatch(format!("the token type {token_type}"), "type_vocab_size", types, advice))
            }
            None => Ok(()),
        }
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl From<&Encoding> for Sequence {
    fn from(encoding: &Encoding) -> Self {
        let types = encoding.get_type_ids().iter().map(|&id| u8::try_from(id).unwrap_or(u8::MAX)).collect();
        Self { ids: encoding.get_ids().to_vec(), types }
    }
}

/// Collates sequences into one batch, padding each at its end to the longest.
///
/// The tensors of the result have shape `[B, T]`, where B is the number of sequences and T the length of the longest,
/// at least 1.
///
/// # Panics
/// If a sequence has fewer `types` than `ids`.
pub fn collate(sequences: &[&Sequence], pad_id: u32, device: &Device) -> BertInput {
    let (rows, tokens) = (sequences.len(), sequences.iter().map(|s| s.len()).max().unwrap_or(0).max(1));
    let padded = |value: &dyn Fn(&Sequence, usize) -> i32, padding: i32| -> Tensor<2, Int> {
        let row = |s: &&Sequence| {
            let s = *s;
            (0..tokens).map(move |t| if t < s.len() { value(s, t) } else { padding }).collect::<Vec<_>>()
        };
        let values: Vec<i32> = sequences.iter().flat_map(row).collect();
        Tensor::from_data(TensorData::new(values, [rows, tokens]), device)
    };
    BertInput {
        first_position: 0,
        input_ids: padded(&|s, t| s.ids[t] as i32, pad_id as i32),
        token_type_ids: padded(&|s, t| i32::from(s.types[t]), 0),
        attention_mask: padded(&|_, _| 1, 0).equal_elem(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_sequences_are_padded_and_masked() {
        let long = Sequence { ids: vec![2, 7, 8, 3], types: vec![0, 0, 1, 1] };
        let short = Sequence { ids: vec![2, 3], types: vec![0, 0] };
        let input = collate(&[&long, &short], 9, &Device::flex());
        input.input_ids.into_data().assert_eq(&TensorData::from([[2, 7, 8, 3], [2, 3, 9, 9]]), false);
        input.token_type_ids.into_data().assert_eq(&TensorData::from([[0, 0, 1, 1], [0, 0, 0, 0]]), false);
        input
            .attention_mask
            .into_data()
            .assert_eq(&TensorData::from([[true, true, true, true], [true, true, false, false]]), false);
    }
}
