//! A classification pipeline that returns raw scores, so that one route can show them raw and another as probabilities.

use bert_model::pipeline::{Checkpoint, ClassificationProcessor, FromCheckpoint, HeadProcessor, Processor};
use bert_model::text::Sequence;
use bert_model::{BertInput, ProblemType, Result, Tokenizer};

/// The text side of a classifier. Its outputs are the head's raw scores.
pub struct ScoreProcessor {
    classification: ClassificationProcessor,
    activation: Activation,
}

/// Turns scores into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// For one of several labels.
    Softmax,
    /// For independent labels, or a single score between 0 and 1.
    Sigmoid,
    /// For a regression value, which is not a probability.
    Identity,
}

impl Activation {
    /// Chooses the activation as transformers does: a single label gets a sigmoid unless the configuration declares a
    /// regression.
    fn of(problem: Option<ProblemType>, labels: usize) -> Self {
        match (problem, labels) {
            (Some(ProblemType::Regression), _) => Self::Identity,
            (Some(ProblemType::MultiLabelClassification), _) | (_, 1) => Self::Sigmoid,
            _ => Self::Softmax,
        }
    }

    /// Applies the activation to the scores of all labels.
    pub fn apply(self, scores: &[f32]) -> Vec<f32> {
        match self {
            Self::Identity => scores.to_vec(),
            Self::Sigmoid => scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect(),
            Self::Softmax => {
                let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
                let total: f32 = weights.iter().sum();
                weights.into_iter().map(|weight| weight / total).collect()
            }
        }
    }
}

impl ScoreProcessor {
    /// Names of the labels, in the order of their scores.
    pub fn labels(&self) -> &[String] {
        self.classification.labels()
    }

    /// The activation that turns this model's scores into probabilities.
    pub fn activation(&self) -> Activation {
        self.activation
    }
}

impl FromCheckpoint for ScoreProcessor {
    type Options = ();

    fn from_checkpoint(checkpoint: &Checkpoint, max_length: Option<usize>, _options: &()) -> Result<Self> {
        let classification = ClassificationProcessor::from_checkpoint(checkpoint, max_length, &Default::default())?;
        let activation = Activation::of(checkpoint.config.problem_type, classification.labels().len());
        Ok(Self { classification, activation })
    }
}

impl Processor for ScoreProcessor {
    type Model = <ClassificationProcessor as Processor>::Model;
    /// A text and, for a pair, the second text.
    type Request<'a> = (&'a str, Option<&'a str>);
    type Input = Sequence;
    /// One score per label.
    type Output = Vec<f32>;
    type Answer = Vec<f32>;

    fn tokenizer(&self) -> &Tokenizer {
        self.classification.tokenizer()
    }

    fn preprocess(&self, request: &(&str, Option<&str>)) -> Result<Vec<Sequence>> {
        self.classification.preprocess(request)
    }

    fn sequences(input: &Sequence) -> &[Sequence] {
        ClassificationProcessor::sequences(input)
    }

    fn forward(&self, model: &Self::Model, batch: BertInput, _inputs: &[&Sequence]) -> Vec<Vec<f32>> {
        let scores = model.head(ClassificationProcessor::bert(model).encode(batch));
        let [_, labels] = scores.dims();
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        scores.chunks(labels.max(1)).map(<[f32]>::to_vec).collect()
    }

    fn postprocess(&self, _request: &(&str, Option<&str>), _: &[Sequence], outputs: &[Vec<f32>]) -> Vec<f32> {
        outputs.first().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_probabilities_as_in_transformers() {
        use ProblemType::{MultiLabelClassification, Regression, SingleLabelClassification};
        assert_eq!(Activation::of(None, 1), Activation::Sigmoid);
        assert_eq!(Activation::of(None, 3), Activation::Softmax);
        assert_eq!(Activation::of(Some(Regression), 1), Activation::Identity);
        assert_eq!(Activation::of(Some(MultiLabelClassification), 3), Activation::Sigmoid);
        assert_eq!(Activation::of(Some(SingleLabelClassification), 2), Activation::Softmax);
        assert_eq!(Activation::Softmax.apply(&[1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(Activation::Sigmoid.apply(&[0.0, -1000.0]), [0.5, 0.0]);
        assert_eq!(Activation::Identity.apply(&[-2.0]), [-2.0]);
    }
}
