//! Tagging: a tag for every word (Devlin et al. 2018, §5.3), predicted from its first WordPiece.

mod examples;

use std::collections::BTreeSet;

use bert_cli::input::header::ColumnSource;
use bert_cli::input::kind::Format;
use bert_cli::input::source::Input;
use bert_cli::input::table::TableOptions;
use bert_cli::warning::warn_once;
use bert_model::model::loss::cross_entropy;
use bert_model::pipeline::tags::{EntitySpan, TagReader};
use bert_model::pipeline::{TaggedText, TaggingProcessor, TaggingWindow, WindowTags, Words};
use bert_model::{BertForTokenClassification, Error, Pretrained, Result, Tokenizer};
use bert_train::report::Mark;
use burn::tensor::{Int, Tensor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::examples::is_missing;
pub use self::examples::{GoldTag, TaggedSentence};
use super::any::AnyTask;
use super::kind::TaskSpec;
use super::labels::at_least;
use super::{Defect, Examples, Query, Task, balanced, weight_of, weighted_sum};
use crate::data::Files;
use crate::data::conll::{ConllColumns, Sentence, TagColumn, read_tagged};
use crate::description::Description;
use crate::metrics::entities::entity_scores;
use crate::report::{Mistake, worst};

/// The description of the tagging task.
pub const TAGGING: TaskSpec = TaskSpec {
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
    reads_tables: false,
    options: &["token-column", "tag-column", "class-weights"],
    check_columns: |description| columns(description).map(drop),
    learn_labels,
    open,
};

fn open(description: &Description, labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let Description { tag_scheme, max_seq_len, .. } = *description;
    let processor = TaggingProcessor::new(tokenizer.clone(), labels, tag_scheme, max_seq_len)?;
    processor.reader().warnings().into_iter().for_each(warn_once);
    Ok(AnyTask::Tagging(TaggingTask {
        columns: columns(description)?,
        texts: description.inputs()?,
        processor,
        tag_weights: Vec::new(),
    }))
}

/// The columns of a CoNLL file.
fn columns(description: &Description) -> Result<ConllColumns> {
    let parse = |column: &Option<String>| column.as_deref().map(TagColumn::parse).transpose();
    Ok(ConllColumns { token: parse(&description.token_column)?, tag: parse(&description.tag_column)? })
}

/// Collects the tags in the files, as written; their scheme is set in the description.
fn learn_labels(description: &mut Description, files: &Files) -> Result<Vec<String>> {
    let columns = columns(description)?;
    let mut sentences: Vec<Sentence> = Vec::new();
    for path in files.all() {
        for sentence in read_tagged(path, columns.of(path))? {
            sentences.push(sentence?);
        }
    }
    sentences.iter_mut().for_each(|sentence| sentence.tags.retain(|tag| !is_missing(tag)));
    let tags: Vec<&[String]> = sentences.iter().map(|sentence| &sentence.tags[..]).collect();
    let labels: BTreeSet<&String> = tags.iter().copied().flatten().collect();
    let labels: Vec<String> = labels.into_iter().cloned().collect();
    if labels.iter().all(|label| label.parse::<f64>().is_ok()) {
        let file = files.training.display();
        warn_once(format!("{file}: the tags are numbers, which do not mark entities: `f1` is the accuracy"));
    }
    description.tag_scheme = TagReader::of_sentences(&tags).scheme();
    at_least(2, labels, &files.training)
}

/// The tagging task.
#[derive(Debug, Clone)]
pub struct TaggingTask {
    /// The columns of a CoNLL file.
    pub columns: ConllColumns,
    /// The columns of a table of texts.
    pub texts: TableOptions,
    /// Holds the tags in index order and their scheme, and splits long texts into windows.
    pub processor: TaggingProcessor,
    /// The weight of each tag; empty if all are 1.
    pub tag_weights: Vec<f32>,
}

impl TaggingTask {
    fn labels(&self) -> &[String] {
        self.processor.labels()
    }
}

impl Task for TaggingTask {
    type Processor = TaggingProcessor;
    type Example = TaggedSentence;
    /// The tag of each word in the window; `None` for a tag that the model does not have.
    type Target = Vec<Option<usize>>;

    fn processor(&self) -> &TaggingProcessor {
        &self.processor
    }

    fn read(&self, input: &Input) -> Result<Vec<TaggedSentence>> {
        let (sentences, path) = (read_tagged(input, self.columns.of(&input.path))?, input.name());
        let sentences: Vec<TaggedSentence> =
            sentences.map(|sentence| self.tagged(sentence?, &path)).collect::<Result<_>>()?;
        let tags = || sentences.iter().flat_map(|sentence| &sentence.tags);
        let unknown = tags().filter(|tag| matches!(tag, GoldTag::Unknown(_)));
        let unknown: Vec<&str> = unknown.filter_map(|tag| tag.name(self.labels())).collect();
        let file = path.display();
        if let Some(first) = unknown.first() {
            let count = unknown.len();
            warn_once(format!(
                "{file}: {count} word(s) have tags that are unknown to the model ({first}, …): the accuracy counts them \
                 as missed"
            ));
        }
        let missing = tags().filter(|tag| **tag == GoldTag::Missing).count();
        if missing > 0 {
            warn_once(format!("{file}: {missing} word(s) without a gold tag (null, -100 or -1) left out"));
        }
        Ok(sentences)
    }

    fn defect(&self, sentence: &TaggedSentence) -> Option<Defect> {
        let is_unlabeled = !sentence.tags.is_empty() && sentence.tags.iter().all(|tag| *tag == GoldTag::Missing);
        is_unlabeled.then_some(Defect::Unlabeled)
    }

    /// Reads texts from a table if the file is `.csv`, its column is named, or its header contains the column; CoNLL
    /// columns from any other file except `.jsonl`, and from `.txt` only if it has tags.
    fn unlabeled(&self, input: &Input) -> Result<Examples<TaggedSentence>> {
        let is_given = self.texts.source == ColumnSource::Given;
        let is_text = input.format == Some(Format::Text) || input.format.is_none() && input.is_stdin();
        match input.format {
            Some(Format::JsonLines | Format::Parquet) => self.json_lines(input),
            Some(Format::Csv) => self.texts(input),
            Some(Format::Tsv) if is_given || self.texts.is_in_header(input)? && !self.has_tags(input)? => {
                self.texts(input)
            }
            _ if is_given && !is_text => {
                let found = "CoNLL columns, which contain words rather than texts";
                Err(Error::file(&input.path, found, "a .csv or .tsv table for --text"))
            }
            _ if is_given || is_text && !self.has_tags(input)? => self.texts(input),
            _ => {
                if is_text {
                    warn_once(format!("{input}: read as CoNLL columns, because it has tags"));
                } else if input.is_stdin() {
                    warn_once(format!("{input}: read as CoNLL columns; for a table, name its text column with --text"));
                }
                self.words(input)
            }
        }
    }

    fn example_of(&self, query: &Query) -> Result<TaggedSentence> {
        self.words_of(&query.text)
    }

    fn request<'a>(&self, sentence: &'a TaggedSentence) -> &'a Words {
        &sentence.words
    }

    fn targets(&self, sentence: &TaggedSentence, windows: &[TaggingWindow]) -> Vec<Vec<Option<usize>>> {
        let number = |word: usize| sentence.tags.get(word).map(GoldTag::number);
        windows.iter().map(|window| window.words().filter_map(number).collect()).collect()
    }

    fn balance(&mut self, sentences: &[TaggedSentence]) -> Result<()> {
        let tags = sentences.iter().flat_map(|sentence| sentence.tags.iter().filter_map(GoldTag::number));
        self.tag_weights = balanced(tags, self.labels().len());
        Ok(())
    }

    fn terms(&self, tags: &Vec<Option<usize>>) -> f64 {
        tags.iter().flatten().map(|&tag| f64::from(weight_of(&self.tag_weights, tag))).sum()
    }

    fn loss(
        &self,
        model: &BertForTokenClassification,
        hidden: Tensor<3>,
        windows: &[&TaggingWindow],
        tags: &[&Vec<Option<usize>>],
    ) -> Tensor<1> {
        let tags: Vec<Option<usize>> = tags.iter().flat_map(|tags| tags.iter().copied()).collect();
        let logits = self.processor.logits(model, hidden, windows);
        let device = logits.device();
        let numbers: Vec<i32> = tags.iter().map(|tag| tag.unwrap_or(0) as i32).collect();
        let losses = cross_entropy(logits, Tensor::<1, Int>::from_data(&numbers[..], &device));
        let losses = match tags.iter().all(Option::is_some) {
            true => losses,
            false => {
                let counts: Vec<f32> = tags.iter().map(|tag| f32::from(u8::from(tag.is_some()))).collect();
                losses * Tensor::from_data(&counts[..], &device)
            }
        };
        weighted_sum(losses, &self.tag_weights, &numbers)
    }

    fn json<'a>(&'a self, tagged: &'a TaggedText) -> impl Serialize + 'a {
        tagged
    }

    fn plain(&self, tagged: &TaggedText) -> Result<String> {
        let words = tagged.words.iter().zip(tagged.tags.iter()).map(|(word, tag)| format!("{word}/{tag}"));
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    fn labeled(&self, sentence: &TaggedSentence) -> Map<String, Value> {
        let tags: Vec<Option<&str>> = sentence.tags.iter().map(|tag| tag.name(self.labels())).collect();
        Map::from_iter([("text".into(), sentence.words.text().into()), ("expected".into(), tags.into())])
    }

    fn metrics(
        &self,
        sentences: &[TaggedSentence],
        windows: &[Vec<TaggingWindow>],
        found: &[Vec<WindowTags>],
    ) -> Map<String, Value> {
        // Words without a gold tag are left out of both.
        let compared = |index: usize| {
            let gold = sentences[index].tags.iter().map(|tag| tag.name(self.labels()));
            let predicted = self.processor.tags(&found[index]).map(|(tag, _)| tag);
            gold.zip(predicted).filter_map(|(gold, tag)| Some((gold?, tag))).unzip()
        };
        let (gold, predicted): (Vec<Vec<&str>>, Vec<Vec<&str>>) = (0..sentences.len()).map(compared).unzip();
        let mut metrics = json!(entity_scores(&gold, &predicted, self.processor.reader()));
        let targets: Vec<Vec<Option<usize>>> =
            sentences.iter().zip(windows).flat_map(|(sentence, windows)| self.targets(sentence, windows)).collect();
        metrics["loss"] = mean_loss(&targets, found).into();
        metrics.as_object().cloned().unwrap_or_default()
    }

    fn mistakes(
        &self,
        sentences: &[TaggedSentence],
        _windows: &[Vec<TaggingWindow>],
        found: &[Vec<WindowTags>],
    ) -> Vec<Mistake> {
        let mistake = |index: usize| {
            let sentence = &sentences[index];
            let (found, probabilities): (Vec<&str>, Vec<f32>) = self.processor.tags(&found[index]).unzip();
            let gold: Vec<&str> = sentence.tags.iter().map(|tag| tag.name(self.labels()).unwrap_or("O")).collect();
            let reader = self.processor.reader();
            let (gold, found) = (reader.entities(&gold), reader.entities(&found));
            let span = |entity: &EntitySpan, mark| {
                let (start, end) = sentence.words.place_of(&(entity.start..entity.end));
                (start, end, entity.kind.to_string(), mark)
            };
            let mut spans: Vec<_> = found
                .iter()
                .map(|entity| span(entity, if gold.contains(entity) { Mark::Correct } else { Mark::Spurious }))
                .collect();
            spans.extend(gold.iter().filter(|entity| !found.contains(entity)).map(|entity| span(entity, Mark::Missed)));
            let surest = found.iter().filter(|entity| !gold.contains(entity)).map(|entity| probabilities[entity.start]);
            let weight = surest.fold(0.0, f32::max);
            let is_wrong = spans.iter().any(|span| span.3 != Mark::Correct);
            is_wrong.then(|| {
                (f64::from(weight), Mistake::Spans { lead: None, text: sentence.words.text().to_string(), spans })
            })
        };
        worst((0..sentences.len()).filter_map(mistake).collect())
    }

    fn main_metric(&self) -> &'static str {
        "f1"
    }
}

/// Mean cross-entropy of the tags of all windows, in nats.
fn mean_loss(targets: &[Vec<Option<usize>>], found: &[Vec<WindowTags>]) -> f64 {
    let (mut loss, mut count) = (0.0, 0);
    for (tags, found) in targets.iter().zip(found.iter().flatten()) {
        for (tag, scores) in tags.iter().zip(found.probabilities()).filter_map(|(tag, scores)| Some(((*tag)?, scores)))
        {
            loss -= f64::from(scores[tag].max(1e-30)).ln();
            count += 1;
        }
    }
    loss / f64::from(count.max(1))
}

#[cfg(test)]
mod tests;
