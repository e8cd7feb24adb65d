//! `bert-pretrain train` and `evaluate`: from the settings to a model directory.

use std::path::Path;
use std::time::Instant;

use bert_model::device::{self, NamedDevice};
use bert_model::pretrained::{replace_file, save_weights, state_dict};
use bert_model::text::tokenizer::Normalisation;
use bert_model::train::checkpoint::sha256_of;
use bert_model::train::{
    Ended, IfExists, Interrupt, Optimizer, Plan, RunDirectory, StepSource, TrainingState, prefetch, train,
};
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer, load};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::corpus::Corpus;
use crate::examples::{Example, ExampleMaker, NspMode};
use crate::masking::Masking;
use crate::objective::{Evaluation, Pretraining};
use crate::settings::{DataSettings, RunSettings, SAMPLE_DOCUMENTS, TrainSettings};
use crate::shuffle::mix;
use crate::store::{Facts, Part, Split, Store};
use crate::stream::{Cursor, ExampleStream, MicroBatch, TrainingSource};
use crate::vocabulary;
use crate::{report, sample};

/// Tags that keep streams of random numbers apart.
const SPLIT: u64 = 11;
const PHASE_2: u64 = 12;
const EVALUATION: u64 = 13;
const WEIGHTS: u64 = 14;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub ended: Ended,
    /// What `--json` prints.
    pub summary: Value,
}

/// Everything that is learned from and judged by.
struct Data {
    tokenizer: Tokenizer,
    store: Store,
    split: Split,
    held_out: Vec<Example>,
    facts: Value,
}

/// Runs `bert-pretrain train`.
///
/// # Errors
/// Whatever can be wrong with the corpus, the files, the device or the numbers.
pub fn run(settings: &TrainSettings, run: &RunSettings, interrupt: &Interrupt) -> Result<Outcome> {
    let started = Instant::now();
    let NamedDevice { name, device } = device::select(&run.device)?;
    if !run.quiet {
        eprintln!("device: {name}");
    }
    // What is wrong with the inputs is said before anything is written.
    for paths in [&settings.corpus, &settings.eval_corpus] {
        if !paths.is_empty() {
            Corpus::open(paths)?;
        }
    }
    let if_exists = run.if_exists.unwrap_or(IfExists::Refuse);
    let mut directory = RunDirectory::open(&run.output, if_exists)?;
    let data = prepare(settings, &directory, run.quiet)?;
    let steps = count_steps(settings, &data)?;
    let (model, config) = initial_model(settings, &data.tokenizer, &device)?;

    let numbers = to_value(settings)?;
    directory.describe(&json!({
        "program": "bert-pretrain",
        "version": env!("CARGO_PKG_VERSION"),
        "settings": numbers,
        "run": to_value(run)?,
        "device": name,
        "steps": steps,
        "model": config,
        "data": data.facts,
    }))?;

    let checkpoints = directory.checkpoints(run.keep)?;
    let optimizer = Optimizer::new(settings.optimizer);
    let mut state = TrainingState { model, optimizer, step: 0, cursor: Value::Null };
    if if_exists == IfExists::Resume {
        match checkpoints.newest()? {
            Some(found) => {
                found.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                found.check_settings(&numbers)?;
                state = found.restore(state.model, &config, Optimizer::new(settings.optimizer), &device)?;
            }
            None => eprintln!("no checkpoint in {}; beginning at step 0", run.output.display()),
        }
        directory.rewind_metrics(state.step)?;
    }

    let mut task = Pretraining {
        device: device.clone(),
        pad_id: data.tokenizer.special().pad,
        with_nsp: settings.data.nsp_mode != NspMode::Off,
        held_out: data.held_out.clone(),
        eval_batch_size: settings.batch_size,
        latest: None,
    };
    let first_phase = steps - settings.phase2_steps.min(steps);
    let mut ended = Ended::Finished;
    for (phase, end) in [(Phase::First, first_phase), (Phase::Second, steps)] {
        if state.step >= end || ended != Ended::Finished {
            continue;
        }
        let source = training_source(settings, &data, phase, &state.cursor)?;
        let plan = Plan {
            schedule: settings.schedule(steps),
            until: end,
            clip: (settings.clip > 0.0).then_some(settings.clip),
            seed: settings.seed,
            eval_every: run.eval_every,
            save_every: run.save_every,
            gradient_checkpointing: settings.gradient_checkpointing,
            settings: numbers.clone(),
            quiet: run.quiet,
        };
        (state, ended) = std::thread::scope(|scope| {
            let batches = prefetch(scope, source);
            train(state, &mut task, &batches, &plan, &mut directory, &checkpoints, interrupt)
        })?;
        if ended == Ended::Finished && end < steps {
            state.cursor = Value::Null;
        }
    }
    if let Ended::Interrupted(_) = ended {
        return Ok(Outcome { ended, summary: Value::Null });
    }

    // A resumed run that had nothing left to do has no evaluation yet.
    if task.latest.is_none() && !task.held_out.is_empty() {
        task.latest = Some(task.judge(&state.model)?);
    }
    save_model(directory.path(), &state.model, &config, &data.tokenizer, task.with_nsp)?;
    remove_cache(directory.path())?;
    report::write(directory.path(), &report::filled_masks(&state.model, &data.tokenizer, &data.held_out))?;
    let summary = summarise(&directory, state.step, task.latest, started)?;
    Ok(Outcome { ended, summary })
}

/// The two phases of the paper's pretraining: short sequences, then long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    First,
    Second,
}

/// Opens the corpus, finds or learns the tokenizer, tokenises, and sets documents aside.
fn prepare(settings: &TrainSettings, directory: &RunDirectory, quiet: bool) -> Result<Data> {
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
        (Some(path), _) | (None, Some(path)) => Tokenizer::load(path)?,
        (None, None) => learn_tokenizer(settings, &corpus, directory, &say)?,
    };
    say(format!("vocabulary: {} WordPieces", tokenizer.vocab_size()));

    let files = describe_files(&corpus)?;
    let store = tokenised(directory, "corpus.tokens", &corpus, &files, &tokenizer, settings.data.sentences)?;
    let Facts { documents, sentences, tokens, unknown } = store.facts();
    say(format!("corpus: {documents} documents, {sentences} sentences, {tokens} tokens, {unknown} of them unknown"));

    let (eval_store, eval_files, share) = if settings.eval_corpus.is_empty() {
        (None, Value::Null, settings.eval_share)
    } else {
        let corpus = Corpus::open(&settings.eval_corpus)?;
        let files = describe_files(&corpus)?;
        let store = tokenised(directory, "eval.tokens", &corpus, &files, &tokenizer, settings.data.sentences)?;
        (Some(store), files, 0.0)
    };
    let split = Split::new(documents, share, mix(&[settings.seed, SPLIT]));
    let maker = example_maker(&settings.data, settings.data.max_seq_len, &tokenizer);
    let held_out = match &eval_store {
        Some(store) => {
            all_held_out(store, Split::new(store.facts().documents, 0.0, 0), Part::Training, maker, settings)?
        }
        None if split.len(Part::HeldOut) > 0 => all_held_out(&store, split, Part::HeldOut, maker, settings)?,
        None => Vec::new(),
    };
    let facts = json!({
        "corpus": files,
        "eval_corpus": eval_files,
        "documents": documents,
        "held_out_documents": split.len(Part::HeldOut),
        "held_out_examples": held_out.len(),
        "sentences": sentences,
        "tokens": tokens,
        "unknown_tokens": unknown,
        "vocabulary": tokenizer.vocab_size(),
    });
    Ok(Data { tokenizer, store, split, held_out, facts })
}

/// A tokenizer from the corpus; a resumed run finds the one that it learned.
fn learn_tokenizer(
    settings: &TrainSettings,
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
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary, Normalisation::new(!settings.cased))?;
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

fn tokenised(
    directory: &RunDirectory,
    name: &str,
    corpus: &Corpus,
    files: &Value,
    tokenizer: &Tokenizer,
    mode: bert_model::text::SentenceMode,
) -> Result<Store> {
    let mut hasher = Sha256::new();
    hasher.update(files.to_string());
    hasher.update(tokenizer.to_json()?);
    hasher.update(format!("{mode:?}"));
    let fingerprint: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Store::build(&directory.file(name), corpus, tokenizer, mode, &fingerprint)
}

fn remove_cache(directory: &Path) -> Result<()> {
    for name in ["corpus.tokens", "eval.tokens"] {
        let path = directory.join(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

fn example_maker(data: &DataSettings, max_length: usize, tokenizer: &Tokenizer) -> ExampleMaker {
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

/// The examples of the evaluation: one pass over the held-out documents, the same in every run with this seed.
fn all_held_out(
    store: &Store,
    split: Split,
    part: Part,
    maker: ExampleMaker,
    settings: &TrainSettings,
) -> Result<Vec<Example>> {
    let seed = mix(&[settings.seed, EVALUATION]);
    let mut stream = ExampleStream::new(store.reader()?, split, part, maker, seed, None, Cursor::default())?;
    stream.rest_of_epoch(settings.eval_examples)
}

fn training_stream(settings: &TrainSettings, data: &Data, phase: Phase, cursor: Cursor) -> Result<ExampleStream> {
    let (length, seed) = match phase {
        Phase::First => (settings.data.max_seq_len, settings.seed),
        Phase::Second => (settings.phase2_seq_len, mix(&[settings.seed, PHASE_2])),
    };
    let maker = example_maker(&settings.data, length, &data.tokenizer);
    let reader = data.store.reader()?;
    ExampleStream::new(reader, data.split, Part::Training, maker, seed, settings.maskings, cursor)
}

fn training_source(
    settings: &TrainSettings,
    data: &Data,
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
fn count_steps(settings: &TrainSettings, data: &Data) -> Result<u64> {
    if let Some(steps) = settings.steps {
        return Ok(steps);
    }
    let mut stream = training_stream(settings, data, Phase::First, Cursor::default())?;
    let examples = stream.count_epoch()? as f64 * settings.epochs;
    let steps = (examples / (settings.batch_size * settings.accumulate) as f64).ceil() as u64;
    Ok(steps.max(1).max(settings.phase2_steps))
}

/// The model to begin with, with the configuration that fits the tokenizer.
fn initial_model(
    settings: &TrainSettings,
    tokenizer: &Tokenizer,
    device: &burn::tensor::Device,
) -> Result<(BertForPreTraining, BertConfig)> {
    let seed = mix(&[settings.seed, WEIGHTS]);
    let (model, config) = match &settings.init {
        Some(directory) => {
            let loaded = load::<BertForPreTraining>(directory, seed, device)?;
            if let Some(warning) = loaded.warning() {
                eprintln!("warning: {}: {warning}", directory.display());
            }
            (Some(loaded.model), loaded.config)
        }
        None => {
            let (config, is_named) = settings.model_config()?;
            let vocab_size = tokenizer.vocabulary().len();
            let learned_smaller = settings.tokenizer.is_none() && vocab_size < config.vocab_size;
            let fits = if is_named || learned_smaller { config.with_vocab_size(vocab_size) } else { config };
            (None, BertConfig { pad_token_id: Some(tokenizer.special().pad as usize), ..fits })
        }
    };
    tokenizer.check_fits(&config)?;
    if settings.longest() > config.max_position_embeddings {
        return Err(Error::Mismatch {
            left: format!("a sequence length of {}", settings.longest()),
            right: format!("a model of {} positions", config.max_position_embeddings),
            advice: "lower --max-seq-len, or take a configuration with more max_position_embeddings".into(),
        });
    }
    let model = model.unwrap_or_else(|| BertForPreTraining::fresh(&config, seed, device));
    Ok((model, config))
}

/// Writes the model directory; without next-sentence prediction only the masked-LM part was trained and is written.
fn save_model(
    directory: &Path,
    model: &BertForPreTraining,
    config: &BertConfig,
    tokenizer: &Tokenizer,
    with_nsp: bool,
) -> Result<()> {
    if with_nsp {
        return bert_model::save(directory, model, config, tokenizer);
    }
    let mut config = config.clone();
    config.architectures = Some(vec![bert_model::BertForMaskedLM::ARCHITECTURE.into()]);
    config.save(directory.join("config.json"))?;
    tokenizer.save(directory, config.max_position_embeddings)?;
    let mut weights = state_dict(model);
    weights.retain(|name, _| !name.starts_with("cls.seq_relationship") && !name.starts_with("bert.pooler"));
    save_weights(directory.join("model.safetensors"), &weights)
}

/// What `--json` prints.
fn summarise(directory: &RunDirectory, steps: u64, evaluation: Option<Evaluation>, started: Instant) -> Result<Value> {
    let metrics = directory.metrics()?;
    let steps_logged: Vec<&Value> = metrics.iter().filter(|record| record.get("loss").is_some()).collect();
    let last = steps_logged.last().copied().unwrap_or(&Value::Null);
    let speeds: Vec<f64> = steps_logged.iter().filter_map(|record| record["tokens_per_second"].as_f64()).collect();
    Ok(json!({
        "steps": steps,
        "train": {"loss": last["loss"], "mlm_loss": last["mlm_loss"], "nsp_loss": last["nsp_loss"]},
        "eval": evaluation.map(to_value).transpose()?,
        "tokens_per_second": speeds.iter().sum::<f64>() / speeds.len().max(1) as f64,
        "seconds": started.elapsed().as_secs_f64(),
        "model": directory.path().display().to_string(),
    }))
}

fn to_value<T: serde::Serialize>(value: T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::Setting(error.to_string()))
}

/// Runs `bert-pretrain evaluate`: the model's metrics on every document of a corpus.
///
/// # Errors
/// Whatever can be wrong with the model, the corpus or the device.
pub fn evaluate(
    model_directory: &Path,
    corpus: &[String],
    data: &DataSettings,
    batch_size: usize,
    device: &burn::tensor::Device,
    seed: u64,
) -> Result<Evaluation> {
    let loaded = load::<BertForPreTraining>(model_directory, seed, device)?;
    let has_nsp = !loaded.initialised.iter().any(|name| name.starts_with("cls.seq_relationship"));
    if let Some(warning) = loaded.warning() {
        eprintln!("warning: {}: {warning}", model_directory.display());
    }
    let tokenizer = Tokenizer::load(model_directory)?;
    tokenizer.check_fits(&loaded.config)?;
    let corpus = Corpus::open(corpus)?;
    let cache = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "make a temporary directory in"))?;
    let path = cache.path().join("corpus.tokens");
    let store = Store::build(&path, &corpus, &tokenizer, data.sentences, "")?;
    let nsp_mode = if has_nsp { data.nsp_mode } else { NspMode::Off };
    let data = DataSettings {
        nsp_mode,
        max_seq_len: data.max_seq_len.min(loaded.config.max_position_embeddings),
        ..data.clone()
    };
    let maker = example_maker(&data, data.max_seq_len, &tokenizer);
    let split = Split::new(store.facts().documents, 0.0, 0);
    let seed = mix(&[seed, EVALUATION]);
    let mut stream = ExampleStream::new(store.reader()?, split, Part::Training, maker, seed, None, Cursor::default())?;
    let held_out = stream.rest_of_epoch(usize::MAX)?;
    if held_out.is_empty() {
        return Err(Error::Setting("the corpus gives no example: every document is too short for a pair".into()));
    }
    let pad_id = tokenizer.special().pad;
    let with_nsp = nsp_mode != NspMode::Off;
    let task =
        Pretraining { device: device.clone(), pad_id, with_nsp, held_out, eval_batch_size: batch_size, latest: None };
    task.judge(&loaded.model)
}
