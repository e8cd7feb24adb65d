//! Classification and regression of single texts and pairs (Devlin et al. 2018, §4.1), from the pooled `[CLS]` vector.

use std::collections::HashSet;

use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softmax};

use super::{Checkpoint, FromCheckpoint, HeadProcessor, Pipeline, Processor};
use crate::config::ProblemType;
use crate::error::Result;
use crate::model::{BertForSequenceClassification, BertInput, BertModel};
use crate::text::{Sequence, Tokenizer};

/// Classifies texts and pairs of texts, or predicts a value for them.
///
/// ```no_run
/// use bert_model::pipeline::TextClassifier;
///
/// # fn main() -> bert_model::Result<()> {
/// let classifier = TextClassifier::open("DIR")?;
/// for answer in classifier.classify(&["a charming film", "two hours too long"])? {
///     println!("{} {:.3}", answer.label, answer.score);
/// }
/// # Ok(())
/// # }
/// ```
pub type TextClassifier = Pipeline<ClassificationProcessor>;

/// The result for one text or pair.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Classification {
    /// The label with the highest score; for regression, the name of the highest value.
    pub label: String,
    /// Its score.
    pub score: f32,
    /// The score of every label, in the order of [`TextClassifier::labels`]: probabilities that sum to 1; for
    /// multi-label models and for models with a single label, an independent probability per label; for regression, the
    /// values.
    pub scores: Vec<f32>,
}

/// Converts texts and pairs to model input, and the head's scores to a [`Classification`].
#[derive(Debug, Clone)]
pub struct ClassificationProcessor {
    problem: ProblemType,
    labels: Vec<String>,
    tokenizer: Tokenizer,
}

impl TextClassifier {
    /// Classifies each text. Texts longer than the model's maximum length are truncated and
    /// [counted](Pipeline::truncated_count).
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn classify<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Classification>> {
        self.run(&texts.iter().map(|text| (text.as_ref(), None)).collect::<Vec<_>>())
    }

    /// Classifies each pair of texts, for instance by whether the first entails the second. If a pair is longer than
    /// the model's maximum length, the longer text is truncated first.
    ///
    /// # Errors
    /// If a text cannot be tokenized, or the model has only one token type.
    pub fn classify_pairs<A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> Result<Vec<Classification>> {
        self.processor().tokenizer.check_fits_pairs(self.config())?;
        let requests: Vec<_> = pairs.iter().map(|(first, second)| (first.as_ref(), Some(second.as_ref()))).collect();
        self.run(&requests)
    }

    /// The names of the labels in the order of their scores.
    pub fn labels(&self) -> &[String] {
        self.processor().labels()
    }
}

impl ClassificationProcessor {
    /// Builds the processor for `labels`, given in the order of the head's outputs; if two names are equal, the second
    /// one gets its number appended. `tokenizer` must truncate to the model's maximum length.
    pub fn new(problem: ProblemType, labels: Vec<String>, tokenizer: Tokenizer) -> Self {
        Self { problem, labels: distinct(labels), tokenizer }
    }

    /// The kind of the head's output: one label, any number of labels, or values.
    pub fn problem(&self) -> ProblemType {
        self.problem
    }

    /// The names of the labels in the order of the head's outputs.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
}

impl FromCheckpoint for ClassificationProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        checkpoint.check_head::<BertForSequenceClassification>()?;
        let config = &checkpoint.config;
        let tokenizer = checkpoint.tokenizer.truncating(checkpoint.max_length(max_length)?)?;
        Ok(Self::new(config.head_problem(), config.label_names()?, tokenizer))
    }
}

impl Processor for ClassificationProcessor {
    type Model = BertForSequenceClassification;
    /// A text and, for a pair, the second text.
    type Request<'a> = (&'a str, Option<&'a str>);
    type Input = Sequence;
    /// The score of every label.
    type Output = Vec<f32>;
    type Answer = Classification;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, &(text, pair): &(&str, Option<&str>)) -> Result<Vec<Sequence>> {
        Ok(vec![self.tokenizer.sequence(text, pair)?])
    }

    fn sequences(input: &Sequence) -> &[Sequence] {
        std::slice::from_ref(input)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, inputs: &[&Sequence]) -> Vec<Vec<f32>> {
        self.head(model, model.bert.encode(batch), inputs)
    }

    fn postprocess(&self, _request: &(&str, Option<&str>), _: &[Sequence], outputs: &[Vec<f32>]) -> Classification {
        let scores = outputs.first().cloned().unwrap_or_default();
        let best = argmax(&scores);
        let label = self.labels.get(best).cloned().unwrap_or_default();
        Classification { label, score: scores.get(best).copied().unwrap_or_default(), scores }
    }
}

impl HeadProcessor for ClassificationProcessor {
    const READS_CLS_ONLY: bool = true;

    fn bert(model: &BertForSequenceClassification) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &Self::Model, hidden: Tensor<3>, _inputs: &[&Sequence]) -> Vec<Vec<f32>> {
        let logits = model.head(hidden);
        let [_, labels] = logits.dims();
        let scores = match self.problem {
            // With a single label, softmax would give it probability 1 for every text.
            ProblemType::SingleLabelClassification if labels > 1 => softmax(logits, 1),
            ProblemType::SingleLabelClassification | ProblemType::MultiLabelClassification => sigmoid(logits),
            ProblemType::Regression => logits,
        };
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        scores.chunks(labels).map(<[f32]>::to_vec).collect()
    }
}

/// The labels, with their numbers appended where a name would occur twice.
fn distinct(labels: Vec<String>) -> Vec<String> {
    let names: HashSet<String> = labels.iter().cloned().collect();
    let mut used = HashSet::new();
    let distinct = |(id, label): (usize, String)| {
        let mut name = label;
        let mut is_free = !used.contains(&name);
        while !is_free {
            name = format!("{name} ({id})");
            is_free = !used.contains(&name) && !names.contains(&name);
        }
        used.insert(name.clone());
        name
    };
    labels.into_iter().enumerate().map(distinct).collect()
}

/// The index of the highest score: the first one among equals, and 0 if there are none.
pub fn argmax(scores: &[f32]) -> usize {
    let better = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
    (0..scores.len()).fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_lost_to_another_of_its_name() {
        let found = |names: &[&str]| distinct(names.iter().map(|name| name.to_string()).collect());
        assert_eq!(found(&["a", "b"]), ["a", "b"]);
        assert_eq!(found(&["a", "a", "b", "a"]), ["a", "a (1)", "b", "a (3)"]);
        assert_eq!(found(&["a", "a", "a (1)"]), ["a", "a (1) (1)", "a (1)"]);
    }
}
