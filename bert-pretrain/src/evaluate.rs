//! `bert-pretrain evaluate`: the metrics of a model on a corpus.

use std::path::Path;

use bert_model::{BertForPreTraining, Error, Result, Tokenizer, load_partial};
use bert_train::Solo;
use bert_train::run_directory::check_has_model;
use burn::tensor::Device;

use crate::advice;
use crate::corpus::Corpus;
use crate::examples::{NspMode, PretrainingExample};
use crate::objective::{Metrics, Pretraining, Scores};
use crate::prepare::{evaluation_stream, example_maker};
use crate::settings::{DataSettings, SHORTEST};
use crate::split::{Split, Subset};
use crate::start::check_pairs;
use crate::store::Store;
use crate::stream::NO_EXAMPLES;

/// Number of examples that are held in memory at once, about.
const PART: usize = 8192;

/// Runs `bert-pretrain evaluate`: metrics of a model on all documents of a corpus.
///
/// # Errors
/// If the model, the corpus or the device is invalid.
pub fn evaluate(
    model_directory: &Path,
    corpus: &[String],
    data: &DataSettings,
    batch_size: usize,
    device: &Device,
    seed: u64,
) -> Result<Metrics> {
    check_has_model(model_directory)?;
    let tokenizer = Tokenizer::load(model_directory)?;
    let loaded = load_partial::<BertForPreTraining>(model_directory, seed, device)?;
    let lacks = |head: &str| loaded.initialized.iter().any(|name| name.starts_with(head));
    if let Some(tensor) = loaded.initialized.iter().find(|name| name.starts_with("cls.predictions")) {
        return Err(Error::MissingTensors { path: model_directory.into(), tensors: vec![tensor.clone()] });
    }
    let has_nsp = !lacks("cls.seq_relationship") && !lacks("pooler") && !lacks("bert.pooler");
    for warning in tokenizer.warnings().iter().cloned().chain(loaded.warning()) {
        eprintln!("warning: {}: {warning}", model_directory.display());
    }
    tokenizer.check_fits(&loaded.config)?;
    let nsp_mode = if has_nsp { data.nsp_mode } else { NspMode::Off };
    if nsp_mode != NspMode::Off {
        check_pairs(&loaded.config)?;
    }
    let max_seq_len = data.max_seq_len.min(loaded.config.max_position_embeddings);
    if max_seq_len < SHORTEST {
        let expected = format!("a model that accepts at least {SHORTEST} tokens");
        let found = format!("{max_seq_len} positions (`max_position_embeddings`)");
        return Err(Error::file(model_directory.join("config.json"), found, expected));
    }
    let data = DataSettings { nsp_mode, max_seq_len, ..data.clone() };
    let mut objective = Pretraining {
        with_nsp: nsp_mode != NspMode::Off,
        ..Pretraining::new(device.clone(), tokenizer.special().pad, batch_size)
    };
    let mut scores = Scores::default();
    each_part(corpus, &data, &tokenizer, (seed, PART.next_multiple_of(batch_size)), |examples| {
        objective.held_out = examples;
        objective.score_held_out(&loaded.model, &Solo, &mut scores)
    })?;
    if let Some(note) = advice::no_accuracy(scores.only_label()) {
        eprintln!("warning: {note}; --no-nsp evaluates masked LM alone");
    }
    Ok(scores.metrics())
}

/// Calls `work` with the examples of all documents of a corpus, `part` at a time. The corpus is tokenized in a
/// temporary directory.
fn each_part(
    corpus: &[String],
    data: &DataSettings,
    tokenizer: &Tokenizer,
    (seed, part): (u64, usize),
    mut work: impl FnMut(Vec<PretrainingExample>) -> Result<()>,
) -> Result<()> {
    let corpus = Corpus::open(corpus)?.with_sentences(data.sentences);
    if let Some(note) = corpus.wrapped_note() {
        eprintln!("{note}");
    }
    let cache = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create a temporary directory in"))?;
    let path = cache.path().join("corpus.tokens");
    let store = Store::build(&path, &corpus, tokenizer, data.sentences, "")?;
    let maker = example_maker(data, data.max_seq_len, tokenizer)?;
    let split = Split::at(store.stats().documents, store.stats().documents);
    let mut stream = evaluation_stream(&store, split, Subset::Training, maker, seed)?;
    let mut examples = stream.rest_of_epoch(part)?;
    if examples.is_empty() {
        return Err(Error::Setting(NO_EXAMPLES.into()));
    }
    // After a part that is not full, the stream is in its next epoch.
    while examples.len() == part {
        work(examples)?;
        examples = stream.rest_of_epoch(part)?;
    }
    if examples.is_empty() { Ok(()) } else { work(examples) }
}
