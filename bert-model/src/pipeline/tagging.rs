//! Token classification: predicts a tag for every word (paper, section 5.3) from the word's first WordPiece, and the
//! entities that the tags mark.
//!
//! A text that is too long is read in overlapping windows. Each word is tagged in the window where it has more context,
//! so every word gets a tag.

use std::ops::Range;

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};

use super::tags::{EntitySpan, TagReader, TagScheme};
use super::{Builder, Checkpoint, FromCheckpoint, HeadProcessor, Pipeline, Processor, highest};
use crate::error::{Error, Result};
use crate::model::{BertForTokenClassification, BertInput, BertModel};
use crate::text::tokenizer::Offsets;
use crate::text::{CodePoints, Sequence, Tokenizer, slices};

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

/// A text split into words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// The text; if words were given, the words joined by spaces.
    pub text: String,
    /// The words.
    pub words: Vec<String>,
    /// The offsets of each word in the text, in code points.
    pub places: Vec<Offsets>,
}

/// A text with its tags.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaggedText {
    /// The words.
    pub words: Vec<String>,
    /// The tag of each word.
    pub tags: Vec<String>,
    /// The probability of each tag.
    pub scores: Vec<f32>,
    /// The entities that the tags mark, in the order of the text.
    pub entities: Vec<Entity>,
}

/// A named entity in a text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entity {
    /// Its type, such as `PER`.
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
    labels: Vec<String>,
    reader: TagReader,
    max_length: usize,
}

/// A window of a text.
#[derive(Debug, Clone)]
pub struct TaggingWindow {
    sequence: Sequence,
    /// For each word tagged in this window: the position of its first WordPiece, and the word's index.
    words: Vec<(usize, usize)>,
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

impl Words {
    /// Builds the text from given words.
    pub fn new(words: Vec<String>) -> Self {
        let mut start = 0;
        let place = |word: &String| {
            let place = (start, start + word.chars().count());
            start = place.1 + 1;
            place
        };
        let places = words.iter().map(place).collect();
        Self { text: words.join(" "), words, places }
    }

    /// The offsets of the words of an entity in the text, in code points.
    pub fn place_of(&self, words: &Range<usize>) -> Offsets {
        (self.places[words.start].0, self.places[words.end - 1].1)
    }
}

impl TaggingWindow {
    /// The indices of the words that are tagged in this window.
    pub fn words(&self) -> impl Iterator<Item = usize> {
        self.words.iter().map(|(_, word)| *word)
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
        Ok(Self { tokenizer, labels, reader, max_length })
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
        let places = self.tokenizer.word_offsets(text)?;
        let words = slices(text, places.iter().copied()).map(str::to_string).collect();
        Ok(Words { text: text.into(), words, places })
    }

    /// Computes the scores `[W, C]` of the words tagged in the windows from the hidden states `[B, T, H]`.
    pub fn logits(
        &self,
        model: &BertForTokenClassification,
        hidden: Tensor<3>,
        windows: &[&TaggingWindow],
    ) -> Tensor<2> {
        let logits = model.head(hidden);
        let ([_, tokens, _], device) = (logits.dims(), logits.device());
        let flat = |(row, window): (usize, &&TaggingWindow)| {
            window.words.iter().map(move |(position, _)| (row * tokens + position) as i32).collect::<Vec<_>>()
        };
        let positions: Vec<i32> = windows.iter().enumerate().flat_map(flat).collect();
        logits.flatten::<2>(0, 1).select(0, Tensor::<1, Int>::from_data(&positions[..], &device))
    }

    /// The tag of each of `count` words and its probability, from the scores of all windows.
    pub fn tags(&self, count: usize, windows: &[TaggingWindow], scores: &[Vec<Vec<f32>>]) -> (Vec<String>, Vec<f32>) {
        let mut found = vec![(0, 0.0); count];
        for (window, scores) in windows.iter().zip(scores) {
            for ((_, word), scores) in window.words.iter().zip(scores) {
                let tag = highest(scores);
                found[*word] = (tag, scores[tag]);
            }
        }
        found.into_iter().map(|(tag, score)| (self.labels[tag].clone(), score)).unzip()
    }

    /// The WordPieces of each word: at least one, and no more than fit into a window.
    fn pieces(&self, words: &[String]) -> Result<Vec<Vec<u32>>> {
        let piece = |word: &String| {
            let mut ids = self.tokenizer.pieces(word)?;
            ids.truncate(self.max_length - 2);
            // A word that consists of control characters only has no WordPieces of its own.
            Ok(if ids.is_empty() { vec![self.tokenizer.special().unk] } else { ids })
        };
        words.iter().map(piece).collect()
    }

    /// Builds the window that contains the words `span` and tags those in `read`.
    fn window(&self, pieces: &[Vec<u32>], span: Range<usize>, read: Range<usize>) -> TaggingWindow {
        let special = self.tokenizer.special();
        let mut window = TaggingWindow { sequence: Sequence::default(), words: Vec::new() };
        window.sequence.ids.push(special.cls);
        for word in span {
            if read.contains(&word) {
                window.words.push((window.sequence.len(), word));
            }
            window.sequence.ids.extend(&pieces[word]);
        }
        window.sequence.ids.push(special.sep);
        window.sequence.types = vec![0; window.sequence.len()];
        window
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
    /// The probability of every tag, for each word that the window tags.
    type Output = Vec<Vec<f32>>;
    type Answer = TaggedText;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, text: &&Words) -> Result<Vec<TaggingWindow>> {
        let room = self.max_length - 2;
        let pieces = self.pieces(&text.words)?;
        let (mut windows, mut start, mut read) = (Vec::new(), 0, 0);
        loop {
            let (mut end, mut length) = (start, 0);
            while end < pieces.len() && length + pieces[end].len() <= room {
                length += pieces[end].len();
                end += 1;
            }
            let is_last = end == pieces.len();
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

    fn forward(&self, model: &Self::Model, batch: BertInput, windows: &[&TaggingWindow]) -> Vec<Vec<Vec<f32>>> {
        self.head(model, model.bert.encode(batch), windows)
    }

    fn postprocess(&self, text: &&Words, windows: &[TaggingWindow], scores: &[Vec<Vec<f32>>]) -> TaggedText {
        let (tags, scores) = self.tags(text.words.len(), windows, scores);
        let code_points = CodePoints::new(&text.text);
        let entity = |EntitySpan { kind, start, end }: EntitySpan| {
            let words = start..end;
            let score = scores[words.clone()].iter().sum::<f32>() / words.len() as f32;
            let (start, end) = text.place_of(&words);
            Entity { label: kind, start, end, text: code_points.slice(&text.text, start, end).to_string(), score }
        };
        let entities = self.reader.entities(&tags).into_iter().map(entity).collect();
        TaggedText { words: text.words.clone(), tags, scores, entities }
    }
}

impl HeadProcessor for TaggingProcessor {
    const READS_CLS_ONLY: bool = false;

    fn bert(model: &BertForTokenClassification) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &Self::Model, hidden: Tensor<3>, windows: &[&TaggingWindow]) -> Vec<Vec<Vec<f32>>> {
        if windows.iter().all(|window| window.words.is_empty()) {
            return vec![Vec::new(); windows.len()];
        }
        let probabilities: Vec<f32> =
            softmax(self.logits(model, hidden, windows), 1).into_data().iter::<f32>().collect();
        let mut rows = probabilities.chunks(self.labels.len()).map(<[f32]>::to_vec);
        windows.iter().map(|window| rows.by_ref().take(window.words.len()).collect()).collect()
    }
}

#[cfg(test)]
mod tests;
