//! Everything before the first step: the tokenizer, the tokenized corpus, the documents that are set aside, the order of
//! the examples, and the weights to begin with.

use std::collections::BTreeMap;
use std::path::Path;

use bert_model::file::replace_file;
use bert_model::text::tokenizer::Normalization;
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer, load_partial};
use bert_train::checkpoint::sha256_of;
use bert_train::permutation::mix;
use bert_train::{RunDirectory, StepSource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::corpus::Corpus;
use crate::corpus::SentenceMode;
use crate::examples::{ExampleMaker, PretrainingExample};
use crate::masking::Masking;
use crate::sample;
use crate::settings::{DataSettings, PretrainSettings, SAMPLE_DOCUMENTS};
use crate::store::{CorpusStats, Split, Store, Subset};
use crate::stream::{Cursor, ExampleStream, MicroBatch, TrainingSource};
use crate::vocabulary;

/// Tags that keep streams of random numbers apart.
const SPLIT: u64 = 11;
const PHASE_2: u64 = 12;
const EVALUATION: u64 = 13;
const WEIGHTS: u64 = 14;

/// Everything that is learned from and judged by.
#[derive(Debug)]
pub struct PreparedData {
    /// Found or learned.
    pub tokenizer: Tokenizer,
    /// The tokenized corpus.
    store: Store,
    /// Which of its documents are set aside.
    split: Split,
    /// Their examples.
    pub held_out: Vec<PretrainingExample>,
    /// For `run.json`.
    pub facts: Value,
    /// A hash of the corpora's content and the tokenizer: what a resumed run must find as it was.
    pub fingerprint: String,
}

/// The two phases of the paper's pretraining: short sequences, then long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `--max-seq-len`.
    First,
    /// `--phase2-seq-len`.
    Second,
}

/// Opens the corpus, finds or learns the tokenizer, tokenizes, and sets documents aside.
///
/// # Errors
/// What is wrong with the files.
pub fn prepare(settings: &PretrainSettings, directory: &RunDirectory, quiet: bool) -> Result<PreparedData> {
    let say = |line: String| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    let paths = if settings.corpus.is_empty() {
        let path = directory.file("sample.txt");
        replace_file(&path, sample::corpus(SAMPLE_DOCUMENTS, settings.seed).as_bytes())?;
        vec![path.display().to_string()]
    } else {
        settings.corpus.clone()
    };
    let corpus = Corpus::open(&paths)?;
    let tokenizer = match (&settings.tokenizer, &settings.init) {
        (Some(path), _) | (None, Some(path)) => given_tokenizer(path, settings)?,
        (None, None) => learn_tokenizer(settings, &corpus, directory, &say)?,
    };
    say(format!("vocabulary: {} WordPieces", tokenizer.vocab_size()));

    let files = describe_files(&corpus)?;
    let mut fingerprint = fingerprint_of(&files, &tokenizer, settings.data.sentences)?;
    let build = |name: &str, corpus: &Corpus, fingerprint: &str| {
        Store::build(&directory.file(name), corpus, &tokenizer, settings.data.sentences, fingerprint)
    };
    let store = build("corpus.tokens", &corpus, &fingerprint)?;
    let CorpusStats { documents, sentences, tokens, unknown } = store.stats();
    say(format!("corpus: {documents} documents, {sentences} sentences, {tokens} tokens, {unknown} of them unknown"));

    let (eval_store, eval_files, share) = if settings.eval_corpus.is_empty() {
        (None, Value::Null, settings.eval_share)
    } else {
        let corpus = Corpus::open(&settings.eval_corpus)?;
        let files = describe_files(&corpus)?;
        let own = fingerprint_of(&files, &tokenizer, settings.data.sentences)?;
        let store = build("eval.tokens", &corpus, &own)?;
        fingerprint += &own;
        (Some(store), files, 0.0)
    };
    let split = Split::new(documents, share, mix(&[settings.seed, SPLIT]));
    let maker = example_maker(&settings.data, settings.data.max_seq_len, &tokenizer);
    let all = |store: &Store, split, part| {
        evaluation_examples(store, split, part, maker, settings.seed, settings.eval_examples)
    };
    let held_out = match &eval_store {
        Some(store) => all(store, Split::new(store.stats().documents, 0.0, 0), Subset::Training)?,
        None if split.len(Subset::HeldOut) > 0 => all(&store, split, Subset::HeldOut)?,
        None => Vec::new(),
    };
    let facts = json!({
        "corpus": files,
        "eval_corpus": eval_files,
        "documents": documents,
        "held_out_documents": split.len(Subset::HeldOut),
        "held_out_examples": held_out.len(),
        "held_out_unigram_entropy": unigram_entropy(&held_out),
        "sentences": sentences,
        "tokens": tokens,
        "unknown_tokens": unknown,
        "vocabulary": tokenizer.vocab_size(),
    });
    Ok(PreparedData { tokenizer, store, split, held_out, facts, fingerprint })
}

/// The tokenizer that the user names; only a vocabulary by itself leaves open whether it is cased.
fn given_tokenizer(path: &Path, settings: &PretrainSettings) -> Result<Tokenizer> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let is_bare = path.is_file() && !is_json && !path.with_file_name("tokenizer_config.json").exists();
    let tokenizer = match is_bare {
        true => Tokenizer::from_vocab_file(path, Normalization::new(!settings.cased))?,
        false => Tokenizer::load(path)?,
    };
    if settings.cased && tokenizer.normalization().lowercase {
        return Err(Error::Mismatch {
            left: "--cased".into(),
            right: format!("the uncased tokenizer of {}", path.display()),
            advice: "leave --cased out, or take another tokenizer".into(),
        });
    }
    if let Some(asked) = settings.vocab_size.filter(|&size| size != tokenizer.vocab_size()) {
        eprintln!("warning: {}: no vocabulary is learned, --vocab-size {asked} has no use", path.display());
    }
    Ok(tokenizer)
}

/// A tokenizer from the corpus; a resumed run finds the one that it learned.
fn learn_tokenizer(
    settings: &PretrainSettings,
    corpus: &Corpus,
    directory: &RunDirectory,
    say: &impl Fn(String),
) -> Result<Tokenizer> {
    if directory.file("tokenizer.json").exists() {
        return Tokenizer::load(directory.path());
    }
    let configured = || settings.model_config().map(|(config, _)| config.vocab_size);
    let size = settings.vocab_size.map_or_else(configured, Ok)?;
    say(format!("learning a vocabulary of {size} WordPieces"));
    let vocabulary = vocabulary::learn(corpus, size, settings.cased)?;
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary, Normalization::new(!settings.cased))?;
    tokenizer.save(directory.path(), settings.longest())?;
    Ok(tokenizer)
}

/// Name, size and SHA-256 of every file.
fn describe_files(corpus: &Corpus) -> Result<Value> {
    let describe = |file: &crate::corpus::CorpusFile| {
        let sha256 = sha256_of(&file.path)?;
        Ok(json!({"path": file.path.display().to_string(), "bytes": file.bytes, "sha256": sha256}))
    };
    corpus.files().iter().map(describe).collect::<Result<Vec<_>>>().map(Value::from)
}

/// A hash of the content of files, wherever they lie, and of how they are tokenized.
fn fingerprint_of(files: &Value, tokenizer: &Tokenizer, mode: SentenceMode) -> Result<String> {
    let mut hasher = Sha256::new();
    for file in files.as_array().into_iter().flatten() {
        hasher.update(file["sha256"].to_string());
    }
    hasher.update(tokenizer.to_json()?);
    hasher.update(format!("{mode:?}"));
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes the tokenized corpus, which a finished run has no use for.
///
/// # Errors
/// If it cannot be removed.
pub fn remove_cache(directory: &Path) -> Result<()> {
    for name in ["corpus.tokens", "eval.tokens"] {
        let path = directory.join(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// The constants of making examples.
pub fn example_maker(data: &DataSettings, max_length: usize, tokenizer: &Tokenizer) -> ExampleMaker {
    ExampleMaker {
        max_length,
        short_probability: data.short_seq_prob,
        nsp: data.nsp_mode,
        masking: Masking {
            probability: data.mask_prob,
            max_predictions: data.max_predictions(max_length),
            continuations: if data.whole_word_mask { tokenizer.continuations() } else { Vec::new() },
            special: tokenizer.special(),
            vocab_size: tokenizer.vocabulary().len() as u32,
        },
    }
}

/// The examples of an evaluation: one pass over documents, the same in every run with this seed.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn evaluation_examples(
    store: &Store,
    split: Split,
    part: Subset,
    maker: ExampleMaker,
    seed: u64,
    limit: usize,
) -> Result<Vec<PretrainingExample>> {
    let seed = mix(&[seed, EVALUATION]);
    let mut stream = ExampleStream::new(store.reader()?, split, part, maker, seed, None, Cursor::default())?;
    stream.rest_of_epoch(limit)
}

/// What a model that knows nothing but how frequent words are could at best reach on these examples: the entropy of the
/// hidden tokens, in nats.
fn unigram_entropy(examples: &[PretrainingExample]) -> f64 {
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    for token in examples.iter().flat_map(|example| &example.masked) {
        *counts.entry(token.id).or_default() += 1.0;
    }
    let total: f64 = counts.values().sum();
    counts.values().map(|count| -count / total * (count / total).ln()).sum()
}

fn training_stream(
    settings: &PretrainSettings,
    data: &PreparedData,
    phase: Phase,
    cursor: Cursor,
) -> Result<ExampleStream> {
    let (length, seed) = match phase {
        Phase::First => (settings.data.max_seq_len, settings.seed),
        Phase::Second => (settings.phase2_seq_len, mix(&[settings.seed, PHASE_2])),
    };
    let maker = example_maker(&settings.data, length, &data.tokenizer);
    let reader = data.store.reader()?;
    ExampleStream::new(reader, data.split, Subset::Training, maker, seed, settings.maskings, cursor)
}

/// The steps of a phase, from a checkpoint's place in the data on (null for the beginning).
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn training_source(
    settings: &PretrainSettings,
    data: &PreparedData,
    phase: Phase,
    cursor: &Value,
) -> Result<impl StepSource<Batch = MicroBatch> + use<>> {
    let cursor = match cursor {
        Value::Null => Cursor::default(),
        value => serde_json::from_value(value.clone())
            .map_err(|error| Error::Setting(format!("the checkpoint's place in the data: {error}")))?,
    };
    let stream = training_stream(settings, data, phase, cursor)?;
    Ok(TrainingSource { stream, batch_size: settings.batch_size, accumulate: settings.accumulate })
}

/// The number of steps: as given, or as many as the epochs hold.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn count_steps(settings: &PretrainSettings, data: &PreparedData) -> Result<u64> {
    if let Some(steps) = settings.steps {
        return Ok(steps);
    }
    let mut stream = training_stream(settings, data, Phase::First, Cursor::default())?;
    let examples = stream.count_epoch()? as f64 * settings.epochs;
    let steps = (examples / (settings.batch_size * settings.accumulate) as f64).ceil() as u64;
    Ok(steps.max(1).max(settings.phase2_steps))
}

/// Checks that a model can tell the two sentences of next-sentence prediction apart.
///
/// # Errors
/// If it has one token type only.
pub fn check_pairs(config: &BertConfig) -> Result<()> {
    config.check_pairs().map_err(|error| match error {
        Error::Mismatch { left, right, .. } => {
            let advice = "give one text at a time (--no-nsp), or take a model with two".into();
            Error::Mismatch { left, right, advice }
        }
        other => other,
    })
}

/// The model to begin with, with the configuration that fits the tokenizer.
///
/// # Errors
/// If a weight file is not as it should be, or model, tokenizer and sequence length do not fit.
pub fn initial_model(
    settings: &PretrainSettings,
    tokenizer: &Tokenizer,
    device: &burn::tensor::Device,
) -> Result<(BertForPreTraining, BertConfig)> {
    let seed = mix(&[settings.seed, WEIGHTS]);
    let (model, config) = match &settings.init {
        Some(directory) => {
            let loaded = load_partial::<BertForPreTraining>(directory, seed, device)?;
            if let Some(warning) = loaded.warning() {
                eprintln!("warning: {}: {warning}", directory.display());
            }
            (Some(loaded.model), loaded.config)
        }
        None => {
            let (config, follows_tokenizer) = settings.model_config()?;
            let vocab_size = tokenizer.vocabulary().len();
            let learned_smaller = settings.tokenizer.is_none() && vocab_size < config.vocab_size;
            let fits = if follows_tokenizer || learned_smaller { config.with_vocab_size(vocab_size) } else { config };
            (None, BertConfig { pad_token_id: Some(tokenizer.special().pad as usize), ..fits })
        }
    };
    tokenizer.check_fits(&config)?;
    if settings.data.nsp_mode != crate::examples::NspMode::Off {
        check_pairs(&config)?;
    }
    if settings.longest() > config.max_position_embeddings {
        return Err(Error::Mismatch {
            left: format!("a sequence length of {}", settings.longest()),
            right: format!("a model of {} positions", config.max_position_embeddings),
            advice: "lower --max-seq-len, or take a configuration with more max_position_embeddings".into(),
        });
    }
    let model = model.unwrap_or_else(|| BertForPreTraining::init_seeded(&config, seed, device));
    Ok((model, config))
}
