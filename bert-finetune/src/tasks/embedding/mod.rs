//! Sentence embeddings: texts that belong together get similar vectors (Reimers and Gurevych 2019, "Sentence-BERT").
//!
//! A pair is contrasted with the other pairs of its batch, or learned from its score (see `loss`). The run directory
//! has the format of sentence-transformers, so that other tools can load the model.

mod judging;
mod loss;
mod processor;
mod settings;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use bert_cli::input::source::Input;
use bert_model::model::SentenceEncoder;
use bert_model::pipeline::sentence_transformers::save;
use bert_model::pipeline::{EmbeddingProcessor, Processor, SentenceTransformer};
use bert_model::pretrained::Loaded;
use bert_model::pretrained::weights::Weights;
use bert_model::{BertConfig, BertModel, Error, Pretrained, Result, Tokenizer};
use bert_train::Adaptation;
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::any::{AnyTask, open_task};
use super::kind::TaskSpec;
use super::{Defect, Examples, JointLoss, Query, Task};
use crate::data::Files;
use crate::data::pairs::{PairOptions, PairRow, read_pairs};
use crate::description::Description;
use crate::model_directory::{config_of, weights_of};
use crate::report::Mistake;

pub use processor::{GroupProcessor, TextGroup};
pub use settings::{EmbeddingPooling, EmbeddingSettings};

/// The description of the embedding task.
pub const EMBEDDING: TaskSpec = TaskSpec {
    name: "embedding",
    about: "Vectors that are similar for texts that belong together",
    architecture: BertModel::ARCHITECTURE,
    problem_type: None,
    main_metric: "ndcg_at_10",
    labeled_metric: Some("spearman"),
    metrics: &["accuracy_at_1", "mrr_at_10", "ndcg_at_10", "recall_at_10", "spearman", "pearson"],
    max_seq_len: 128,
    columns: ("text", Some("text_pair")),
    label: None,
    reads_pairs: false,
    reads_tables: true,
    options: &["text-pair", "negative", "scale", "pooling", "normalize", "mini-batch"],
    check_columns: |description| columns(description).map(drop),
    learn_labels: learn_range,
    open,
};

const SCORED: [&str; 2] = ["spearman", "pearson"];

fn open(description: &Description, _labels: Vec<String>, tokenizer: &Tokenizer) -> Result<AnyTask> {
    let settings = &description.embedding;
    let config = config_of(&settings.model)?;
    let mut how = SentenceTransformer::read(&settings.model)?.unwrap_or_default();
    how.max_length = Some(description.max_seq_len);
    settings.change(&mut how);
    let columns = columns(description)?;
    let is_scored = columns.score.is_some();
    // A model trained on pairs may be evaluated with scores, and vice versa.
    let named = description.main_metric();
    let is_fit = SCORED.contains(&named) == is_scored;
    Ok(AnyTask::Embedding(EmbeddingTask {
        processor: GroupProcessor(Box::new(EmbeddingProcessor::new(how, tokenizer, &config)?)),
        columns,
        settings: settings.clone(),
        layers: config.num_hidden_layers,
        main_metric: if is_fit { named } else { description.task.usual_metric(is_scored) },
    }))
}

/// The columns of a table.
fn columns(description: &Description) -> Result<PairOptions> {
    let Some(text_pair) = description.pair_column()? else {
        return Err(Error::Usage("--text-pair COL is required: embeddings are learned from pairs".into()));
    };
    // Pairs with scores have no negatives; a model that was trained with them may be evaluated on such pairs.
    let negatives = description.embedding.negatives.iter().filter(|_| description.label.is_none());
    Ok(PairOptions {
        text: description.column(&description.text)?,
        text_pair,
        negatives: negatives.map(|name| description.column(name)).collect::<Result<_>>()?,
        score: description.label.as_deref().map(|name| description.column(name)).transpose()?,
        header: description.header,
        source: description.source,
    })
}

/// Finds the range of the training scores, which are mapped to 0 to 1 for training, and checks the metric.
fn learn_range(description: &mut Description, files: &Files) -> Result<Vec<String>> {
    let options = columns(description)?;
    let is_scored = options.score.is_some();
    if SCORED.contains(&description.metric.as_str()) != is_scored {
        let metrics = EMBEDDING.metrics.iter().copied().filter(|metric| SCORED.contains(metric) == is_scored);
        let (expected, files) = (metrics.collect::<Vec<_>>().join(", "), if is_scored { "with" } else { "without" });
        let found = &description.metric;
        return Err(Error::Usage(format!("--metric: found {found}, expected one of {expected} {files} --label")));
    }
    if is_scored {
        let scores = read_pairs(&Input::new(&files.training), &options)?.into_iter().filter_map(|row| row.score);
        let (low, high) =
            scores.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| (low.min(score), high.max(score)));
        if low >= high {
            let found = if low == high { format!("only the score {low}") } else { "no scores".to_string() };
            return Err(Error::file(&files.training, found, "scores that are not all equal"));
        }
        description.embedding.score_range = Some((low, high));
    }
    Ok(Vec::new())
}

/// The embedding task.
#[derive(Debug, Clone)]
pub struct EmbeddingTask {
    /// Embeds the texts of a pair.
    pub processor: GroupProcessor,
    /// The columns of a table.
    pub columns: PairOptions,
    /// How embeddings are learned.
    pub settings: EmbeddingSettings,
    /// The metric that selects the best epoch.
    pub main_metric: &'static str,
    /// Number of encoder layers.
    pub layers: usize,
}

/// The target of a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// A number for each text; equal texts have the same number.
    texts: Vec<u64>,
    /// The score, mapped from the range of the training scores to 0 to 1.
    score: Option<f32>,
}

impl EmbeddingTask {
    fn is_scored(&self) -> bool {
        self.columns.score.is_some()
    }

    /// Maps a score from the range of the training scores to 0 to 1.
    fn scaled(&self, score: f64) -> f64 {
        let (low, high) = self.settings.score_range.unwrap_or((0.0, 1.0));
        (score - low) / (high - low)
    }

    fn description(&self) -> &SentenceTransformer {
        self.processor.0.description()
    }

    /// The similarity of the two texts of a pair.
    fn similarity(&self, vectors: &[Vec<f32>]) -> f64 {
        match vectors {
            [first, second, ..] => f64::from(self.description().similarity.of(first, second)),
            _ => f64::NAN,
        }
    }
}

impl Task for EmbeddingTask {
    type Processor = GroupProcessor;
    type Example = PairRow;
    type Target = Target;

    fn processor(&self) -> &GroupProcessor {
        &self.processor
    }

    fn read(&self, input: &Input) -> Result<Vec<PairRow>> {
        read_pairs(input, &self.columns)
    }

    /// Negatives are used in training only.
    fn read_held_out(&self, input: &Input) -> Result<Vec<PairRow>> {
        read_pairs(input, &PairOptions { negatives: Vec::new(), ..self.columns.clone() })
    }

    fn unlabeled(&self, _input: &Input) -> Result<Examples<PairRow>> {
        Err(no_prediction())
    }

    fn example_of(&self, _query: &Query) -> Result<PairRow> {
        Err(no_prediction())
    }

    fn request<'a>(&self, example: &'a PairRow) -> &'a [String] {
        &example.texts
    }

    fn targets(&self, example: &PairRow, _inputs: &[TextGroup]) -> Vec<Target> {
        let number = |text: &String| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        let score = example.score.map(|score| self.scaled(score) as f32);
        vec![Target { texts: example.texts.iter().map(number).collect(), score }]
    }

    fn check_adaptation(&self, adaptation: Adaptation) -> Result<()> {
        let has_dense = self.description().dense().next().is_some();
        let is_frozen = match adaptation {
            Adaptation::FrozenEncoder => true,
            Adaptation::FrozenLayers(count) => count >= self.layers,
            _ => false,
        };
        match is_frozen && !has_dense {
            true => Err(Error::Usage(
                "--freeze: embeddings come from the encoder, so freezing all of it leaves nothing to train; \
                 freeze only some layers"
                    .into(),
            )),
            false => Ok(()),
        }
    }

    fn joint(&self) -> Option<&dyn JointLoss<Self>> {
        (!self.is_scored()).then_some(self)
    }

    fn loss(
        &self,
        model: &SentenceEncoder,
        hidden: Tensor<3>,
        inputs: &[&TextGroup],
        targets: &[&Target],
    ) -> Tensor<1> {
        let vectors = self.processor.vectors(model, hidden, inputs);
        match self.is_scored() {
            true => loss::scores(vectors, targets),
            false => loss::in_batch_negatives(vectors, targets, self.settings.scale),
        }
    }

    fn labeled(&self, example: &PairRow) -> Map<String, Value> {
        let mut map = Map::from_iter([
            ("text".into(), example.texts[0].as_str().into()),
            ("text_pair".into(), example.texts[1].as_str().into()),
        ]);
        map.extend(example.score.map(|score| ("expected".into(), score.into())));
        map
    }

    fn defect(&self, example: &PairRow) -> Option<Defect> {
        (self.is_scored() && example.score.is_none()).then_some(Defect::Unlabeled)
    }

    fn json<'a>(&'a self, vectors: &'a Vec<Vec<f32>>) -> impl Serialize + 'a {
        json!({"similarity": self.similarity(vectors)})
    }

    fn metrics(
        &self,
        examples: &[PairRow],
        _: &[Vec<TextGroup>],
        outputs: &[Vec<Vec<Vec<f32>>>],
    ) -> Map<String, Value> {
        let metrics = match self.is_scored() {
            true => self.score_metrics(examples, outputs),
            false => self.retrieval_metrics(examples, outputs),
        };
        metrics.as_object().cloned().unwrap_or_default()
    }

    fn mistakes(&self, examples: &[PairRow], _: &[Vec<TextGroup>], outputs: &[Vec<Vec<Vec<f32>>>]) -> Vec<Mistake> {
        match self.is_scored() {
            true => self.wrong_scores(examples, outputs),
            false => self.wrong_hits(examples, outputs),
        }
    }

    fn main_metric(&self) -> &'static str {
        self.main_metric
    }

    fn fresh_model(&self, config: &BertConfig, seed: u64, device: &Device) -> SentenceEncoder {
        let dense = self.description().dense().map(|dense| dense.to_module(device)).collect();
        SentenceEncoder { dense, ..SentenceEncoder::init_seeded(config, seed, device) }
    }

    fn load_model(
        &self,
        weights: &Weights,
        config: &BertConfig,
        _seed: u64,
        device: &Device,
    ) -> Result<Loaded<SentenceEncoder>> {
        self.processor.load(weights, config.clone(), device)
    }

    fn save_model(
        &self,
        directory: &Path,
        model: &SentenceEncoder,
        config: &BertConfig,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        save(directory, self.description(), model, config, tokenizer)
    }

    fn saved(&self, directory: &Path, device: &Device) -> Result<(Self, SentenceEncoder)> {
        let AnyTask::Embedding(task) = open_task(directory)? else { return Err(no_prediction()) };
        let loaded = task.load_model(&weights_of(directory)?, &config_of(directory)?, 0, device)?;
        Ok((task, loaded.model))
    }
}

impl JointLoss<Self> for EmbeddingTask {
    fn vectors(&self, model: &SentenceEncoder, hidden: Tensor<3>, inputs: &[&TextGroup]) -> Tensor<2> {
        self.processor.vectors(model, hidden, inputs)
    }

    fn loss(&self, vectors: Tensor<2>, targets: &[&Target]) -> Tensor<1> {
        loss::in_batch_negatives(vectors, targets, self.settings.scale)
    }
}

fn no_prediction() -> Error {
    Error::Setting(
        "this model has no head to predict with: use `embed`, `similarity` or `search`, or train one with `train`"
            .into(),
    )
}
