//! The words of a text, and their tags.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::text::slices;
use crate::text::tokenizer::Offsets;

/// A text split into words. Clones share the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    text: Arc<str>,
    places: Arc<Vec<Offsets>>,
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
        let places = Arc::new(words.iter().map(place).collect());
        Self { text: words.join(" ").into(), places }
    }

    /// The words at these offsets of a text.
    pub(super) fn at(places: Vec<Offsets>, text: &str) -> Self {
        Self { text: text.into(), places: Arc::new(places) }
    }

    /// The text; if words were given, the words joined by spaces.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The offsets of each word in the text, in code points.
    pub fn places(&self) -> &[Offsets] {
        &self.places
    }

    /// The words.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        slices(&self.text, self.places.iter().copied())
    }

    /// The number of words.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The offsets of the words of an entity in the text, in code points.
    ///
    /// # Panics
    /// If the range is empty or goes beyond the words.
    pub fn place_of(&self, words: &Range<usize>) -> Offsets {
        (self.places[words.start].0, self.places[words.end - 1].1)
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The tags of a text's words, as indices into the labels of the model.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tags {
    labels: Arc<[String]>,
    indices: Vec<u32>,
}

impl Tags {
    /// The tags with these indices in `labels`.
    pub(super) fn new(labels: Arc<[String]>, indices: Vec<u32>) -> Self {
        Self { labels, indices }
    }

    /// The tags.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.indices.iter().map(|&index| self.labels[index as usize].as_str())
    }

    /// The number of tags, which is that of the words.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no tags.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

impl Debug for Tags {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
