//! Promise: hostile model directories do no harm. Whatever the bytes of a file, loading returns a model or an error
//! that names the file: it never panics, executes code, or allocates memory based on the file's claims alone. Any
//! combination of configuration, tokenizer, head and options yields an answer or an error.
//!
//! `BERT_MUTATIONS=100000 cargo test --release -p bert-model --test hostile` tries more than the usual few hundred
//! mutations.

#[path = "support/combinations.rs"]
mod combinations;
#[path = "support/mutation.rs"]
mod mutation;
mod support;

use std::fs;
use std::path::Path;

use bert_model::pipeline::tags::TagScheme;
use bert_model::pipeline::{
    Builder, Combine, FromCheckpoint, Layers, MaskFiller, MultipleChoice, PairScorer, Pooling, QuestionAnswerer,
    TextClassifier, TextEmbedder, TokenClassifier,
};
use bert_model::text::tokenizer::Normalization;
use bert_model::{BertForPreTraining, Result, Tokenizer, load_partial};
use burn::tensor::Device;
use combinations::{HEADS, TEXTS, any, write_directory};
use mutation::{mutated, rounds};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::golden;
use tempfile::TempDir;

/// Mutates one file of a directory repeatedly, loading it each time; returns the number of errors.
fn attack(directory: &Path, file: &str, reach: usize, load: impl Fn(&Path) -> Result<(), bert_model::Error>) -> usize {
    load(directory).unwrap_or_else(|error| panic!("{file}, untouched: {error}"));
    let rounds = rounds();
    let original = fs::read(directory.join(file)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(file.len() as u64);
    let mut errors = 0;
    for round in 0..rounds {
        let bytes = mutated(&original, reach, &mut rng);
        fs::write(directory.join(file), &bytes).unwrap();
        // If this panics, the mutated file remains on disk for inspection.
        if let Err(error) = load(directory) {
            let message = error.to_string();
            assert!(message.contains(&*directory.to_string_lossy()), "{file}, round {round}: no file named: {message}");
            errors += 1;
        }
    }
    fs::write(directory.join(file), original).unwrap();
    println!("{file}: {errors} of {rounds} refused; {} MiB at most", peak_mebibytes());
    errors
}

/// The peak memory of this process; 0 if the system does not report it.
fn peak_mebibytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).map_or(0, |kib| kib.parse::<u64>().unwrap() / 1024)
}

fn copy(from: &Path) -> TempDir {
    let directory = TempDir::new().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    directory
}

fn load_model(directory: &Path) -> Result<(), bert_model::Error> {
    load_partial::<BertForPreTraining>(directory, 0, &Device::flex()).map(drop)
}

#[test]
fn weights_and_configurations_that_lie_are_refused_or_harmless() {
    for (form, file, reach) in [
        ("models/gelu-odd", "config.json", usize::MAX),
        ("models/gelu-odd", "model.safetensors", 5000),
        ("variants/sharded", "model.safetensors.index.json", usize::MAX),
        ("variants/torch", "pytorch_model.bin", usize::MAX),
        ("variants/torch-legacy", "pytorch_model.bin", usize::MAX),
    ] {
        let directory = copy(&golden(form));
        assert!(attack(directory.path(), file, reach, load_model) > 0, "{file}");
    }
    assert!(peak_mebibytes() < 1500, "{} MiB", peak_mebibytes());
}

#[test]
fn tokenizers_that_lie_are_refused_or_harmless() {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let pieces: Vec<String> = special.into_iter().chain(["a", "b", "##b", "ab", "c"]).map(str::to_string).collect();
    let directory = TempDir::new().unwrap();
    Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap().save(directory.path(), 16).unwrap();
    let load = |directory: &Path| {
        // A tokenizer that loads must also work.
        Tokenizer::load(directory)?.encode("ab c [MASK] Ä 漢字", None).map(drop).or(Ok(()))
    };
    assert!(attack(directory.path(), "tokenizer.json", usize::MAX, load) > 0);
    // A table indexed by this id would exhaust the memory.
    let path = directory.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    for id in ["4294967295", "4294967294", "60000000"] {
        let lie = text.replace("\"c\": 9", &format!("\"c\": {id}"));
        assert_ne!(lie, text);
        fs::write(&path, lie).unwrap();
        let error = Tokenizer::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(id), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(attack(directory.path(), "vocab.txt", usize::MAX, load) > 0);
    assert!(attack(directory.path(), "tokenizer_config.json", usize::MAX, load) > 0);
}

#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn whatever_meets_gives_an_answer_or_an_error() {
    combine(0..400);
}

#[test]
#[ignore = "fifty times as many combinations take minutes"]
fn whatever_meets_gives_an_answer_or_an_error_many_times() {
    combine(400..20_400);
}

/// Opens a directory for each seed and runs its pipeline; returns the number of those that answered.
fn combine(seeds: std::ops::Range<u64>) {
    let (count, mut answered) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let directory = TempDir::new().unwrap();
        let head = any(&mut rng, &HEADS);
        write_directory(directory.path(), head, &mut rng);
        // The test prints this only if it panics.
        println!("seed {seed}: {head}");
        match ask(directory.path(), head, &mut rng) {
            Ok(answers) => {
                assert_eq!(answers, TEXTS.len(), "seed {seed}: an answer for each text");
                answered += 1;
            }
            Err(error) => assert!(!error.to_string().is_empty(), "seed {seed}"),
        }
    }
    println!("{answered} of {count} combinations answered");
    assert!(answered * 10 > count && answered * 10 < 9 * count, "{answered} of {count}: either is tested");
}

/// Opens a pipeline with options that may be invalid for it.
fn opened<P: FromCheckpoint>(
    mut builder: Builder<P>,
    directory: &Path,
    rng: &mut impl Rng,
) -> Result<bert_model::pipeline::Pipeline<P>> {
    if rng.random_bool(0.3) {
        builder = builder.max_length(any(rng, &[0, 1, 2, 3, 4, 5, 8, 19, 20]));
    }
    if rng.random_bool(0.3) {
        builder = builder.batch_tokens(any(rng, &[0, 1, 30]));
    }
    builder.device(Device::flex()).open(directory)
}

/// Runs the pipeline of a head, or occasionally another one, on all texts; returns the number of answers.
fn ask(directory: &Path, head: &str, rng: &mut impl Rng) -> Result<usize> {
    let head = if rng.random_bool(0.1) { any(rng, &HEADS) } else { head };
    let pairs: Vec<(&str, &str)> = TEXTS.iter().zip(TEXTS.iter().rev()).map(|(a, b)| (*a, *b)).collect();
    if rng.random_bool(0.15) {
        let pooling = any(rng, &[Pooling::Mean, Pooling::Cls, Pooling::Max, Pooling::Pooler]);
        let layers = Layers::new(any(rng, &[vec![-1], vec![0, -1], vec![3, i64::MIN], vec![]]));
        let combine = any(rng, &[Combine::Concat, Combine::Sum, Combine::Mean]);
        let embedder =
            opened(TextEmbedder::builder().pooling(pooling).layers(layers).combine(combine), directory, rng)?;
        return Ok(embedder.embed(&TEXTS)?.len().min(embedder.embed_tokens(&TEXTS)?.len()));
    }
    match head {
        "BertForTokenClassification" => {
            let schemes = [TagScheme::Iob1, TagScheme::Iob2, TagScheme::Iobes, TagScheme::Plain];
            Ok(opened(TokenClassifier::builder().scheme(any(rng, &schemes)), directory, rng)?.tag(&TEXTS)?.len())
        }
        "BertForQuestionAnswering" => {
            let builder = QuestionAnswerer::builder().candidates(any(rng, &[0, 1, 1000]));
            let builder = builder.stride(any(rng, &[0, 1, 128])).no_answer_threshold(any(rng, &[0.0, f64::NAN]));
            Ok(opened(builder, directory, rng)?.answer(&pairs)?.len())
        }
        "BertForMultipleChoice" => {
            let questions: Vec<(&str, Vec<&str>)> = pairs.iter().map(|(a, b)| (*a, vec![*b, *a])).collect();
            Ok(opened(MultipleChoice::builder(), directory, rng)?.choose(&questions)?.len())
        }
        "BertForMaskedLM" => {
            let texts: Vec<String> = TEXTS.iter().map(|text| format!("{text:.60} [MASK]")).collect();
            let top_k = any(rng, &[0, 1, usize::MAX]);
            Ok(opened(MaskFiller::builder(), directory, rng)?.fill_all(&texts, top_k)?.len())
        }
        "BertForNextSentencePrediction" => {
            let builder = PairScorer::builder().device(Device::flex());
            Ok(builder.open(directory)?.score(&pairs)?.len())
        }
        _ => {
            let classifier = opened(TextClassifier::builder(), directory, rng)?;
            match rng.random_bool(0.5) {
                true => Ok(classifier.classify_pairs(&pairs)?.len()),
                false => Ok(classifier.classify(&TEXTS)?.len()),
            }
        }
    }
}
