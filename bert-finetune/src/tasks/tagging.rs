//! A tag for every word (paper, section 5.3): read off a word's first piece; the other pieces have no say.

use std::path::Path;

use bert_cli::input::kind::{Format, Input};
use bert_cli::input::read_inputs;
use bert_cli::input::table::TableOptions;
use bert_model::model::loss::cross_entropy;
use bert_model::pipeline::tags::{EntitySpan, TagScheme, complete, entities, to_iob2};
use bert_model::pipeline::{TaggedText, TaggingProcessor, TaggingWindow, Words};
use bert_model::{BertForTokenClassification, Error, Pretrained, Result, Tokenizer};
use bert_train::report::Mark;
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value, json};

use super::any::AnyTask;
use super::kind::Facts;
use super::labels::{at_least, label_index};
use super::{Examples, Query, Task, balanced, weight_of, weighted_sum};
use crate::data::conll::{ConllColumns, ConllOptions, Sentence, TagColumn, WordsOrText, read_tagged, words_or_text};
use crate::description::Description;
use crate::metrics::entities::entity_scores;
use crate::report::{Mistake, worst};

/// A tag for every word.
pub const TAGGING: Facts = Facts {
    name: "tagging",
    about: "A tag for every word",
    architecture: BertForTokenClassification::ARCHITECTURE,
    problem_type: None,
    main_metric: "f1",
    labeled_metric: None,
    metrics: &["f1"],
    max_seq_len: 128,
    columns: ("text", None),
    label: Some("label"),
    reads_pairs: false,
    check_columns: |description| columns(description).map(drop),
    learn_labels,
    open,
};

fn open(description: &Description, labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let Description { tag_scheme, max_seq_len, .. } = *description;
    Ok(AnyTask::Tagging(TaggingTask {
        columns: columns(description)?,
        texts: description.inputs()?,
        processor: TaggingProcessor::new(tokenizer.clone(), labels, tag_scheme, max_seq_len)?,
        tag_weights: Vec::new(),
    }))
}

/// Where a CoNLL file has what.
fn columns(description: &Description) -> Result<ConllColumns> {
    let parse = |column: &Option<String>| column.as_deref().map(TagColumn::parse).transpose();
    Ok(ConllColumns { token: parse(&description.token_column)?, tag: parse(&description.tag_column)? })
}

/// The tags of a training file; what their prefixes mean goes into the description.
fn learn_labels(description: &mut Description, training: &Path) -> Result<Vec<String>> {
    let mut sentences = TaggingTask::sentences(columns(description)?, training)?;
    let (labels, scheme) = learned_tags(&mut sentences);
    if labels.iter().all(|label| label.parse::<f64>().is_ok()) {
        let file = training.display();
        eprintln!("warning: {file}: the tags are numbers, which mark no entities: `f1` is the accuracy");
    }
    description.tag_scheme = scheme;
    at_least(2, labels, training)
}

/// Tagging of words.
#[derive(Debug, Clone)]
pub struct TaggingTask {
    /// Where a CoNLL file has what.
    pub columns: ConllColumns,
    /// Where a table has texts to be tagged.
    pub texts: TableOptions,
    /// The tags in the order of their numbers, what their prefixes mean, and how words become windows.
    pub processor: TaggingProcessor,
    /// Of each tag; empty if all count alike.
    pub tag_weights: Vec<f32>,
}

/// A sentence, and the numbers of its tags if they are known.
#[derive(Debug, Clone, Default)]
pub struct TaggedSentence {
    /// The words, and where they stand.
    pub words: Words,
    /// As many, or none.
    pub tags: Vec<usize>,
}

impl TaggedSentence {
    /// Words that came as such.
    fn of_words(words: Vec<String>, tags: Vec<usize>) -> Self {
        Self { words: Words::new(words), tags }
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
    fn words_of(&self, text: &str) -> Result<TaggedSentence> {
        Ok(TaggedSentence { words: self.processor.split(text)?, tags: Vec::new() })
    }

    fn labels(&self) -> &[String] {
        self.processor.labels()
    }
}

impl Task for TaggingTask {
    type Processor = TaggingProcessor;
    type Example = TaggedSentence;
    /// The tag of each word that the window reads.
    type Target = Vec<usize>;

    const OPTIONS: &'static [&'static str] = &[];

    fn processor(&self) -> &TaggingProcessor {
        &self.processor
    }

    fn read(&self, path: &Path) -> Result<Vec<TaggedSentence>> {
        let mut sentences = Self::sentences(self.columns, path)?;
        let is_known = |sentence: &Sentence| sentence.tags.iter().all(|tag| label_index(tag, self.labels()).is_some());
        let as_they_stand = sentences.clone();
        learned_tags(&mut sentences);
        // A model from elsewhere may have learned IOB1 as it stands.
        if !sentences.iter().all(is_known) && as_they_stand.iter().all(is_known) {
            sentences = as_they_stand;
        }
        let tagged = |sentence: Sentence| {
            let number = |(index, tag): (usize, &String)| {
                label_index(tag, self.labels()).ok_or_else(|| {
                    Error::line(
                        path,
                        sentence.lines[index],
                        format!("the tag {tag:?}"),
                        format!("one of {}", self.labels().join(", ")),
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

    fn request<'a>(&self, sentence: &'a TaggedSentence) -> &'a Words {
        &sentence.words
    }

    fn targets(&self, sentence: &TaggedSentence, windows: &[TaggingWindow]) -> Vec<Vec<usize>> {
        let tags =
            |window: &TaggingWindow| window.words().filter_map(|word| sentence.tags.get(word).copied()).collect();
        windows.iter().map(tags).collect()
    }

    fn balance(&mut self, sentences: &[TaggedSentence]) -> Result<()> {
        let tags = sentences.iter().flat_map(|sentence| sentence.tags.iter().copied());
        self.tag_weights = balanced(tags, self.labels().len());
        Ok(())
    }

    fn terms(&self, tags: &Vec<usize>) -> f64 {
        tags.iter().map(|&tag| f64::from(weight_of(&self.tag_weights, tag))).sum()
    }

    fn loss(
        &self,
        model: &BertForTokenClassification,
        hidden: Tensor<3>,
        windows: &[&TaggingWindow],
        tags: &[&Vec<usize>],
    ) -> Tensor<1> {
        let tags: Vec<i32> = tags.iter().flat_map(|tags| tags.iter().map(|&tag| tag as i32)).collect();
        let logits = self.processor.logits(model, hidden, windows);
        let device = logits.device();
        let losses = cross_entropy(logits, Tensor::<1, Int>::from_data(&tags[..], &device));
        weighted_sum(losses, &self.tag_weights, &tags)
    }

    fn json(&self, tagged: &TaggedText) -> Value {
        let entity = |entity: &bert_model::pipeline::Entity| {
            let bert_model::pipeline::Entity { label, start, end, text, score, .. } = entity;
            json!({"type": label, "start": start, "end": end, "text": text, "score": score})
        };
        let entities: Vec<Value> = tagged.entities.iter().map(entity).collect();
        json!({"words": tagged.words, "tags": tagged.tags, "entities": entities})
    }

    fn metrics(
        &self,
        sentences: &[TaggedSentence],
        windows: &[Vec<TaggingWindow>],
        scores: &[Vec<Vec<Vec<f32>>>],
    ) -> Map<String, Value> {
        let names = |tags: &Vec<usize>| tags.iter().map(|&tag| self.labels()[tag].clone()).collect::<Vec<_>>();
        let gold: Vec<Vec<String>> = sentences.iter().map(|sentence| names(&sentence.tags)).collect();
        let inputs = sentences.iter().zip(windows).zip(scores);
        let predicted: Vec<Vec<String>> =
            inputs.map(|((s, windows), scores)| self.processor.tags(s.words.words.len(), windows, scores).0).collect();
        let mut metrics = json!(entity_scores(&gold, &predicted, self.processor.scheme()));
        if self.processor.scheme() == TagScheme::Plain {
            // Parts of speech have no spans: the share of right tags is the score.
            metrics["f1"] = metrics["accuracy"].clone();
        }
        let targets: Vec<Vec<usize>> =
            sentences.iter().zip(windows).flat_map(|(sentence, windows)| self.targets(sentence, windows)).collect();
        metrics["loss"] = mean_loss(&targets, scores).into();
        metrics.as_object().cloned().unwrap_or_default()
    }

    fn mistakes(
        &self,
        sentences: &[TaggedSentence],
        windows: &[Vec<TaggingWindow>],
        scores: &[Vec<Vec<Vec<f32>>>],
    ) -> Vec<Mistake> {
        let mistake = |index: usize| {
            let sentence = &sentences[index];
            let (found, probabilities) =
                self.processor.tags(sentence.words.words.len(), &windows[index], &scores[index]);
            let gold: Vec<String> = sentence.tags.iter().map(|&tag| self.labels()[tag].clone()).collect();
            let (gold, found) = (entities(&gold, self.processor.scheme()), entities(&found, self.processor.scheme()));
            let span = |entity: &EntitySpan, mark| {
                let (start, end) = sentence.words.place_of(&(entity.start..entity.end));
                (start, end, entity.kind.clone(), mark)
            };
            let mut spans: Vec<_> = found
                .iter()
                .map(|entity| span(entity, if gold.contains(entity) { Mark::Correct } else { Mark::Spurious }))
                .collect();
            spans.extend(gold.iter().filter(|entity| !found.contains(entity)).map(|entity| span(entity, Mark::Missed)));
            let surest = found.iter().filter(|entity| !gold.contains(entity)).map(|entity| probabilities[entity.start]);
            let weight = surest.fold(0.0, f32::max);
            let is_wrong = spans.iter().any(|span| span.3 != Mark::Correct);
            is_wrong
                .then(|| (f64::from(weight), Mistake::Spans { lead: None, text: sentence.words.text.clone(), spans }))
        };
        worst((0..sentences.len()).filter_map(mistake).collect())
    }

    fn main_metric(&self) -> &'static str {
        "f1"
    }
}

/// Mean cross-entropy of the tags of all windows, in nats.
fn mean_loss(targets: &[Vec<usize>], scores: &[Vec<Vec<Vec<f32>>>]) -> f64 {
    let (mut loss, mut count) = (0.0, 0);
    for (tags, scores) in targets.iter().zip(scores.iter().flatten()) {
        for (&tag, scores) in tags.iter().zip(scores) {
            loss -= f64::from(scores[tag].max(1e-30)).ln();
            count += 1;
        }
    }
    loss / f64::from(count.max(1))
}

#[cfg(test)]
mod tests;
