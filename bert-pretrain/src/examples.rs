//! Documents to training examples, as Google's `create_pretraining_data.py` makes them (paper, section 3.1, task 2):
//! two segments, the second one half of the time what really follows, else a piece of another document.

use std::str::FromStr;

use bert_model::text::SpecialTokens;
use rand::{Rng, RngExt};
use serde::Serialize;

use crate::masking::{MaskedToken, Masking};

/// A document: its sentences, each a list of WordPiece ids.
pub type Document = Vec<Vec<u32>>;

/// How the label of a pair is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NspMode {
    /// As near to one half as the documents allow; a true continuation is never called random.
    Balanced,
    /// Exactly Google's procedure, which calls more than half of the pairs random.
    Google,
    /// No second segment: sentences of one document, as many as fit.
    Off,
}

impl FromStr for NspMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "balanced" => Ok(Self::Balanced),
            "google" => Ok(Self::Google),
            _ => Err(format!("`{name}` is none of balanced, google")),
        }
    }
}

/// One training example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// `[CLS] A [SEP] B [SEP]`, some of it hidden.
    pub ids: Vec<u32>,
    /// Length of the first segment with its `[CLS]` and `[SEP]`; what follows has token type 1.
    pub first_segment: usize,
    /// Whether B is from elsewhere.
    pub is_random_next: bool,
    /// What was hidden.
    pub masked: Vec<MaskedToken>,
}

impl Example {
    /// What is left where an example was taken.
    pub(crate) fn empty() -> Self {
        Self { ids: vec![], first_segment: 0, is_random_next: false, masked: vec![] }
    }
}

/// Gives a piece of text from elsewhere.
pub trait OtherDocuments {
    /// A random document, which may turn out to be document `not` only if `Google`'s ten tries all hit it or if there is
    /// no other; `None` if there is none to be had.
    fn draw(&self, not: u64, mode: NspMode, rng: &mut dyn Rng) -> Option<Document>;
}

/// The constants of the procedure.
#[derive(Debug, Clone)]
pub struct ExampleMaker {
    /// Longest sequence, special tokens included.
    pub max_length: usize,
    /// Probability of aiming at a shorter sequence.
    pub short_probability: f64,
    /// How labels are drawn.
    pub nsp: NspMode,
    /// How words are hidden.
    pub masking: Masking,
}

/// Pairs that had to be called random without a draw; the next free ones make up for them.
#[derive(Debug, Default)]
pub struct Debt(u64);

impl ExampleMaker {
    /// All examples of one document, in its order.
    pub fn examples(
        &self,
        index: u64,
        document: &Document,
        others: &impl OtherDocuments,
        debt: &mut Debt,
        rng: &mut impl Rng,
    ) -> Vec<Example> {
        if self.nsp == NspMode::Off {
            return self.single_segments(document, rng);
        }
        let max_tokens = self.max_length - 3;
        let target = self.target_length(max_tokens, rng);
        let mut examples = Vec::new();
        let (mut chunk, mut length, mut next) = (Vec::<&[u32]>::new(), 0, 0);
        while next < document.len() {
            chunk.push(&document[next]);
            length += document[next].len();
            next += 1;
            if length < target && next < document.len() {
                continue;
            }
            let first_count = if chunk.len() >= 2 { rng.random_range(1..chunk.len()) } else { 1 };
            let mut first: Vec<u32> = chunk[..first_count].concat();
            let random = match self.is_random(chunk.len() == 1, debt, rng) {
                true => others.draw(index, self.nsp, rng).map(|other| {
                    let wanted = target.saturating_sub(first.len());
                    fill_from_random_sentence(&other, wanted, rng)
                }),
                false => None,
            };
            let is_random_next = random.is_some();
            let mut second = match random {
                Some(second) => {
                    // What the chunk did not use is put back.
                    next -= chunk.len() - first_count;
                    second
                }
                None => chunk[first_count..].concat(),
            };
            cut_pair(&mut first, &mut second, max_tokens, rng);
            if !first.is_empty() && !second.is_empty() {
                examples.push(self.assemble(&first, Some(&second), is_random_next, rng));
            }
            (chunk, length) = (Vec::new(), 0);
        }
        examples
    }

    /// Mostly the full length, sometimes a shorter one, so that the model meets both.
    fn target_length(&self, max_tokens: usize, rng: &mut impl Rng) -> usize {
        match rng.random_bool(self.short_probability) {
            true => rng.random_range(2..=max_tokens.max(2)),
            false => max_tokens,
        }
    }

    fn is_random(&self, is_forced: bool, debt: &mut Debt, rng: &mut impl Rng) -> bool {
        match (self.nsp, is_forced) {
            (NspMode::Google, true) => true,
            (NspMode::Balanced, true) => {
                debt.0 += 1;
                true
            }
            (NspMode::Balanced, false) if debt.0 > 0 => {
                debt.0 -= 1;
                false
            }
            _ => rng.random_bool(0.5),
        }
    }

    /// Sentences of the document, as many as fit; one that is too long is continued in the next example.
    fn single_segments(&self, document: &Document, rng: &mut impl Rng) -> Vec<Example> {
        let max_tokens = self.max_length - 2;
        let mut target = self.target_length(max_tokens, rng);
        let (mut examples, mut segment) = (Vec::new(), Vec::new());
        for piece in document.iter().flat_map(|sentence| sentence.chunks(max_tokens)) {
            if !segment.is_empty() && segment.len() + piece.len() > target.max(piece.len()) {
                examples.push(self.assemble(&segment, None, false, rng));
                segment.clear();
                target = self.target_length(max_tokens, rng);
            }
            segment.extend_from_slice(piece);
        }
        if !segment.is_empty() {
            examples.push(self.assemble(&segment, None, false, rng));
        }
        examples
    }

    fn assemble(&self, first: &[u32], second: Option<&[u32]>, is_random_next: bool, rng: &mut impl Rng) -> Example {
        let SpecialTokens { cls, sep, .. } = self.masking.special;
        let mut ids = Vec::with_capacity(first.len() + second.map_or(0, <[u32]>::len) + 3);
        ids.push(cls);
        ids.extend_from_slice(first);
        ids.push(sep);
        let first_segment = ids.len();
        if let Some(second) = second {
            ids.extend_from_slice(second);
            ids.push(sep);
        }
        let masked = self.masking.apply(&mut ids, rng);
        Example { ids, first_segment, is_random_next, masked }
    }
}

/// Sentences from a random one on, until there are `wanted` tokens or the document ends.
fn fill_from_random_sentence(document: &Document, wanted: usize, rng: &mut impl Rng) -> Vec<u32> {
    let mut tokens = Vec::new();
    if document.is_empty() {
        return tokens;
    }
    for sentence in &document[rng.random_range(0..document.len())..] {
        tokens.extend_from_slice(sentence);
        if tokens.len() >= wanted {
            break;
        }
    }
    tokens
}

/// While the pair is too long, drops a token of the longer side (of B where they are equal), at its front or its end.
fn cut_pair(first: &mut Vec<u32>, second: &mut Vec<u32>, max_tokens: usize, rng: &mut impl Rng) {
    let (mut front, mut kept) = ([0, 0], [first.len(), second.len()]);
    while kept[0] + kept[1] > max_tokens {
        let side = usize::from(kept[0] <= kept[1]);
        front[side] += usize::from(rng.random_bool(0.5));
        kept[side] -= 1;
    }
    for (side, tokens) in [first, second].into_iter().enumerate() {
        tokens.drain(..front[side]);
        tokens.truncate(kept[side]);
    }
}
