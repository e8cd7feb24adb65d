//! A tag for every word (paper, section 5.3): read off a word's first piece; the other pieces have no say.
//!
//! A sentence that is too long is cut into windows that overlap, and each word is read in the window where it has more
//! context, so that every word gets a tag.

use std::path::Path;

use bert_cli::input::kind::{Format, Input};
use bert_cli::input::read_inputs;
use bert_cli::input::table::TableOptions;
use bert_model::model::loss::cross_entropy;
use bert_model::text::Sequence;
use bert_model::{BertForTokenClassification, BertModel, Error, Result, Tokenizer};
use bert_train::report::Mark;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value, json};

use super::sequence::argmax;
use super::{Examples, Query, Task, balanced, label_index, weight_of, weighted_sum};
use crate::data::conll::{ConllColumns, ConllOptions, Sentence, WordsOrText, read_tagged, words_or_text};
use crate::data::squad::CodePoints;
use crate::data::tags::{Entity, TagScheme, complete, entities, to_iob2};
use crate::metrics::entities::entity_scores;
use crate::report::{Mistake, worst};

/// Tagging of words.
#[derive(Debug, Clone)]
pub struct TaggingTask {
    /// Where a CoNLL file has what.
    pub columns: ConllColumns,
    /// Where a table has texts to be tagged.
    pub texts: TableOptions,
    /// The tags in the order of their numbers.
    pub labels: Vec<String>,
    /// What their prefixes mean.
    pub scheme: TagScheme,
    /// Longest window in tokens.
    pub max_seq_len: usize,
    /// Words to pieces.
    pub tokenizer: Tokenizer,
    /// Of each tag; empty if all count alike.
    pub tag_weights: Vec<f32>,
}

/// A sentence, and the numbers of its tags if they are known.
#[derive(Debug, Clone, Default)]
pub struct TaggedSentence {
    /// The words.
    pub words: Vec<String>,
    /// As many, or none.
    pub tags: Vec<usize>,
    /// The text that the words were cut from; they themselves with spaces between if they came as such.
    pub text: String,
    /// Where each word stands in it, in code points.
    pub places: Vec<(usize, usize)>,
}

/// A stretch of a sentence.
#[derive(Debug, Clone)]
pub struct Window {
    sequence: Sequence,
    /// Position of the first piece and number of each word that is read here.
    words: Vec<(usize, usize)>,
    /// The tag of each of them, if known.
    tags: Vec<usize>,
}

impl TaggedSentence {
    /// Words that came as such.
    fn of_words(words: Vec<String>, tags: Vec<usize>) -> Self {
        Self { text: words.join(" "), places: joined_places(&words), words, tags }
    }
}

/// The tags of a file in the form in which they are learned: IOB1 becomes IOB2.
pub fn learned_tags(sentences: &mut [Sentence]) -> (Vec<String>, TagScheme) {
    let found = TagScheme::detect(sentences.iter().map(|sentence| &sentence.tags[..]));
    let scheme = if found == TagScheme::Iob1 { TagScheme::Iob2 } else { found };
    if found == TagScheme::Iob1 {
        sentences.iter_mut().for_each(|sentence| sentence.tags = to_iob2(&sentence.tags, found));
    }
    let tags = sentences.iter().flat_map(|sentence| sentence.tags.iter().cloned()).collect();
    (complete(&tags, scheme).into_iter().collect(), scheme)
}

impl TaggingTask {
    /// Reads sentences with their tags as they stand in the file.
    ///
    /// # Errors
    /// What is wrong in the file, and where.
    pub fn sentences(columns: ConllColumns, path: &Path) -> Result<Vec<Sentence>> {
        read_tagged(path, columns.of(path))?.collect()
    }

    /// The words of a plain text.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    pub fn words_of(&self, text: &str) -> Result<TaggedSentence> {
        let places = self.tokenizer.word_offsets(text)?;
        let letters: Vec<char> = text.chars().collect();
        let words = places.iter().map(|&(start, end)| letters[start..end].iter().collect()).collect();
        Ok(TaggedSentence { words, tags: Vec::new(), text: text.into(), places })
    }

    /// Scores of the words that the windows read, `[W, C]`.
    fn logits(&self, model: &BertForTokenClassification, hidden: Tensor<3>, windows: &[&Window]) -> Tensor<2> {
        let logits = model.head(hidden);
        let ([_, tokens, _], device) = (logits.dims(), logits.device());
        let flat = |(row, window): (usize, &&Window)| {
            window.words.iter().map(move |(position, _)| (row * tokens + position) as i32).collect::<Vec<_>>()
        };
        let positions: Vec<i32> = windows.iter().enumerate().flat_map(flat).collect();
        logits.flatten::<2>(0, 1).select(0, Tensor::<1, Int>::from_data(&positions[..], &device))
    }

    /// The tag of each word and its probability.
    fn tags(&self, sentence: &TaggedSentence, windows: &[Window], scores: &[Vec<Vec<f32>>]) -> (Vec<String>, Vec<f32>) {
        let mut found = vec![(0, 0.0); sentence.words.len()];
        for (window, scores) in windows.iter().zip(scores) {
            for ((_, word), scores) in window.words.iter().zip(scores) {
                let tag = argmax(scores);
                found[*word] = (tag, scores[tag]);
            }
        }
        found.into_iter().map(|(tag, score)| (self.labels[tag].clone(), score)).unzip()
    }
}

impl Task for TaggingTask {
    type Model = BertForTokenClassification;
    type Example = TaggedSentence;
    type Input = Window;
    type Scores = Vec<Vec<f32>>;

    const READS_CLS_ALONE: bool = false;
    const OPTIONS: &'static [&'static str] = &[];

    fn read(&self, path: &Path) -> Result<Vec<TaggedSentence>> {
        let mut sentences = Self::sentences(self.columns, path)?;
        let is_known = |sentence: &Sentence| sentence.tags.iter().all(|tag| label_index(tag, &self.labels).is_some());
        let as_they_stand = sentences.clone();
        learned_tags(&mut sentences);
        // A model from elsewhere may have learned IOB1 as it stands.
        if !sentences.iter().all(is_known) && as_they_stand.iter().all(is_known) {
            sentences = as_they_stand;
        }
        let tagged = |sentence: Sentence| {
            let number = |(index, tag): (usize, &String)| {
                label_index(tag, &self.labels).ok_or_else(|| {
                    Error::line(
                        path,
                        sentence.lines[index],
                        format!("the tag {tag:?}"),
                        format!("one of {}", self.labels.join(", ")),
                    )
                })
            };
            let tags = sentence.tags.iter().enumerate().map(number).collect::<Result<_>>()?;
            Ok(TaggedSentence::of_words(sentence.words, tags))
        };
        sentences.into_iter().map(tagged).collect()
    }

    fn questions(&self, input: &Input) -> Result<Examples<TaggedSentence>> {
        let task = self.clone();
        match input.format {
            Some(Format::Text) => {}
            None if input.is_stdin() => {}
            Some(Format::Csv) => {
                let texts = read_inputs(input, &self.texts)?;
                return Ok(Box::new(texts.map(move |row| task.words_of(&row?.text))));
            }
            Some(Format::JsonLines) => {
                let lines = input.lines()?;
                let place = lines.path().clone();
                let lines = lines.filter(|line| !line.as_ref().is_ok_and(|line| line.text.trim().is_empty()));
                return Ok(Box::new(lines.map(move |line| match words_or_text(&line?, &place)? {
                    WordsOrText::Words(words) => Ok(TaggedSentence::of_words(words, Vec::new())),
                    WordsOrText::Text(text) => task.words_of(&text),
                })));
            }
            _ => {
                let columns = ConllOptions { tag: None, ..self.columns.of(&input.path) };
                let sentences = read_tagged(input, columns)?;
                return Ok(Box::new(sentences.map(|it| Ok(TaggedSentence::of_words(it?.words, Vec::new())))));
            }
        }
        Ok(Box::new(input.lines()?.map(move |line| task.words_of(&line?.text))))
    }

    fn question(&self, query: &Query) -> Result<TaggedSentence> {
        self.words_of(&query.text)
    }

    fn encode(&self, sentence: &TaggedSentence) -> Result<Vec<Window>> {
        let special = self.tokenizer.special();
        let room = self.max_seq_len - 2;
        let mut pieces: Vec<Vec<u32>> = Vec::with_capacity(sentence.words.len());
        for word in &sentence.words {
            let mut ids = self.tokenizer.pieces(word)?;
            ids.truncate(room);
            // A word of nothing but control characters has no piece of its own.
            pieces.push(if ids.is_empty() { vec![special.unk] } else { ids });
        }
        let (mut windows, mut start, mut read) = (Vec::new(), 0, 0);
        loop {
            let (mut end, mut length) = (start, 0);
            while end < pieces.len() && length + pieces[end].len() <= room {
                length += pieces[end].len();
                end += 1;
            }
            let is_last = end == pieces.len();
            // The next window begins a quarter earlier than this one ends; of the words in both, each reads its half.
            let next = if is_last { end } else { (end - (end - start) / 4).max(start + 1) };
            let read_until = if is_last { end } else { next + (end - next) / 2 };
            let mut window = Window { sequence: Sequence::default(), words: Vec::new(), tags: Vec::new() };
            window.sequence.ids.push(special.cls);
            for (word, ids) in pieces.iter().enumerate().take(end).skip(start) {
                if (read..read_until).contains(&word) {
                    window.words.push((window.sequence.len(), word));
                    window.tags.extend(sentence.tags.get(word));
                }
                window.sequence.ids.extend(ids);
            }
            window.sequence.ids.push(special.sep);
            window.sequence.types = vec![0; window.sequence.len()];
            windows.push(window);
            if is_last {
                return Ok(windows);
            }
            (start, read) = (next, read_until);
        }
    }

    fn sequences<'a>(&self, window: &'a Window) -> Vec<&'a Sequence> {
        vec![&window.sequence]
    }

    fn pad_id(&self) -> u32 {
        self.tokenizer.special().pad
    }

    fn bert<'a>(&self, model: &'a BertForTokenClassification) -> &'a BertModel {
        &model.bert
    }

    fn balance(&mut self, sentences: &[TaggedSentence]) -> Result<()> {
        let tags = sentences.iter().flat_map(|sentence| sentence.tags.iter().copied());
        self.tag_weights = balanced(tags, self.labels.len());
        Ok(())
    }

    fn terms(&self, window: &Window) -> f64 {
        window.tags.iter().map(|&tag| f64::from(weight_of(&self.tag_weights, tag))).sum()
    }

    fn loss(&self, model: &Self::Model, hidden: Tensor<3>, windows: &[&Window]) -> Tensor<1> {
        let tags: Vec<i32> = windows.iter().flat_map(|window| window.tags.iter().map(|&tag| tag as i32)).collect();
        let logits = self.logits(model, hidden, windows);
        let device = logits.device();
        let losses = cross_entropy(logits, Tensor::<1, Int>::from_data(&tags[..], &device));
        weighted_sum(losses, &self.tag_weights, &tags)
    }

    fn scores(&self, model: &Self::Model, hidden: Tensor<3>, windows: &[&Window]) -> Vec<Vec<Vec<f32>>> {
        if windows.iter().all(|window| window.words.is_empty()) {
            return vec![Vec::new(); windows.len()];
        }
        let probabilities: Vec<f32> =
            softmax(self.logits(model, hidden, windows), 1).into_data().iter::<f32>().collect();
        let mut rows = probabilities.chunks(self.labels.len()).map(<[f32]>::to_vec);
        windows.iter().map(|window| rows.by_ref().take(window.words.len()).collect()).collect()
    }

    fn answer(&self, sentence: &TaggedSentence, windows: &[Window], scores: &[Vec<Vec<f32>>]) -> Value {
        let (tags, probabilities) = self.tags(sentence, windows, scores);
        let (places, code_points) = (&sentence.places, CodePoints::new(&sentence.text));
        let found = entities(&tags, self.scheme).into_iter().map(|entity| {
            let words = entity.start..entity.end;
            let score = probabilities[words.clone()].iter().sum::<f32>() / words.len() as f32;
            let (start, end) = (places[entity.start].0, places[entity.end - 1].1);
            let text = code_points.slice(&sentence.text, start, end);
            json!({"type": entity.kind, "start": start, "end": end, "text": text, "score": score})
        });
        json!({"words": sentence.words, "tags": tags, "entities": found.collect::<Vec<_>>()})
    }

    fn metrics(
        &self,
        sentences: &[TaggedSentence],
        windows: &[Vec<Window>],
        scores: &[Vec<Vec<Vec<f32>>>],
    ) -> Map<String, Value> {
        let names = |tags: &Vec<usize>| tags.iter().map(|&tag| self.labels[tag].clone()).collect::<Vec<_>>();
        let gold: Vec<Vec<String>> = sentences.iter().map(|sentence| names(&sentence.tags)).collect();
        let inputs = sentences.iter().zip(windows).zip(scores);
        let predicted: Vec<Vec<String>> =
            inputs.map(|((sentence, windows), scores)| self.tags(sentence, windows, scores).0).collect();
        let mut metrics = json!(entity_scores(&gold, &predicted, self.scheme));
        if self.scheme == TagScheme::Plain {
            // Parts of speech have no spans: the share of right tags is the score.
            metrics["f1"] = metrics["accuracy"].clone();
        }
        metrics["loss"] = mean_loss(windows, scores).into();
        metrics.as_object().cloned().unwrap_or_default()
    }

    fn mistakes(
        &self,
        sentences: &[TaggedSentence],
        windows: &[Vec<Window>],
        scores: &[Vec<Vec<Vec<f32>>>],
    ) -> Vec<Mistake> {
        let mistake = |index: usize| {
            let sentence = &sentences[index];
            let (found, probabilities) = self.tags(sentence, &windows[index], &scores[index]);
            let gold: Vec<String> = sentence.tags.iter().map(|&tag| self.labels[tag].clone()).collect();
            let (gold, found) = (entities(&gold, self.scheme), entities(&found, self.scheme));
            let places = &sentence.places;
            let span =
                |entity: &Entity, mark| (places[entity.start].0, places[entity.end - 1].1, entity.kind.clone(), mark);
            let mut spans: Vec<_> = found
                .iter()
                .map(|entity| span(entity, if gold.contains(entity) { Mark::Correct } else { Mark::Spurious }))
                .collect();
            spans.extend(gold.iter().filter(|entity| !found.contains(entity)).map(|entity| span(entity, Mark::Missed)));
            let surest = found.iter().filter(|entity| !gold.contains(entity)).map(|entity| probabilities[entity.start]);
            let weight = surest.fold(0.0, f32::max);
            let is_wrong = spans.iter().any(|span| span.3 != Mark::Correct);
            is_wrong.then(|| (f64::from(weight), Mistake::Spans { lead: None, text: sentence.text.clone(), spans }))
        };
        worst((0..sentences.len()).filter_map(mistake).collect())
    }

    fn main_metric(&self) -> &'static str {
        "f1"
    }
}

/// Mean cross-entropy of the tags, in nats.
fn mean_loss(windows: &[Vec<Window>], scores: &[Vec<Vec<Vec<f32>>>]) -> f64 {
    let (mut loss, mut count) = (0.0, 0);
    for (window, scores) in windows.iter().flatten().zip(scores.iter().flatten()) {
        for (&tag, scores) in window.tags.iter().zip(scores) {
            loss -= f64::from(scores[tag].max(1e-30)).ln();
            count += 1;
        }
    }
    loss / f64::from(count.max(1))
}

/// Where words stand, in code points, if a space is put between them.
fn joined_places(words: &[String]) -> Vec<(usize, usize)> {
    let mut start = 0;
    let place = |word: &String| {
        let place = (start, start + word.chars().count());
        start = place.1 + 1;
        place
    };
    words.iter().map(place).collect()
}

#[cfg(test)]
mod tests;
