//! Converts sentences and texts from files to examples.

use std::path::Path;

use bert_cli::input::columns::json_object;
use bert_cli::input::header::{ColumnSource, TEXT};
use bert_cli::input::read_inputs;
use bert_cli::input::source::Input;
use bert_model::pipeline::Words;
use bert_model::{Error, Result};

use super::TaggingTask;
use crate::data::conll::{ConllOptions, Sentence, TagColumn, WordsOrText, has_tags, read_tagged, words_or_text};
use crate::tasks::Examples;
use crate::tasks::labels::label_index;

/// A sentence, with its tags if they are known.
#[derive(Debug, Clone, Default)]
pub struct TaggedSentence {
    /// The words and their positions.
    pub words: Words,
    /// The tag of each word; empty if the tags are unknown.
    pub tags: Vec<GoldTag>,
}

/// The tag of a word in a labeled file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoldTag {
    /// The index of a tag of the model.
    Known(usize),
    /// A tag that the model does not have, but whose type it has (`S-PER` when there is `B-PER`). It counts as missed
    /// in metrics, and is ignored in the loss.
    Unknown(String),
    /// None: the word is left out of the loss and of metrics.
    Missing,
}

/// Whether a tag says that a word has none: null, or −100 or −1 of the `datasets` library.
pub(super) fn is_missing(tag: &str) -> bool {
    ["", "-100", "-1"].contains(&tag)
}

impl TaggedSentence {
    /// Creates a sentence from given words.
    pub(super) fn of_words(words: Vec<String>, tags: Vec<GoldTag>) -> Self {
        Self { words: Words::new(words), tags }
    }
}

impl GoldTag {
    /// The index of the tag, if the model has it.
    pub(super) fn number(&self) -> Option<usize> {
        match self {
            Self::Known(number) => Some(*number),
            Self::Unknown(_) | Self::Missing => None,
        }
    }

    /// The name of the tag, if the word has one.
    pub(super) fn name<'a>(&'a self, labels: &'a [String]) -> Option<&'a str> {
        match self {
            Self::Known(number) => Some(&labels[*number]),
            Self::Unknown(name) => Some(name),
            Self::Missing => None,
        }
    }
}

impl TaggingTask {
    /// Splits a plain text into words.
    pub(super) fn words_of(&self, text: &str) -> Result<TaggedSentence> {
        Ok(TaggedSentence { words: self.processor.split(text)?, tags: Vec::new() })
    }

    /// Converts a sentence of a labeled file.
    ///
    /// # Errors
    /// If a tag has a type that the model does not have; the error names the line.
    pub(super) fn tagged(&self, sentence: Sentence, path: &Path) -> Result<TaggedSentence> {
        let gold = |(index, tag): (usize, &String)| match label_index(tag, self.labels()) {
            Some(number) => Ok(GoldTag::Known(number)),
            None if is_missing(tag) => Ok(GoldTag::Missing),
            None if self.has_type_of(tag) => Ok(GoldTag::Unknown(tag.clone())),
            None => {
                let expected = format!("one of {}", self.labels().join(", "));
                Err(Error::line(path, sentence.lines[index], format!("the tag {tag:?}"), expected))
            }
        };
        let tags = sentence.tags.iter().enumerate().map(gold).collect::<Result<_>>()?;
        Ok(TaggedSentence::of_words(sentence.words, tags))
    }

    /// Reads the texts of a table and splits them into words.
    pub(super) fn texts(&self, input: &Input) -> Result<Examples<TaggedSentence>> {
        let task = self.clone();
        Ok(Box::new(read_inputs(input, &self.texts)?.map(move |row| task.words_of(&row?.text))))
    }

    /// Reads sentences without their tags.
    pub(super) fn words(&self, input: &Input) -> Result<Examples<TaggedSentence>> {
        let columns = ConllOptions { tag: None, ..self.columns.of(&input.path) };
        let sentences = read_tagged(input, columns)?;
        Ok(Box::new(sentences.map(|it| Ok(TaggedSentence::of_words(it?.words, Vec::new())))))
    }

    /// Reads words, or texts to split into words, from lines of JSON.
    pub(super) fn json_lines(&self, input: &Input) -> Result<Examples<TaggedSentence>> {
        let (task, lines, keep) = (self.clone(), input.lines()?, input.keep.clone());
        let place = lines.path().clone();
        let lines = lines.filter(|line| !line.as_ref().is_ok_and(|line| line.text.trim().is_empty()));
        let is_given = self.texts.source == ColumnSource::Given;
        // Without a header, columns have numbers, which are not names in JSON.
        let column = if self.texts.header { self.texts.text.to_string() } else { TEXT.to_string() };
        Ok(Box::new(lines.zip(1..).map(move |(line, row)| {
            let line = line?;
            let asked = words_or_text(&line, &place, &column, is_given)?;
            if let Some(keep) = &keep {
                keep.send_fields(row, &json_object(&line, &place)?, &place, line.number)?;
            }
            match asked {
                WordsOrText::Words(words) => Ok(TaggedSentence::of_words(words, Vec::new())),
                WordsOrText::Text(text) => task.words_of(&text),
            }
        })))
    }

    /// Whether a tag that is no label has the entity type of one, such as `S-PER` beside `B-PER`.
    fn has_type_of(&self, tag: &str) -> bool {
        let reader = self.processor.reader();
        reader.kind(tag).is_some_and(|kind| self.labels().iter().any(|label| reader.kind(label) == Some(kind)))
    }

    /// Whether a file consists of CoNLL columns, judging by its tags. A tag's number does not count: texts may end in
    /// numbers.
    pub(super) fn has_tags(&self, input: &Input) -> Result<bool> {
        let tag = self.columns.of(&input.path).tag.unwrap_or(TagColumn::FromEnd(1));
        has_tags(input, tag, |tag| self.labels().iter().any(|label| label == tag) || self.has_type_of(tag))
    }
}
