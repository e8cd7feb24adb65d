//! Builds training examples from documents like Google's `create_pretraining_data.py` (Devlin et al. 2018, §3.1, task
//! 2): two segments, where half of the time the second is the true continuation and otherwise comes from a random
//! document.

use std::str::FromStr;

use bert_model::Result;
use bert_model::text::SpecialTokens;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::masking::{MaskedToken, Masking};

/// A tokenized document: the WordPiece ids of each sentence.
pub type Document = Vec<Vec<u32>>;

/// How next-sentence labels are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NspMode {
    /// Labels as close to one half each as the documents allow; a true continuation is never
    /// labeled random.
    Balanced,
    /// Google's procedure exactly, which labels more than half of the pairs random.
    Google,
    /// There is no second segment: an example is as many consecutive sentences of one document as fit.
    Off,
}

impl FromStr for NspMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "balanced" => Ok(Self::Balanced),
            "google" => Ok(Self::Google),
            _ => Err(format!("unknown mode `{name}`, expected balanced or google")),
        }
    }
}

/// One training example.
#[derive(Debug, Clone, PartialEq)]
pub struct PretrainingExample {
    /// `[CLS] A [SEP] B [SEP]` (or `[CLS] A [SEP]`), with some tokens masked.
    pub ids: Vec<u32>,
    /// Length of the first segment including `[CLS]` and `[SEP]`; later tokens have type 1.
    pub first_segment: usize,
    /// Whether segment B is random rather than the true continuation.
    pub is_random_next: bool,
    /// The masked tokens, in order of position.
    pub masked: Vec<MaskedToken>,
}

impl PretrainingExample {
    /// Whether there is a segment B, which next-sentence prediction needs.
    pub fn is_pair(&self) -> bool {
        self.first_segment < self.ids.len()
    }

    /// Placeholder for an example that has been taken out of a list.
    pub(crate) fn empty() -> Self {
        Self { ids: vec![], first_segment: 0, is_random_next: false, masked: vec![] }
    }
}

/// A source of random documents for the second segment.
pub trait OtherDocuments {
    /// Draws a random document. It is document `not` only if in `Google` mode all ten tries hit it
    /// or there is no other; `None` if no document can be drawn.
    ///
    /// # Errors
    /// If the document cannot be read.
    fn draw(&self, not: u64, mode: NspMode, rng: &mut dyn Rng) -> Result<Option<Document>>;
}

/// Builds training examples from documents.
#[derive(Debug, Clone)]
pub struct ExampleMaker {
    /// Maximum sequence length, including special tokens.
    pub max_length: usize,
    /// Probability of targeting a shorter sequence.
    pub short_probability: f64,
    /// How next-sentence labels are drawn.
    pub nsp: NspMode,
    /// How tokens are masked.
    pub masking: Masking,
}

/// Number of pairs labeled random because their chunk had no continuation. In balanced mode, as
/// many later pairs use their true continuation instead of a random draw.
#[derive(Debug, Default)]
pub struct RandomSurplus(u64);

impl ExampleMaker {
    /// Builds all examples of one document, in order. `index` is the number of the document in `others`; `surplus`
    /// carries over from one document to the next.
    ///
    /// # Errors
    /// If a random document cannot be read.
    pub fn examples(
        &self,
        index: u64,
        document: &Document,
        others: &impl OtherDocuments,
        surplus: &mut RandomSurplus,
        rng: &mut impl Rng,
    ) -> Result<Vec<PretrainingExample>> {
        if self.nsp == NspMode::Off {
            return Ok(self.single_segments(document, rng));
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
            let random = match self.is_random(chunk.len() == 1, surplus, rng) {
                true => others.draw(index, self.nsp, rng)?.map(|other| {
                    let wanted = target.saturating_sub(first.len());
                    fill_from_random_sentence(&other, wanted, rng)
                }),
                false => None,
            };
            let is_random_next = random.is_some();
            let mut second = match random {
                Some(second) => {
                    // Return the unused sentences of the chunk.
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
        Ok(examples)
    }

    /// The target length of a pair: mostly the maximum, occasionally a shorter one, so that the model sees both.
    fn target_length(&self, max_tokens: usize, rng: &mut impl Rng) -> usize {
        match rng.random_bool(self.short_probability) {
            true => rng.random_range(2..=max_tokens.max(2)),
            false => max_tokens,
        }
    }

    fn is_random(&self, is_forced: bool, surplus: &mut RandomSurplus, rng: &mut impl Rng) -> bool {
        match (self.nsp, is_forced) {
            (NspMode::Google, true) => true,
            (NspMode::Balanced, true) => {
                surplus.0 += 1;
                true
            }
            (NspMode::Balanced, false) if surplus.0 > 0 => {
                surplus.0 -= 1;
                false
            }
            _ => rng.random_bool(0.5),
        }
    }

    /// Builds examples of as many sentences as fit; a sentence that is too long continues in the next example.
    fn single_segments(&self, document: &Document, rng: &mut impl Rng) -> Vec<PretrainingExample> {
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

    fn assemble(
        &self,
        first: &[u32],
        second: Option<&[u32]>,
        is_random_next: bool,
        rng: &mut impl Rng,
    ) -> PretrainingExample {
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
        PretrainingExample { ids, first_segment, is_random_next, masked }
    }
}

/// Consecutive sentences, starting at a random one, until there are `wanted` tokens or the document ends.
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

/// While the pair is too long, removes a token at the front or back (at random) of the longer segment; of B if both are
/// equally long.
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SPECIAL: SpecialTokens = SpecialTokens { pad: 0, unk: 1, cls: 2, sep: 3 };
    const SENTENCES: u32 = 40;

    /// Documents whose tokens encode document and sentence: `10_000 + 100 · document + sentence`,
    /// with 5 to 14 tokens per sentence.
    fn documents(count: u32) -> Vec<Document> {
        let sentence = |document: u32, sentence: u32| {
            vec![10_000 + 100 * document + sentence; 5 + ((7 * document + 3 * sentence) % 10) as usize]
        };
        (0..count).map(|document| (0..SENTENCES).map(|index| sentence(document, index)).collect()).collect()
    }

    struct Others<'a>(&'a [Document]);

    impl OtherDocuments for Others<'_> {
        fn draw(&self, not: u64, _: NspMode, rng: &mut dyn Rng) -> Result<Option<Document>> {
            let others = self.0.len() - 1;
            let index = (others > 0).then(|| rng.random_range(0..others));
            Ok(index.map(|index| self.0[index + usize::from(index as u64 >= not)].clone()))
        }
    }

    fn maker(nsp: NspMode, max_length: usize, short_probability: f64) -> ExampleMaker {
        let masking = Masking {
            probability: 0.15,
            max_predictions: 20,
            continuations: vec![],
            special: SPECIAL,
            mask: 4,
            vocab_size: 20_000,
        };
        ExampleMaker { max_length, short_probability, nsp, masking }
    }

    fn all(maker: &ExampleMaker, documents: &[Document], seed: u64) -> Vec<PretrainingExample> {
        let mut surplus = RandomSurplus::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let of = |(index, document): (usize, &Document)| {
            maker.examples(index as u64, document, &Others(documents), &mut surplus, &mut rng).unwrap()
        };
        documents.iter().enumerate().flat_map(of).collect()
    }

    /// The two segments before masking, without special tokens.
    fn segments(example: &PretrainingExample) -> (Vec<u32>, Vec<u32>) {
        let mut ids = example.ids.clone();
        example.masked.iter().for_each(|token| ids[token.position] = token.id);
        let (first, second) = ids.split_at(example.first_segment);
        assert_eq!((first[0], first[first.len() - 1]), (SPECIAL.cls, SPECIAL.sep));
        assert_eq!(second.last(), Some(&SPECIAL.sep));
        (first[1..first.len() - 1].to_vec(), second[..second.len() - 1].to_vec())
    }

    #[test]
    fn half_of_the_pairs_are_random_and_google_has_more() {
        let documents = documents(200);
        let share = |nsp, max_length| {
            let examples = all(&maker(nsp, max_length, 0.1), &documents, 1);
            let random = examples.iter().filter(|example| example.is_random_next).count();
            (random as f64 / examples.len() as f64, examples.len() as f64)
        };
        for max_length in [24, 64, 128] {
            let (balanced, count) = share(NspMode::Balanced, max_length);
            // Four standard deviations of fair coin flips.
            assert!((balanced - 0.5).abs() < 2.0 / count.sqrt(), "{max_length}: {balanced} of {count}");
            let (google, count) = share(NspMode::Google, max_length);
            assert!(google > 0.5 - 2.0 / count.sqrt(), "{max_length}: {google}");
        }
        // Where most chunks are single sentences, Google's forced random pairs show.
        assert!(share(NspMode::Google, 12).0 > 0.6);
    }

    #[test]
    fn what_is_called_next_follows_and_what_is_called_random_is_from_elsewhere() {
        let documents = documents(50);
        let (document, sentence) = (|id: u32| (id - 10_000) / 100, |id: u32| id % 100);
        for example in all(&maker(NspMode::Balanced, 64, 0.1), &documents, 2) {
            let (first, second) = segments(&example);
            let (end, start) = (first[first.len() - 1], second[0]);
            assert_eq!(example.is_random_next, document(end) != document(start));
            for segment in [&first, &second] {
                let consecutive = |pair: &[u32]| pair[1] == pair[0] || pair[1] == pair[0] + 1;
                assert!(segment.windows(2).all(consecutive), "sentences out of order: {segment:?}");
            }
            if !example.is_random_next {
                assert!(sentence(start) > sentence(end), "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn lengths_are_full_but_for_a_tenth_and_the_ends_of_documents() {
        let examples = all(&maker(NspMode::Balanced, 64, 0.1), &documents(400), 3);
        assert!(examples.iter().all(|example| example.ids.len() <= 64 && example.first_segment < example.ids.len()));
        let full = examples.iter().filter(|example| example.ids.len() == 64).count() as f64 / examples.len() as f64;
        let always = all(&maker(NspMode::Balanced, 64, 0.0), &documents(400), 3);
        let full_without = always.iter().filter(|example| example.ids.len() == 64).count() as f64 / always.len() as f64;
        assert!(full_without > 0.85, "{full_without}");
        assert!((0.05..0.2).contains(&(full_without - full)), "{full} of all, {full_without} without short ones");
    }

    #[test]
    fn a_corpus_of_one_document_has_no_random_pairs() {
        let examples = all(&maker(NspMode::Balanced, 64, 0.1), &documents(1), 4);
        assert!(!examples.is_empty() && examples.iter().all(|example| !example.is_random_next));
    }

    #[test]
    fn without_pairs_every_token_is_used_once() {
        let documents = documents(20);
        let examples = all(&maker(NspMode::Off, 64, 0.1), &documents, 5);
        assert!(examples.iter().all(|example| !example.is_random_next && example.ids.len() <= 64));
        let used: usize = examples.iter().map(|example| example.ids.len() - 2).sum();
        assert_eq!(used, documents.iter().flatten().map(Vec::len).sum::<usize>());
    }
}
