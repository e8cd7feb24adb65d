//! Prepares the data of a run before the first step: tokenizer, tokenized corpus, and evaluation examples.

use std::path::Path;

use bert_cli::input::kind::{FileKind, Format};
use bert_model::file::replace_file;
use bert_model::text::tokenizer::Normalization;
use bert_model::{Error, Result, Tokenizer};
use bert_train::RunDirectory;
use bert_train::checkpoint::sha256_of;
use bert_train::permutation::mix;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::advice;
use crate::corpus::{Corpus, SentenceMode};
use crate::examples::{ExampleMaker, NspMode, PretrainingExample};
use crate::held_out::{HeldOutShare, hold_out, unigram_loss};
use crate::masking::Masking;
use crate::objective::only_label;
use crate::sample;
use crate::settings::{DataSettings, PretrainSettings, SAMPLE_DOCUMENTS};
use crate::split::{Split, Subset};
use crate::store::{CorpusStats, Store};
use crate::stream::{Cursor, ExampleStream};
use crate::vocabulary;

/// Tag that keeps this random stream independent of the run's others.
const EVALUATION: u64 = 13;

/// The training and evaluation data of a run.
#[derive(Debug)]
pub struct PreparedData {
    /// The tokenizer, either given or learned from the corpus.
    pub tokenizer: Tokenizer,
    /// The tokenized corpus.
    pub(crate) store: Store,
    /// The tokenized evaluation corpus, if there is one.
    pub(crate) eval_store: Option<Store>,
    /// Which documents of the corpus are held out.
    pub(crate) split: Split,
    /// The evaluation examples.
    pub held_out: Vec<PretrainingExample>,
    /// The baseline loss to compare the evaluation with; see [`unigram_loss`].
    pub unigram_loss: Option<f64>,
    /// Description of the data, for `run.json`.
    pub facts: Value,
    /// Hash of the corpora's content and the tokenizer, which must not change when a run is resumed.
    pub fingerprint: String,
}

impl PreparedData {
    /// The number of tokens of the training documents.
    pub fn training_tokens(&self) -> u64 {
        let count = |name: &str| self.facts[name].as_u64().unwrap_or(0);
        count("tokens").saturating_sub(count("held_out_tokens"))
    }
}

/// Opens the corpus, learns the tokenizer unless one is `given`, tokenizes, and holds out documents. The data of a
/// resumed run must be the data that its `run.json` describes; otherwise nothing is written.
///
/// # Errors
/// If a file is missing, malformed or cannot be written, or the data of a resumed run has changed.
pub fn prepare(
    settings: &PretrainSettings,
    given: Option<Tokenizer>,
    directory: &RunDirectory,
    quiet: bool,
) -> Result<PreparedData> {
    let say = |line: String| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    let mut corpus = open_corpus(settings, directory)?;
    let eval_corpus = match settings.eval_corpus.is_empty() {
        true => None,
        false => Some(texts(&settings.eval_corpus, settings)?),
    };
    if let Some(eval_corpus) = &eval_corpus {
        let left_out;
        (corpus, left_out) = corpus.without(eval_corpus)?;
        if left_out > 0 {
            say(format!("--eval-corpus: {left_out} of its files are also in --corpus, and are not trained on"));
        }
    }
    let tokenizer = given.map_or_else(|| learn_tokenizer(settings, &corpus, directory, &say), Ok)?;
    say(format!("vocabulary: {} WordPieces", tokenizer.vocab_size()));
    let mode = settings.data.sentences;
    let corpus = Described::new("corpus.tokens", corpus, &tokenizer, mode)?;
    let described = |corpus| Described::new("eval.tokens", corpus, &tokenizer, mode);
    let eval_corpus = eval_corpus.map(described).transpose()?;
    let described = [Some(&corpus), eval_corpus.as_ref()].into_iter().flatten();
    let fingerprint: String = described.map(|corpus| corpus.fingerprint.as_str()).collect();
    directory.check_settings(&json!({"data_sha256": fingerprint}))?;

    let store = corpus.tokenize(&tokenizer, mode, directory)?;
    let eval_store = eval_corpus.as_ref().map(|corpus| corpus.tokenize(&tokenizer, mode, directory)).transpose()?;
    let stats = store.stats();
    let share = if eval_store.is_some() { 0.0 } else { settings.eval_share };
    let (store, split, set_aside) = hold_out(store, share, settings, &tokenizer, (directory, &corpus.fingerprint))?;
    let held_out = held_out_examples(settings, &tokenizer, &store, eval_store.as_ref(), split)?;
    let unigram_loss = unigram_loss(&store, split, &held_out, tokenizer.vocabulary().len())?;
    corpus.corpus.wrapped_note().into_iter().for_each(&say);
    tell_corpus(settings, stats, &set_aside, &held_out, &say);
    let facts = json!({
        "corpus": corpus.files,
        "eval_corpus": eval_corpus.as_ref().map(|corpus| &corpus.files),
        "documents": stats.documents,
        "hard_wrapped_files": corpus.corpus.files().iter().filter(|file| file.is_wrapped).count(),
        "held_out_documents": set_aside.documents,
        "held_out_tokens": set_aside.tokens,
        "held_out_examples": held_out.len(),
        "held_out_unigram_loss": unigram_loss,
        "sentences": stats.sentences,
        "tokens": stats.tokens,
        "unknown_tokens": stats.unknown,
        "vocabulary": tokenizer.vocab_size(),
    });
    Ok(PreparedData { tokenizer, store, eval_store, split, held_out, unigram_loss, facts, fingerprint })
}

/// Reports the size of the corpus and the held-out part, with advice.
fn tell_corpus(
    settings: &PretrainSettings,
    stats: CorpusStats,
    set_aside: &HeldOutShare,
    held_out: &[PretrainingExample],
    say: &impl Fn(String),
) {
    let CorpusStats { documents, sentences, tokens, unknown } = stats;
    let set_aside = set_aside.describe().map_or(String::new(), |set_aside| format!("; {set_aside}"));
    say(format!(
        "corpus: {documents} documents, {sentences} sentences, {tokens} tokens, {unknown} of them unknown{set_aside}"
    ));
    let no_accuracy =
        (settings.data.nsp_mode != NspMode::Off).then(|| advice::no_accuracy(only_label(held_out))).flatten();
    let lines = [
        advice::nothing_held_out(settings, documents, held_out.len()),
        no_accuracy,
        advice::little_text(settings, tokens),
    ];
    lines.into_iter().flatten().for_each(say);
}

/// Opens a corpus, without the tokenizer's vocabulary if that is among the texts.
fn texts(paths: &[String], settings: &PretrainSettings) -> Result<Corpus> {
    let corpus = Corpus::open(paths)?;
    Ok(settings.tokenizer.iter().fold(corpus, |corpus, path| corpus.without_vocabulary(path)))
}

/// Opens the configured corpus; the built-in sample is first written into the run directory.
fn open_corpus(settings: &PretrainSettings, directory: &RunDirectory) -> Result<Corpus> {
    if !settings.corpus.is_empty() {
        return texts(&settings.corpus, settings);
    }
    let path = directory.file("sample.txt");
    replace_file(&path, sample::corpus(SAMPLE_DOCUMENTS, settings.seed).as_bytes())?;
    Corpus::open(&[path])
}

/// A corpus with the hashes of its files.
struct Described {
    /// The name of the file with its tokens in the run directory.
    name: &'static str,
    corpus: Corpus,
    /// Path, size and hash of each file.
    files: Value,
    /// Hash of the files' content and of how they are tokenized.
    fingerprint: String,
}

impl Described {
    fn new(name: &'static str, corpus: Corpus, tokenizer: &Tokenizer, mode: SentenceMode) -> Result<Self> {
        let corpus = corpus.with_sentences(mode);
        let files = describe_files(&corpus)?;
        let fingerprint = fingerprint_of(&corpus, &files, tokenizer, mode)?;
        Ok(Self { name, corpus, files, fingerprint })
    }

    /// Tokenizes the corpus into a file in the run directory, unless that file already exists.
    fn tokenize(&self, tokenizer: &Tokenizer, mode: SentenceMode, directory: &RunDirectory) -> Result<Store> {
        Store::build(&directory.file(self.name), &self.corpus, tokenizer, mode, &self.fingerprint)
    }
}

/// The evaluation examples, as long as the longest of training: from the evaluation corpus, or otherwise from the
/// held-out documents.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub(crate) fn held_out_examples(
    settings: &PretrainSettings,
    tokenizer: &Tokenizer,
    store: &Store,
    eval_store: Option<&Store>,
    split: Split,
) -> Result<Vec<PretrainingExample>> {
    let maker = example_maker(&settings.data.of_evaluation(), settings.longest(), tokenizer)?;
    let (store, split, part) = match eval_store {
        Some(store) => (store, Split::at(store.stats().documents, store.stats().documents), Subset::Training),
        None if split.len(Subset::HeldOut) > 0 => (store, split, Subset::HeldOut),
        None => return Ok(Vec::new()),
    };
    evaluation_examples(store, split, part, maker, settings.seed, settings.eval_examples)
}

/// Loads the tokenizer that the user passed, or that of the model to start from; `None` if one is to be learned. A bare
/// vocabulary does not record whether it is cased; `--cased` decides.
///
/// # Errors
/// If it cannot be read, has no mask token, or does not fit `--cased`.
pub fn given_tokenizer(settings: &PretrainSettings) -> Result<Option<Tokenizer>> {
    let Some(path) = settings.tokenizer.as_ref().or(settings.init.as_ref()) else { return Ok(None) };
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
    tokenizer.warnings().iter().for_each(|warning| eprintln!("warning: {}: {warning}", path.display()));
    tokenizer.mask()?;
    Ok(Some(tokenizer))
}

/// Learns a tokenizer from the corpus, or loads the one that a resumed run has already learned. Before there is a
/// `run.json`, it may have been learned with other options.
fn learn_tokenizer(
    settings: &PretrainSettings,
    corpus: &Corpus,
    directory: &RunDirectory,
    say: &impl Fn(String),
) -> Result<Tokenizer> {
    if directory.file("run.json").exists() && directory.file("tokenizer.json").exists() {
        return Tokenizer::load(directory.path());
    }
    let configured = || settings.model_config().map(|(config, _)| config.vocab_size);
    let size = settings.vocab_size.map_or_else(configured, Ok)?;
    say(format!("learning a vocabulary of {size} WordPieces"));
    let vocabulary = vocabulary::learn(corpus, size, settings.cased)?;
    vocabulary::fewer_than(size, vocabulary.len()).into_iter().for_each(say);
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
fn fingerprint_of(corpus: &Corpus, files: &Value, tokenizer: &Tokenizer, mode: SentenceMode) -> Result<String> {
    let mut hasher = Sha256::new();
    for (file, described) in corpus.files().iter().zip(files.as_array().into_iter().flatten()) {
        hasher.update(described["sha256"].to_string());
        hasher.update([u8::from(file.is_wrapped)]);
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
    for name in ["corpus.tokens", "split.tokens", "eval.tokens"] {
        let path = directory.join(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// Creates the example maker from the settings.
///
/// # Errors
/// If the tokenizer has no `[MASK]`.
pub fn example_maker(data: &DataSettings, max_length: usize, tokenizer: &Tokenizer) -> Result<ExampleMaker> {
    Ok(ExampleMaker {
        max_length,
        short_probability: data.short_seq_prob,
        nsp: data.nsp_mode,
        masking: Masking {
            probability: data.mask_prob,
            max_predictions: data.max_predictions(max_length),
            continuations: if data.whole_word_mask { tokenizer.continuations() } else { Vec::new() },
            special: tokenizer.special(),
            mask: tokenizer.mask()?,
            vocab_size: tokenizer.vocabulary().len() as u32,
        },
    })
}

/// The evaluation examples: one pass over the documents, the same in every run with this seed.
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
    evaluation_stream(store, split, part, maker, seed)?.rest_of_epoch(limit)
}

/// The stream of examples for evaluation.
///
/// # Errors
/// If the tokenized corpus cannot be read.
pub fn evaluation_stream(
    store: &Store,
    split: Split,
    part: Subset,
    maker: ExampleMaker,
    seed: u64,
) -> Result<ExampleStream> {
    let seed = mix(&[seed, EVALUATION]);
    ExampleStream::new(store.reader()?, split, part, maker, seed, None, Cursor::default())
}

#[cfg(test)]
mod tests;
