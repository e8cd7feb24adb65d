//! The data before the first step: tokenizer, tokenized corpus, held-out documents, and the order of
//! examples.

use std::collections::BTreeMap;
use std::path::Path;

use bert_cli::input::kind::{FileKind, Format};
use bert_model::file::replace_file;
use bert_model::text::tokenizer::Normalization;
use bert_model::{Error, Result, Tokenizer};
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

/// Tags that keep the run's random streams independent.
const SPLIT: u64 = 11;
const PHASE_2: u64 = 12;
const EVALUATION: u64 = 13;

/// The training and evaluation data of a run.
#[derive(Debug)]
pub struct PreparedData {
    /// The tokenizer, given or learned from the corpus.
    pub tokenizer: Tokenizer,
    /// The tokenized corpus.
    store: Store,
    /// Which documents of the corpus are held out.
    split: Split,
    /// The evaluation examples.
    pub held_out: Vec<PretrainingExample>,
    /// Description of the data, for `run.json`.
    pub facts: Value,
    /// Hash of the corpora's content and the tokenizer, which must be unchanged when a run resumes.
    pub fingerprint: String,
}

/// The two phases of the paper's pretraining: first short sequences, then long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Sequences of at most `--max-seq-len` tokens.
    First,
    /// Sequences of at most `--phase2-seq-len` tokens.
    Second,
}

/// Opens the corpus, loads or learns the tokenizer, tokenizes, and holds out documents.
///
/// # Errors
/// If a file is missing, malformed or cannot be written.
pub fn prepare(settings: &PretrainSettings, directory: &RunDirectory, quiet: bool) -> Result<PreparedData> {
    let say = |line: String| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    let corpus = open_corpus(settings, directory)?;
    let tokenizer = match (&settings.tokenizer, &settings.init) {
        (Some(path), _) | (None, Some(path)) => given_tokenizer(path, settings)?,
        (None, None) => learn_tokenizer(settings, &corpus, directory, &say)?,
    };
    say(format!("vocabulary: {} WordPieces", tokenizer.vocab_size()));

    let corpus = Tokenized::build("corpus.tokens", &corpus, &tokenizer, settings, directory)?;
    let CorpusStats { documents, sentences, tokens, unknown } = corpus.store.stats();
    say(format!("corpus: {documents} documents, {sentences} sentences, {tokens} tokens, {unknown} of them unknown"));
    let eval_corpus = match settings.eval_corpus.is_empty() {
        true => None,
        false => {
            let files = Corpus::open(&settings.eval_corpus)?;
            Some(Tokenized::build("eval.tokens", &files, &tokenizer, settings, directory)?)
        }
    };
    let share = if eval_corpus.is_some() { 0.0 } else { settings.eval_share };
    let split = Split::new(documents, share, mix(&[settings.seed, SPLIT]));
    let held_out = held_out_examples(settings, &tokenizer, &corpus.store, eval_corpus.as_ref(), split)?;
    let facts = json!({
        "corpus": corpus.files,
        "eval_corpus": eval_corpus.as_ref().map(|corpus| &corpus.files),
        "documents": documents,
        "held_out_documents": split.len(Subset::HeldOut),
        "held_out_examples": held_out.len(),
        "held_out_unigram_entropy": unigram_entropy(&held_out),
        "sentences": sentences,
        "tokens": tokens,
        "unknown_tokens": unknown,
        "vocabulary": tokenizer.vocab_size(),
    });
    let fingerprint = corpus.fingerprint + &eval_corpus.map(|corpus| corpus.fingerprint).unwrap_or_default();
    Ok(PreparedData { tokenizer, store: corpus.store, split, held_out, facts, fingerprint })
}

/// The corpus of the settings; the built-in sample is written into the run directory first.
fn open_corpus(settings: &PretrainSettings, directory: &RunDirectory) -> Result<Corpus> {
    if !settings.corpus.is_empty() {
        return Corpus::open(&settings.corpus);
    }
    let path = directory.file("sample.txt");
    replace_file(&path, sample::corpus(SAMPLE_DOCUMENTS, settings.seed).as_bytes())?;
    Corpus::open(&[path])
}

/// A corpus as tokens on disk.
struct Tokenized {
    store: Store,
    /// Name, size and hash of each of its files.
    files: Value,
    /// Of the files' content and of how they are tokenized.
    fingerprint: String,
}

impl Tokenized {
    /// Tokenizes a corpus into a file of the run directory, unless that is there already.
    fn build(
        name: &str,
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        settings: &PretrainSettings,
        directory: &RunDirectory,
    ) -> Result<Self> {
        let sentences = settings.data.sentences;
        let files = describe_files(corpus)?;
        let fingerprint = fingerprint_of(&files, tokenizer, sentences)?;
        let store = Store::build(&directory.file(name), corpus, tokenizer, sentences, &fingerprint)?;
        Ok(Self { store, files, fingerprint })
    }
}

/// The examples by which the model is evaluated: of the evaluation corpus, or else of the documents set aside.
fn held_out_examples(
    settings: &PretrainSettings,
    tokenizer: &Tokenizer,
    store: &Store,
    eval_corpus: Option<&Tokenized>,
    split: Split,
) -> Result<Vec<PretrainingExample>> {
    let maker = example_maker(&settings.data, settings.data.max_seq_len, tokenizer);
    let (store, split, part) = match eval_corpus {
        Some(corpus) => (&corpus.store, Split::new(corpus.store.stats().documents, 0.0, 0), Subset::Training),
        None if split.len(Subset::HeldOut) > 0 => (store, split, Subset::HeldOut),
        None => return Ok(Vec::new()),
    };
    evaluation_examples(store, split, part, maker, settings.seed, settings.eval_examples)
}

/// Loads the tokenizer that the user passed. A bare vocabulary does not say whether it is cased;
/// `--cased` decides.
fn given_tokenizer(path: &Path, settings: &PretrainSettings) -> Result<Tokenizer> {
    let is_json = FileKind::of(path) == FileKind { format: Some(Format::Json), compression: None };
    let is_bare = path.is_file() && !is_json && !path.with_file_name("tokenizer_config.json").exists();
    let tokenizer = match is_bare {
        true => Tokenizer::from_vocab_file(path, Normalization::new(!settings.cased))?,
        false => Tokenizer::load(path)?,
    };
    if settings.cased && tokenizer.normalization().lowercase {
        return Err(Error::Mismatch {
            left: "--cased".into(),
            right: format!("the uncased tokenizer of {}", path.display()),
            advice: "omit --cased, or use another tokenizer".into(),
        });
    }
    Ok(tokenizer)
}

/// Learns a tokenizer from the corpus, or loads the one that a resumed run has already learned.
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

/// Path, size and SHA-256 of each file, for `run.json`.
fn describe_files(corpus: &Corpus) -> Result<Value> {
    let describe = |file: &crate::corpus::CorpusFile| {
        let sha256 = sha256_of(&file.path)?;
        Ok(json!({"path": file.path.display().to_string(), "bytes": file.bytes, "sha256": sha256}))
    };
    corpus.files().iter().map(describe).collect::<Result<Vec<_>>>().map(Value::from)
}

/// Hash of the files' content, independent of their paths, and of how they are tokenized.
fn fingerprint_of(files: &Value, tokenizer: &Tokenizer, mode: SentenceMode) -> Result<String> {
    let mut hasher = Sha256::new();
    for file in files.as_array().into_iter().flatten() {
        hasher.update(file["sha256"].to_string());
    }
    hasher.update(tokenizer.to_json()?);
    hasher.update(format!("{mode:?}"));
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes the tokenized corpus, which a finished run no longer needs.
///
/// # Errors
/// If a file cannot be removed.
pub fn remove_cache(directory: &Path) -> Result<()> {
    for name in ["corpus.tokens", "eval.tokens"] {
        let path = directory.join(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// Creates the builder of training examples from the settings.
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

/// The evaluation examples: one pass over the documents, identical in every run with this seed.
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

/// Unigram baseline: the entropy of the masked tokens, in nats.
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

/// The steps of a phase, starting from a checkpoint's position in the data (null for the start).
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
            .map_err(|error| Error::Setting(format!("the checkpoint's position in the data: {error}")))?,
    };
    let stream = training_stream(settings, data, phase, cursor)?;
    Ok(TrainingSource { stream, batch_size: settings.batch_size, accumulate: settings.accumulate })
}

/// Number of steps: as set, or as many as the epochs contain.
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

#[cfg(test)]
mod tests;
