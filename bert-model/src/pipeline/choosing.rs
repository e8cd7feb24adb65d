//! Multiple choice: picks the best of several continuations (Devlin et al. 2018, §4.4). Each one is paired with the
//! text and scored; softmax is taken over the scores.

use std::borrow::Cow;

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use super::{Checkpoint, FromCheckpoint, HeadProcessor, Pipeline, Processor, argmax};
use crate::error::{Error, Result};
use crate::model::{BertForMultipleChoice, BertInput, BertModel};
use crate::text::{Sequence, Tokenizer};

/// Chooses the best of several continuations of a text.
///
/// ```no_run
/// use bert_model::pipeline::MultipleChoice;
///
/// # fn main() -> bert_model::Result<()> {
/// let chooser = MultipleChoice::open("DIR")?;
/// let choices = chooser.choose(&[("She opened the umbrella because", vec!["it rained.", "it was noon."])])?;
/// assert!(choices[0].index < 2);
/// # Ok(())
/// # }
/// ```
pub type MultipleChoice = Pipeline<ChoiceProcessor>;

/// The choice for one text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The index of the most probable choice, from 0.
    pub index: usize,
    /// The probability of each choice; they sum to 1.
    pub probabilities: Vec<f32>,
}

/// The text side of [`MultipleChoice`].
#[derive(Debug, Clone)]
pub struct ChoiceProcessor {
    tokenizer: Tokenizer,
}

/// A text paired with each of its choices.
#[derive(Debug, Clone)]
pub struct ChoiceInput {
    sequences: Vec<Sequence>,
}

impl MultipleChoice {
    /// Picks the best choice for each text, which may have any number of choices. If a pair is longer than the model's
    /// maximum length, the longer side is truncated first.
    ///
    /// # Errors
    /// If a text has no choices or cannot be tokenized.
    pub fn choose<T: AsRef<str>, C: AsRef<str>>(&self, questions: &[(T, Vec<C>)]) -> Result<Vec<Choice>> {
        let request = |(text, choices): &'_ (T, Vec<C>)| -> (String, Vec<String>) {
            (text.as_ref().to_string(), choices.iter().map(|choice| choice.as_ref().to_string()).collect())
        };
        let owned: Vec<(String, Vec<String>)> = questions.iter().map(request).collect();
        let requests: Vec<_> = owned.iter().map(|(text, choices)| (Cow::from(text), choices.as_slice())).collect();
        self.run(&requests)
    }
}

impl ChoiceProcessor {
    /// Builds the processor; `tokenizer` must truncate to the model's maximum length.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer }
    }

    /// Computes the log-probabilities `[1, C]` of the C choices of each input from the hidden states `[S, T, H]` of the
    /// S sequences, which are the choices of all inputs in turn.
    pub fn log_probabilities(
        &self,
        model: &BertForMultipleChoice,
        hidden: Tensor<3>,
        inputs: &[&ChoiceInput],
    ) -> Vec<Tensor<2>> {
        let scores = model.head(hidden);
        let mut start = 0;
        let question = |input: &&ChoiceInput| {
            let choices = input.sequences.len();
            start += choices;
            log_softmax(scores.clone().slice_dim(0, start - choices..start).reshape([1, choices]), 1)
        };
        inputs.iter().map(question).collect()
    }
}

impl FromCheckpoint for ChoiceProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        checkpoint.check_head::<BertForMultipleChoice>()?;
        checkpoint.tokenizer.check_fits_pairs(&checkpoint.config)?;
        Ok(Self::new(checkpoint.tokenizer.truncating(checkpoint.max_length(max_length)?)?))
    }
}

impl Processor for ChoiceProcessor {
    type Model = BertForMultipleChoice;
    /// A text and its choices.
    type Request<'a> = (Cow<'a, str>, &'a [String]);
    type Input = ChoiceInput;
    /// The probability of each choice.
    type Output = Vec<f32>;
    type Answer = Choice;

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn preprocess(&self, (text, choices): &Self::Request<'_>) -> Result<Vec<ChoiceInput>> {
        if choices.is_empty() {
            return Err(Error::Setting(format!("found no choice for {text:?}, expected at least one")));
        }
        let pair = |choice: &String| self.tokenizer.sequence(text, Some(choice));
        Ok(vec![ChoiceInput { sequences: choices.iter().map(pair).collect::<Result<_>>()? }])
    }

    fn sequences(input: &ChoiceInput) -> &[Sequence] {
        &input.sequences
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, inputs: &[&ChoiceInput]) -> Vec<Vec<f32>> {
        self.head(model, model.bert.encode(batch), inputs)
    }

    fn postprocess(&self, _request: &Self::Request<'_>, _inputs: &[ChoiceInput], outputs: &[Vec<f32>]) -> Choice {
        let probabilities = outputs.first().cloned().unwrap_or_default();
        Choice { index: argmax(&probabilities), probabilities }
    }
}

impl HeadProcessor for ChoiceProcessor {
    const READS_CLS_ONLY: bool = true;

    fn bert(model: &BertForMultipleChoice) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &Self::Model, hidden: Tensor<3>, inputs: &[&ChoiceInput]) -> Vec<Vec<f32>> {
        let log_probabilities = self.log_probabilities(model, hidden, inputs);
        log_probabilities.into_iter().map(|row| row.exp().into_data().iter::<f32>().collect()).collect()
    }
}
