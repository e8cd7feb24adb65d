//! The special tokens that a tokenizer puts around a text and a pair of texts, and the token types.
//!
//! A `tokenizer.json` states the ids of its special tokens twice: in the vocabulary and in the template of its
//! post-processor. Tools that trim a vocabulary sometimes miss the second place.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Encoding, Token};

use super::batch::Sequence;

/// Ids of the placeholders for texts in a [`Template`]; no vocabulary is this large.
const FIRST: u32 = u32::MAX;
const SECOND: u32 = u32::MAX - 1;

/// The ids and token types of a one-piece text and of a pair of them, with the special tokens around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    single: Vec<(u32, u32)>,
    pair: Vec<(u32, u32)>,
}

impl Template {
    /// The template of BERT (Devlin et al. 2018, §3): `[CLS] A [SEP] B [SEP]`, with type 1 from B on.
    pub fn bert(cls: u32, sep: u32) -> Self {
        let single = vec![(cls, 0), (FIRST, 0), (sep, 0)];
        let second = [(SECOND, 1), (sep, 1)];
        Self { pair: [&single[..], &second].concat(), single }
    }

    /// The template of a tokenizer.
    ///
    /// # Errors
    /// Returns what was found and what was expected if the post-processor has a dangling reference, or inserts a token
    /// with an id other than the vocabulary's.
    pub fn of(inner: &tokenizers::Tokenizer) -> Result<Self, (String, String)> {
        let written = inner.get_post_processor().map(serde_json::to_value).and_then(Result::ok).unwrap_or_default();
        check_processor(&written, inner)?;
        let text = |id, token_type| Encoding::from_tokens(vec![Token::new(id, String::new(), (0, 0))], token_type);
        let slots = |pair: Option<Encoding>| -> Result<Vec<(u32, u32)>, (String, String)> {
            let processed = inner.post_process(text(FIRST, 0), pair, true);
            let processed = processed.map_err(|error| (error.to_string(), "a post-processor".to_string()))?;
            Ok(processed.get_ids().iter().copied().zip(processed.get_type_ids().iter().copied()).collect())
        };
        Ok(Self { single: slots(None)?, pair: slots(Some(text(SECOND, 1)))? })
    }

    /// Builds the sequence of a text or a pair from their WordPieces.
    pub fn sequence(&self, first: &[u32], second: Option<&[u32]>) -> Sequence {
        let mut sequence = Sequence::default();
        for (id, token_type) in if second.is_some() { &self.pair } else { &self.single } {
            match *id {
                FIRST => sequence.ids.extend(first),
                SECOND => sequence.ids.extend(second.unwrap_or_default()),
                id => sequence.ids.push(id),
            }
            sequence.types.resize(sequence.ids.len(), u8::try_from(*token_type).unwrap_or(u8::MAX));
        }
        sequence
    }

    /// The same special tokens, all with type 0.
    pub fn without_types(mut self) -> Self {
        self.single.iter_mut().chain(&mut self.pair).for_each(|(_, token_type)| *token_type = 0);
        self
    }

    /// Whether a pair's sequence has both texts, once each.
    pub fn has_both_texts(&self) -> bool {
        [FIRST, SECOND].into_iter().all(|text| self.pair.iter().filter(|(id, _)| *id == text).count() == 1)
    }

    /// The number of special tokens around a pair.
    pub fn special_tokens_of_a_pair(&self) -> usize {
        self.pair.iter().filter(|(id, _)| ![FIRST, SECOND].contains(id)).count()
    }

    /// Where the second text of a pair begins, whose first one has `first` WordPieces.
    pub fn start_of_second(&self, first: usize) -> usize {
        let before = self.pair.iter().take_while(|(id, _)| *id != SECOND);
        before.map(|(id, _)| if *id == FIRST { first } else { 1 }).sum()
    }

    /// The highest token type in a single text.
    pub fn highest_type(&self) -> u32 {
        self.single.iter().map(|(_, token_type)| *token_type).max().unwrap_or(0)
    }

    /// The highest token type in a pair.
    pub fn highest_pair_type(&self) -> u32 {
        self.pair.iter().map(|(_, token_type)| *token_type).max().unwrap_or(0)
    }
}

/// The part of a `TemplateProcessing` in a `tokenizer.json` that must be checked.
#[derive(Deserialize)]
struct Written {
    single: Vec<Piece>,
    pair: Vec<Piece>,
    special_tokens: BTreeMap<String, Inserted>,
}

#[derive(Deserialize)]
enum Piece {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct Inserted {
    ids: Vec<u32>,
    tokens: Vec<String>,
}

/// Checks assumptions of the tokenizers library that would make it panic during tokenization if violated.
fn check_processor(written: &Value, inner: &tokenizers::Tokenizer) -> Result<(), (String, String)> {
    let expected = || "a complete post-processor".to_string();
    match written["type"].as_str() {
        Some("TemplateProcessing") => {
            let template = Written::deserialize(written).map_err(|error| (error.to_string(), expected()))?;
            check_template(&template, inner)
        }
        Some("BertProcessing" | "RobertaProcessing") => {
            let named = ["cls", "sep"].map(|key| (written[key][0].as_str(), written[key][1].as_u64()));
            let mut named = named.into_iter().filter_map(|(token, id)| Some((token?, id? as u32)));
            named.try_for_each(|(token, id)| check_id(token, id, inner))
        }
        Some("Sequence") => {
            let processors = written["processors"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_template = |processor: &Value| processor["type"] == "TemplateProcessing";
            // A template accepts one or two texts, and another post-processor before it may produce more.
            let first = processors.iter().position(|processor| processor["type"] != "ByteLevel");
            if let Some(second) = processors.iter().rposition(is_template)
                && first.is_some_and(|first| first < second)
            {
                return Err(("a template after another post-processor".into(), expected()));
            }
            processors.iter().try_for_each(|processor| check_processor(processor, inner))
        }
        _ => Ok(()),
    }
}

fn check_template(template: &Written, inner: &tokenizers::Tokenizer) -> Result<(), (String, String)> {
    let expected = || "a complete template".to_string();
    let is_second = |piece: &Piece| matches!(piece, Piece::Sequence { id } if id != "A");
    if template.single.iter().any(is_second) {
        return Err(("a second text in the template for a single text".into(), expected()));
    }
    for piece in template.single.iter().chain(&template.pair) {
        let Piece::SpecialToken { id } = piece else { continue };
        let Some(Inserted { ids, tokens }) = template.special_tokens.get(id) else {
            return Err((format!("{id} in the template but not among its special tokens"), expected()));
        };
        if ids.len() != tokens.len() {
            return Err((format!("{} tokens with {} ids for {id}", tokens.len(), ids.len()), expected()));
        }
        tokens.iter().zip(ids).try_for_each(|(token, id)| check_id(token, *id, inner))?;
    }
    Ok(())
}

/// Checks that an inserted token has the id that the vocabulary gives it.
fn check_id(token: &str, id: u32, inner: &tokenizers::Tokenizer) -> Result<(), (String, String)> {
    let own = inner.token_to_id(token);
    if own == Some(id) {
        return Ok(());
    }
    let expected = match own {
        Some(own) => format!("{own}, its id in the vocabulary"),
        None => "a token of the vocabulary".to_string(),
    };
    let found = format!("the id {id} for {token} in `post_processor`");
    Err((found, expected + "; save the tokenizer again after changing its vocabulary"))
}
