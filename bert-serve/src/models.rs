//! The served models: opening them, detecting their heads, and choosing one for a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bert_cli::hub::model_directory;
use bert_model::model::SentenceEncoder;
use bert_model::pipeline::{
    Builder, Checkpoint, ChoiceProcessor, EmbeddingProcessor, FromCheckpoint, MaskProcessor, PairProcessor, PairScorer,
    Pipeline, Precision, Processor, QuestionProcessor, TaggingProcessor, TextEmbedder,
};
use bert_model::{BertConfig, BertModel, Error, Result, Tokenizer};
use burn::tensor::Device;

use crate::batching::{BatchLimits, Batcher, Scheduler, Source};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::scores::ScoreProcessor;

/// A model, with a queue for each task that its head supports.
pub struct Model {
    /// The name that clients use.
    pub name: String,
    /// Another accepted name: the command-line argument.
    alias: String,
    /// The model's configuration.
    pub config: BertConfig,
    /// The tokenizer with which the model reads texts, without truncation.
    pub tokenizer: Tokenizer,
    /// Embeds texts. Present if the model has no task head, or a masked-LM head.
    pub embed: Option<Arc<Batcher<EmbeddingProcessor>>>,
    /// Scores labels. Present if the model is a sequence classifier.
    pub classify: Option<Arc<Batcher<ScoreProcessor>>>,
    /// Scores pairs. Present if the model is a cross-encoder or has a next-sentence head, and can read pairs.
    pub rank: Option<Arc<Batcher<PairProcessor>>>,
    /// Tags words. Present if the model is a token classifier.
    pub tag: Option<Arc<Batcher<TaggingProcessor>>>,
    /// Answers questions. Present if the model has a question-answering head.
    pub answer: Option<Arc<Batcher<QuestionProcessor>>>,
    /// Fills masks. Present if the model has a masked-LM head.
    pub fill: Option<Arc<Batcher<MaskProcessor>>>,
    /// Chooses among continuations. Present if the model has a multiple-choice head.
    pub choose: Option<Arc<Batcher<ChoiceProcessor>>>,
}

/// Maximum number of candidate answers per question.
pub const N_BEST: usize = 20;

impl Model {
    /// The model's class in transformers, as named in its configuration.
    pub fn architecture(&self) -> &str {
        self.config.architectures.as_deref().and_then(|names| names.first()).map_or("BertModel", String::as_str)
    }

    /// Maximum length in tokens that the model reads at once.
    pub fn max_input_length(&self) -> usize {
        let embed = self.embed.as_ref().and_then(|batcher| longest(batcher.pipeline().processor()));
        let classify = self.classify.as_ref().and_then(|batcher| longest(batcher.pipeline().processor()));
        let rank = self.rank.as_ref().and_then(|batcher| longest(batcher.pipeline().processor()));
        embed.or(rank).or(classify).unwrap_or(self.config.max_position_embeddings)
    }

    /// Checks that the model can read text pairs.
    ///
    /// # Errors
    /// If the model has only one token type.
    pub fn check_reads_pairs(&self) -> Result<()> {
        self.tokenizer.check_fits_pairs(&self.config)
    }

    /// The routes that this model supports.
    pub fn routes(&self) -> Vec<&'static str> {
        let table: [(bool, &[&str]); 8] = [
            (self.embed.is_some(), &["/v1/embeddings", "/embed", "/similarity"]),
            (self.classify.is_some(), &["/predict"]),
            (self.rank.is_some(), &["/rerank"]),
            (self.tag.is_some(), &["/tag"]),
            (self.answer.is_some(), &["/answer"]),
            (self.fill.is_some(), &["/fill-mask"]),
            (self.choose.is_some(), &["/choose"]),
            (true, &["/tokenize"]),
        ];
        table.iter().filter(|(has, _)| *has).flat_map(|(_, routes)| routes.iter().copied()).collect()
    }

    /// How well a name fits: 0 if it is the model's, 1 its argument on the command line, 2 the last part of its name.
    fn distance(&self, name: &str) -> Option<usize> {
        let names = [Some(self.name.as_str()), Some(self.alias.as_str()), self.name.rsplit('/').next()];
        names.iter().position(|own| *own == Some(name))
    }

    fn cannot(&self, route: &str) -> String {
        let routes = self.routes().join(", ");
        format!("the model `{}` ({}) does not support {route}; it supports {routes}", self.name, self.architecture())
    }
}

fn longest(processor: &impl Processor) -> Option<usize> {
    processor.tokenizer().max_length()
}

/// All models, in command-line order.
pub struct Models(Vec<Arc<Model>>);

impl Models {
    /// Iterates over the models.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.0.iter()
    }

    /// Picks the model that a request names (the one whose name fits best) or, without a name, the first one that
    /// supports `route`.
    ///
    /// # Errors
    /// If no model has this name, or no candidate supports the route.
    pub fn pick(
        &self,
        name: Option<&str>,
        route: &str,
        answers: impl Fn(&Model) -> bool,
    ) -> Result<&Arc<Model>, ApiError> {
        let distance = |model: &Model| name.map_or(Some(0), |name| model.distance(name));
        let best = self.0.iter().filter_map(|model| distance(model)).min();
        let named: Vec<&Arc<Model>> = self.0.iter().filter(|model| best.is_some() && distance(model) == best).collect();
        if let (Some(name), []) = (name, &named[..]) {
            let names: Vec<&str> = self.0.iter().map(|model| model.name.as_str()).collect();
            return Err(ApiError::not_found(format!("no model `{name}`; available: {}", names.join(", "))));
        }
        let cannot = || named.iter().map(|model| model.cannot(route)).collect::<Vec<_>>().join("; ");
        named.iter().find(|model| answers(model)).copied().ok_or_else(|| ApiError::invalid(cannot()))
    }
}

/// Opens models for one device and one scheduler.
pub struct Opener<'a> {
    pub device: &'a Device,
    pub precision: Precision,
    pub limits: BatchLimits,
    pub scheduler: &'a Arc<Scheduler>,
    pub metrics: &'a Metrics,
    sources: Vec<Arc<dyn Source>>,
    warnings: Vec<String>,
}

impl<'a> Opener<'a> {
    /// Creates an opener that has not opened any model.
    pub fn new(
        (device, precision): (&'a Device, Precision),
        limits: BatchLimits,
        scheduler: &'a Arc<Scheduler>,
        metrics: &'a Metrics,
    ) -> Self {
        Self { device, precision, limits, scheduler, metrics, sources: Vec::new(), warnings: Vec::new() }
    }

    /// Opens all models of a command line and starts the threads that run them. Also returns the warnings of their
    /// pipelines.
    ///
    /// # Errors
    /// If a directory does not contain a model, two models have the same name, or the system cannot start threads.
    pub fn open_all(mut self, arguments: &[String]) -> Result<(Models, Vec<String>)> {
        let mut models: Vec<Arc<Model>> = Vec::new();
        for argument in arguments {
            let (name, directory) = name_and_directory(argument);
            if models.iter().any(|model| model.name == name) {
                let advice = "give one of them another name: --model NAME=DIR";
                return Err(Error::Usage(format!("--model: two models are called `{name}`; {advice}")));
            }
            let directory = model_directory(&directory, false)?;
            models.push(Arc::new(self.open(name, argument, &directory)?));
        }
        self.scheduler.start(self.sources)?;
        Ok((Models(models), self.warnings))
    }

    fn open(&mut self, name: String, argument: &str, directory: &Path) -> Result<Model> {
        let checkpoint = Checkpoint::open(directory)?;
        let mut model = Model {
            alias: argument.to_string(),
            config: checkpoint.config.clone(),
            tokenizer: checkpoint.tokenizer.clone(),
            embed: None,
            classify: None,
            rank: None,
            tag: None,
            answer: None,
            fill: None,
            choose: None,
            name,
        };
        match Head::of(&checkpoint) {
            Head::None => model.embed = Some(self.serve(&model.name, self.build(&checkpoint)?)),
            Head::Masks => {
                let filler = self.build::<MaskProcessor>(&checkpoint)?;
                let embedder = self.embedder_around(filler.model().bert.clone(), &checkpoint)?;
                let has = |tensor: &str| checkpoint.weights.shape(tensor).is_some();
                if has(NEXT_SENTENCE) && has("pooler.dense.weight") && model.check_reads_pairs().is_ok() {
                    let ranker = self.ranker_around(filler.model().bert.clone(), &checkpoint)?;
                    model.rank = Some(self.serve(&model.name, ranker));
                }
                model.fill = Some(self.serve(&model.name, filler));
                model.embed = Some(self.serve(&model.name, embedder));
            }
            Head::Classes => {
                let classifier = self.build::<ScoreProcessor>(&checkpoint)?;
                let (is_cross_encoder, shared) =
                    (classifier.processor().labels().len() == 1, classifier.model().clone());
                if is_cross_encoder && model.check_reads_pairs().is_ok() {
                    let ranker = self.builder().build_with(&checkpoint, shared)?;
                    model.rank = Some(self.serve(&model.name, ranker));
                }
                model.classify = Some(self.serve(&model.name, classifier));
            }
            Head::NextSentence => model.rank = Some(self.serve(&model.name, self.build(&checkpoint)?)),
            Head::Tags => model.tag = Some(self.serve(&model.name, self.build(&checkpoint)?)),
            Head::Answers => {
                let pipeline = self.builder::<QuestionProcessor>().candidates(N_BEST).build(&checkpoint)?;
                model.answer = Some(self.serve(&model.name, pipeline));
            }
            Head::Choices => model.choose = Some(self.serve(&model.name, self.build(&checkpoint)?)),
        }
        if model.embed.as_ref().is_some_and(|embed| embed.pipeline().description().lowercase) {
            model.tokenizer = model.tokenizer.lowercasing()?;
        }
        Ok(model)
    }

    /// An embedder that shares an encoder's weights, unless the directory adds dense layers of its own.
    fn embedder_around(&self, bert: BertModel, checkpoint: &Checkpoint) -> Result<TextEmbedder> {
        if checkpoint.sentence_transformer()?.is_some() {
            return self.build(checkpoint);
        }
        let encoder = SentenceEncoder { bert, dense: Vec::new() };
        self.builder().build_with(checkpoint, encoder)
    }

    /// A scorer of pairs with the checkpoint's next-sentence head, which shares an encoder's weights.
    fn ranker_around(&self, bert: BertModel, checkpoint: &Checkpoint) -> Result<PairScorer> {
        let mut model = self.build::<PairProcessor>(checkpoint)?.model().clone();
        model.bert = BertModel { pooler: model.bert.pooler, ..bert };
        self.builder().build_with(checkpoint, model)
    }

    fn builder<P: FromCheckpoint>(&self) -> Builder<P> {
        Builder::default().device(self.device.clone()).precision(self.precision)
    }

    fn build<P: FromCheckpoint>(&self, checkpoint: &Checkpoint) -> Result<Pipeline<P>> {
        self.builder().build(checkpoint)
    }

    /// Creates the queue of a pipeline and registers it with the scheduler.
    fn serve<P>(&mut self, name: &str, pipeline: Pipeline<P>) -> Arc<Batcher<P>>
    where
        P: Processor<Input: 'static, Output: 'static> + 'static,
    {
        self.warnings.extend(pipeline.warning().map(|warning| format!("{name}: {warning}")));
        let metrics = self.metrics.of_model(name);
        let batcher = Arc::new(Batcher::new(pipeline, self.limits, self.scheduler.clone(), metrics));
        self.sources.push(Arc::new(batcher.clone()));
        batcher
    }
}

/// A tensor of the next-sentence head.
const NEXT_SENTENCE: &str = "cls.seq_relationship.weight";

/// The head of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    None,
    Masks,
    NextSentence,
    Classes,
    Tags,
    Answers,
    Choices,
}

impl Head {
    /// Detects the head from the class that saved the weights, otherwise from the names of the head's tensors.
    fn of(checkpoint: &Checkpoint) -> Self {
        let named = [
            ("ForMaskedLM", Self::Masks),
            ("ForPreTraining", Self::Masks),
            ("ForNextSentencePrediction", Self::NextSentence),
            ("ForSequenceClassification", Self::Classes),
            ("ForTokenClassification", Self::Tags),
            ("ForQuestionAnswering", Self::Answers),
            ("ForMultipleChoice", Self::Choices),
        ];
        let tensors = [
            ("cls.predictions.bias", Self::Masks),
            (NEXT_SENTENCE, Self::NextSentence),
            ("classifier.weight", Self::Classes),
            ("qa_outputs.weight", Self::Answers),
        ];
        match checkpoint.config.architectures.as_deref() {
            Some(architectures @ [_, ..]) => {
                let is = |ending: &str| architectures.iter().any(|name| name.ends_with(ending));
                named.into_iter().find(|(ending, _)| is(ending)).map_or(Self::None, |(_, head)| head)
            }
            _ => {
                let has = |tensor: &str| checkpoint.weights.shape(tensor).is_some();
                tensors.into_iter().find(|(tensor, _)| has(tensor)).map_or(Self::None, |(_, head)| head)
            }
        }
    }
}

/// The name and path of a model on the command line: `DIR` is named after its folder, `NAME=DIR` is called `NAME`, and
/// a name on the Hugging Face Hub is kept, without its revision.
fn name_and_directory(argument: &str) -> (String, PathBuf) {
    let path = Path::new(argument);
    if let Ok(whole) = path.canonicalize() {
        let name = whole.file_name().map_or(argument.into(), |name| name.to_string_lossy());
        return (name.into_owned(), path.into());
    }
    match argument.split_once('=') {
        Some((name, directory)) if !name.is_empty() => (name.into(), directory.into()),
        _ => (argument.split('@').next().unwrap_or(argument).into(), path.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_after_its_folder_or_as_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mini");
        std::fs::create_dir(&path).unwrap();
        let name = |argument: &str| name_and_directory(argument).0;
        assert_eq!(name(path.to_str().unwrap()), "mini");
        assert_eq!(name(&format!("{}/", path.display())), "mini");
        assert_eq!(name_and_directory("ours=some/where"), ("ours".to_string(), "some/where".into()));
        assert_eq!(name_and_directory("owner/name@main"), ("owner/name".to_string(), "owner/name@main".into()));
        let odd = directory.path().join("a=b");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(name(odd.to_str().unwrap()), "a=b");
    }
}
