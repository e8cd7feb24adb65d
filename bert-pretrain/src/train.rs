//! `bert-pretrain train` and `evaluate`: from the settings to a model directory.

use std::path::Path;
use std::time::Instant;

use bert_cli::program::select_device;
use bert_model::device::NamedDevice;
use bert_model::pretrained::{save_weights, state_dict};
use bert_model::{BertConfig, BertForPreTraining, Error, Pretrained, Result, Tokenizer, load_partial};
use bert_train::run_directory::check_inputs;
use bert_train::{Ended, IfExists, Interrupt, Optimizer, Plan, RunDirectory, TrainingState, prefetch, train};
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::examples::NspMode;
use crate::objective::{Evaluation, Pretraining};
use crate::prepare::{
    Phase, check_pairs, count_steps, evaluation_examples, example_maker, initial_model, prepare, remove_cache,
    training_source,
};
use crate::report;
use crate::settings::{DataSettings, PretrainRunOptions, PretrainSettings};
use crate::store::{Split, Store, Subset};

/// What a run came to.
#[derive(Debug)]
pub struct PretrainOutcome {
    /// Why it ended.
    pub ended: Ended,
    /// What `--json` prints.
    pub summary: Value,
}

/// Runs `bert-pretrain train`.
///
/// # Errors
/// Whatever can be wrong with the corpus, the files, the device or the numbers.
pub fn run(settings: &PretrainSettings, run: &PretrainRunOptions, interrupt: &Interrupt) -> Result<PretrainOutcome> {
    let started = Instant::now();
    let NamedDevice { name, device, .. } = select_device(&run.device, run.quiet)?;
    settings.precision.check(&device)?;
    // What is wrong with the inputs is said before anything is written.
    for paths in [&settings.corpus, &settings.eval_corpus] {
        if !paths.is_empty() {
            Corpus::open(paths)?;
        }
    }
    let if_exists = run.if_exists.unwrap_or(IfExists::Refuse);
    let paths = [&settings.corpus, &settings.eval_corpus].into_iter().flatten().map(Path::new);
    let inputs = paths.chain(settings.tokenizer.as_deref()).chain(settings.init.as_deref());
    check_inputs(&run.output, if_exists, inputs)?;
    let mut directory = RunDirectory::open(&run.output, if_exists)?;
    let data = directory.prepared(prepare(settings, &directory, run.quiet))?;
    let steps = directory.prepared(count_steps(settings, &data))?;
    let (model, config) = directory.prepared(initial_model(settings, &data.tokenizer, &device))?;

    let mut numbers = to_value(settings)?;
    numbers["data_sha256"] = data.fingerprint.clone().into();
    if if_exists == IfExists::Resume {
        directory.check_settings(&numbers)?;
    }
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
    let mut state = TrainingState::new(model, optimizer);
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

    let mut objective = Pretraining {
        device: device.clone(),
        pad_id: data.tokenizer.special().pad,
        with_nsp: settings.data.nsp_mode != NspMode::Off,
        held_out: data.held_out.clone(),
        eval_batch_size: settings.batch_size,
        latest: None,
    };
    let first_phase = steps - settings.phase2_steps.min(steps);
    let mut ended = Ended::Finished;
    for (phase, start, end) in [(Phase::First, 0, first_phase), (Phase::Second, first_phase, steps)] {
        if state.step >= end || ended != Ended::Finished {
            continue;
        }
        if state.step == start {
            // Whatever came before, a phase begins at the beginning of its data.
            state.cursor = Value::Null;
        }
        let source = training_source(settings, &data, phase, &state.cursor)?;
        let plan = Plan {
            schedule: settings.schedule(steps),
            until: end,
            clip: (settings.clip > 0.0).then_some(settings.clip),
            seed: settings.seed,
            eval_every: run.eval_every,
            save_every: run.save_every,
            precision: settings.precision,
            gradient_checkpointing: settings.gradient_checkpointing,
            settings: numbers.clone(),
            quiet: run.quiet,
        };
        (state, ended) = std::thread::scope(|scope| {
            let batches = prefetch(scope, source);
            train(state, &mut objective, &batches, &plan, &mut directory, &checkpoints, interrupt)
        })?;
    }
    if let Ended::Interrupted(_) = ended {
        return Ok(PretrainOutcome { ended, summary: Value::Null });
    }

    // A resumed run that had nothing left to do has no evaluation yet.
    if objective.latest.is_none() && !objective.held_out.is_empty() {
        objective.latest = Some(objective.evaluate_held_out(&state.model)?);
    }
    save_model(directory.path(), &state.model, &config, &data.tokenizer, objective.with_nsp)?;
    remove_cache(directory.path())?;
    report::write(directory.path(), &report::filled_masks(&state.model, &data.tokenizer, &data.held_out))?;
    let summary = summarize(&directory, state.step, objective.latest, started)?;
    Ok(PretrainOutcome { ended, summary })
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
fn summarize(directory: &RunDirectory, steps: u64, evaluation: Option<Evaluation>, started: Instant) -> Result<Value> {
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
    let loaded = load_partial::<BertForPreTraining>(model_directory, seed, device)?;
    let has_nsp = !loaded.initialized.iter().any(|name| name.starts_with("cls.seq_relationship"));
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
    if nsp_mode != NspMode::Off {
        check_pairs(&loaded.config)?;
    }
    let data = DataSettings {
        nsp_mode,
        max_seq_len: data.max_seq_len.min(loaded.config.max_position_embeddings),
        ..data.clone()
    };
    let maker = example_maker(&data, data.max_seq_len, &tokenizer);
    let split = Split::new(store.stats().documents, 0.0, 0);
    let held_out = evaluation_examples(&store, split, Subset::Training, maker, seed, usize::MAX)?;
    if held_out.is_empty() {
        return Err(Error::Setting("the corpus gives no example: every document is too short for a pair".into()));
    }
    let pad_id = tokenizer.special().pad;
    let with_nsp = nsp_mode != NspMode::Off;
    let objective =
        Pretraining { device: device.clone(), pad_id, with_nsp, held_out, eval_batch_size: batch_size, latest: None };
    objective.evaluate_held_out(&loaded.model)
}
