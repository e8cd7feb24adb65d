//! Token classification: predicts a tag for every word (Devlin et al. 2018, §5.3) from the word's first WordPiece, and
//! the entities that the tags mark.
//!
//! A text that is too long is read in overlapping windows. Each word is tagged in the window where it has more context,
//! so every word gets a tag.

mod words;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};
use serde::Serialize;

use super::tags::{EntitySpan, TagReader, TagScheme};
use super::{Builder, Checkpoint, FromCheckpoint, HeadProcessor, Pipeline, Processor, argmax};
use crate::error::{Error, Result};
use crate::model::{BertForTokenClassification, BertInput, BertModel};
use crate::text::{Sequence, Tokenizer, slices};

pub use words::{Tags, Words};

/// `[CLS]`, a WordPiece, `[SEP]`.
const SHORTEST: usize = 3;

/// Tags words and finds named entities.
///
/// ```no_run
/// use bert_model::pipeline::TokenClassifier;
///
/// # fn main() -> bert_model::Result<()> {
/// let tagger = TokenClassifier::open("DIR")?;
/// for entity in &tagger.tag(&["Ada Lovelace lived in London."])?[0].entities {
///     println!("{} {} {}..{}", entity.label, entity.text, entity.start, entity.end);
/// }
/// # Ok(())
/// # }
/// ```
pub type TokenClassifier = Pipeline<TaggingProcessor>;

/// A text with its tags. Its JSON is that of `bert-finetune predict`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaggedText {
    /// The words. In JSON, a list of strings.
    pub words: Words,
    /// The tag of each word. In JSON, a list of strings.
    pub tags: Tags,
    /// The probability of each tag.
    #[serde(skip)]
    pub scores: Vec<f32>,
    /// The entities that the tags mark, in the order of the text.
    pub entities: Vec<Entity>,
}

/// A named entity in a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Entity {
    /// Its type, such as `PER`.
    #[serde(rename = "type")]
    pub label: String,
    /// Start of the entity, in code points.
    pub start: usize,
    /// End of the entity, in code points, exclusive.
    pub end: usize,
    /// The text of the entity.
    pub text: String,
    /// The mean probability of its words' tags.
    pub score: f32,
}

/// The [`Processor`] of a [`TokenClassifier`].
#[derive(Debug, Clone)]
pub struct TaggingProcessor {
    tokenizer: Tokenizer,
    labels: Arc<[String]>,
    reader: TagReader,
    max_length: usize,
}

/// A window of a text.
#[derive(Debug, Clone)]
pub struct TaggingWindow {
    sequence: Sequence,
    /// The index of the first word that is tagged in this window.
    first_word: usize,
    /// For it and the words after it: the position of the word's first WordPiece.
    positions: Vec<u32>,
}

/// The tags of the words that a window tags.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WindowTags {
    /// For each word: the index of its most probable tag, and that tag's probability.
    best: Vec<(u32, f32)>,
    /// For each word: the probability of every tag. Empty in a [`TokenClassifier`], whose answers do not need them.
    probabilities: Vec<Vec<f32>>,
}

impl Builder<TaggingProcessor> {
    /// Sets the tagging scheme. Default: that of training if recorded, otherwise recognized from the labels.
    pub fn scheme(mut self, scheme: TagScheme) -> Self {
        self.options = Some(scheme);
        self
    }
}

impl TokenClassifier {
    /// Tags the words of each text and finds its entities. Words are separated by whitespace and punctuation; texts of
    /// any length are read in windows.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn tag<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<TaggedText>> {
        let words = texts.iter().map(|text| self.processor().split(text.as_ref())).collect::<Result<Vec<_>>>()?;
        self.run(&words.iter().collect::<Vec<_>>())
    }

    /// As [`TokenClassifier::tag`], for texts that are already split into words; offsets refer to the words joined by
    /// spaces.
    ///
    /// # Errors
    /// As [`TokenClassifier::tag`].
    pub fn tag_words<S: AsRef<str>>(&self, texts: &[Vec<S>]) -> Result<Vec<TaggedText>> {
        let words = |text: &Vec<S>| Words::new(text.iter().map(|word| word.as_ref().to_string()).collect());
        let words: Vec<Words> = texts.iter().map(words).collect();
        self.run(&words.iter().collect::<Vec<_>>())
    }
}

impl TaggingWindow {
    /// The indices of the words that are tagged in this window.
    pub fn words(&self) -> Range<usize> {
        self.first_word..self.first_word + self.positions.len()
    }
}

impl WindowTags {
    /// Finds the most probable tag of each word, from the probability of every tag.
    pub fn new(probabilities: Vec<Vec<f32>>) -> Self {
        let best = |scores: &Vec<f32>| {
            let tag = argmax(scores);
            (tag as u32, scores[tag])
        };
        Self { best: probabilities.iter().map(best).collect(), probabilities }
    }

    /// The probability of every tag, for each word that the window tags. Only [`HeadProcessor::head`] keeps them.
    pub fn probabilities(&self) -> &[Vec<f32>] {
        &self.probabilities
    }
}

impl TaggingProcessor {
    /// Builds a processor for tags `labels`, given in the order of the head's outputs, in the tagging scheme `scheme`,
    /// and windows of at most `max_length` tokens.
    ///
    /// # Errors
    /// If `max_length` leaves no room for a WordPiece and the two special tokens.
    pub fn new(tokenizer: Tokenizer, labels: Vec<String>, scheme: TagScheme, max_length: usize) -> Result<Self> {
        if max_length < SHORTEST {
            let message = format!("maximum length: found {max_length}, expected at least {SHORTEST}");
            return Err(Error::Setting(message));
        }
        let reader = TagReader::of_labels(&labels).with_scheme(scheme);
        Ok(Self { tokenizer, labels: labels.into(), reader, max_length })
    }

    /// The tags in the order of the head's outputs.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The reader that converts tags to entities.
    pub fn reader(&self) -> &TagReader {
        &self.reader
    }

    /// Splits a text into words, at whitespace and punctuation.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    pub fn split(&self, text: &str) -> Result<Words> {
        Ok(Words::at(self.tokenizer.word_offsets(text)?, text))
    }

    /// Computes the scores `[N, C]` of the N words tagged in the windows from the hidden states `[B, T, H]`.
    pub fn logits(
        &self,
        model: &BertForTokenClassification,
        hidden: Tensor<3>,
        windows: &[&TaggingWindow],
    ) -> Tensor<2> {
        let logits = model.head(hidden);
        let ([_, tokens, _], device) = (logits.dims(), logits.device());
        let flat = |(row, window): (usize, &&TaggingWindow)| {
            window.positions.iter().map(move |&position| (row * tokens) as i32 + position as i32).collect::<Vec<_>>()
        };
        let positions: Vec<i32> = windows.iter().enumerate().flat_map(flat).collect();
        logits.flatten::<2>(0, 1).select(0, Tensor::<1, Int>::from_data(&positions[..], &device))
    }

    /// The tag of each word and its probability, from the tags of all windows, which are in the order of the words.
    pub fn tags<'a>(&'a self, found: &'a [WindowTags]) -> impl Iterator<Item = (&'a str, f32)> {
        best_tags(found).map(|(tag, score)| (self.labels[tag as usize].as_str(), score))
    }

    /// The WordPieces of the words: at least one each, and no more than fit into a window.
    fn pieces(&self, words: &Words) -> Result<Pieces> {
        let mut pieces = Pieces::with_capacity(words.len());
        for word in words.iter() {
            let ids = self.tokenizer.pieces(word)?;
            pieces.ids.extend(ids.iter().take(self.max_length - 2));
            if ids.is_empty() {
                // A word that consists of control characters only has no WordPieces of its own.
                pieces.ids.push(self.tokenizer.special().unk);
            }
            pieces.starts.push(pieces.ids.len());
        }
        Ok(pieces)
    }

    /// Builds the window that contains the words `span` and tags those in `read`, which is a part of it.
    fn window(&self, pieces: &Pieces, span: Range<usize>, read: Range<usize>) -> TaggingWindow {
        let special = self.tokenizer.special();
        let start = pieces.starts[span.start];
        let ids = [&[special.cls], &pieces.ids[start..pieces.starts[span.end]], &[special.sep]].concat();
        let positions = read.clone().map(|word| (1 + pieces.starts[word] - start) as u32).collect();
        let sequence = Sequence { types: vec![0; ids.len()], ids };
        TaggingWindow { sequence, first_word: read.start, positions }
    }
}

/// The index of each word's most probable tag, and its probability.
fn best_tags(found: &[WindowTags]) -> impl Iterator<Item = (u32, f32)> {
    found.iter().flat_map(|window| &window.best).copied()
}

/// The WordPieces of a text's words.
struct Pieces {
    ids: Vec<u32>,
    /// The index in `ids` of each word's first WordPiece, and the number of all.
    starts: Vec<usize>,
}

impl Pieces {
    /// No WordPieces, with room for those of as many words.
    fn with_capacity(words: usize) -> Self {
        let mut starts = Vec::with_capacity(words + 1);
        starts.push(0);
        Self { ids: Vec::with_capacity(2 * words), starts }
    }

    /// The number of words.
    fn words(&self) -> usize {
        self.starts.len() - 1
    }

    /// The first words from `start` on that have at most `room` WordPieces together.
    fn that_fit(&self, start: usize, room: usize) -> Range<usize> {
        let limit = self.starts[start] + room;
        start..self.starts.partition_point(|&end| end <= limit) - 1
    }
}

impl FromCheckpoint for TaggingProcessor {
    /// The scheme of the tags.
    type Options = Option<TagScheme>;

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, scheme: &Option<TagScheme>) -> Result<Self> {
        checkpoint.check_head::<BertForTokenClassification>()?;
        let labels = checkpoint.config.label_names()?;
        let scheme =
            scheme.or(checkpoint.usage()?.tag_scheme).unwrap_or_else(|| TagReader::of_labels(&labels).scheme());
        Self::new(checkpoint.tokenizer.clone(), labels, scheme, checkpoint.max_length(max_length)?)
    }
}

impl Processor for TaggingProcessor {
    type Model = BertForTokenClassification;
    type Request<'a> = &'a Words;
    type Input = TaggingWindow;
    type Output = WindowTags;
    type Answer = TaggedText;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, text: &&Words) -> Result<Vec<TaggingWindow>> {
        let room = self.max_length - 2;
        let pieces = self.pieces(text)?;
        let (mut windows, mut start, mut read) = (Vec::new(), 0, 0);
        loop {
            let end = pieces.that_fit(start, room).end;
            let is_last = end == pieces.words();
            // The next window starts a quarter of a window before this one ends; each of the two tags half of the
            // shared words.
            let next = if is_last { end } else { (end - (end - start) / 4).max(start + 1) };
            let read_until = if is_last { end } else { next + (end - next) / 2 };
            windows.push(self.window(&pieces, start..end, read..read_until));
            if is_last {
                return Ok(windows);
            }
            (start, read) = (next, read_until);
        }
    }

    fn sequences(window: &TaggingWindow) -> &[Sequence] {
        std::slice::from_ref(&window.sequence)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, windows: &[&TaggingWindow]) -> Vec<WindowTags> {
        let found = self.head(model, model.bert.encode(batch), windows).into_iter();
        found.map(|tags| WindowTags { probabilities: Vec::new(), ..tags }).collect()
    }

    fn postprocess(&self, text: &&Words, _windows: &[TaggingWindow], found: &[WindowTags]) -> TaggedText {
        let (mut indices, mut scores) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
        for (tag, score) in best_tags(found) {
            indices.push(tag);
            scores.push(score);
        }
        let tags = Tags::new(self.labels.clone(), indices);
        let spans = || self.reader.spans(tags.iter());
        let place = |span: EntitySpan| text.place_of(&(span.start..span.end));
        let entity = |(span, found): (EntitySpan, &str)| {
            let score = scores[span.start..span.end].iter().sum::<f32>() / (span.end - span.start) as f32;
            let (label, (start, end)) = (span.kind.to_string(), place(span));
            Entity { label, start, end, text: found.to_string(), score }
        };
        let mut entities = Vec::with_capacity(spans().count());
        entities.extend(spans().zip(slices(text.text(), spans().map(place))).map(entity));
        TaggedText { words: Words::clone(text), tags, scores, entities }
    }
}

impl HeadProcessor for TaggingProcessor {
    const READS_CLS_ONLY: bool = false;

    fn bert(model: &BertForTokenClassification) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &Self::Model, hidden: Tensor<3>, windows: &[&TaggingWindow]) -> Vec<WindowTags> {
        if windows.iter().all(|window| window.positions.is_empty()) {
            return vec![WindowTags::default(); windows.len()];
        }
        let probabilities: Vec<f32> =
            softmax(self.logits(model, hidden, windows), 1).into_data().iter::<f32>().collect();
        let mut rows = probabilities.chunks(self.labels.len()).map(<[f32]>::to_vec);
        windows.iter().map(|window| WindowTags::new(rows.by_ref().take(window.positions.len()).collect())).collect()
    }
}

#[cfg(test)]
mod tests;
