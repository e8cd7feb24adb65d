//! Promise: hostile model directories do no harm. Whatever is done to the bytes of a file, loading gives a model or an
//! error that names the file: no panic, no code that runs, no memory that only the file's claims ask for.
//!
//! `BERT_MUTATIONS=100000 cargo test --release -p bert-model --test hostile` looks longer than the usual few hundred.

#[path = "support/mutation.rs"]
mod mutation;
mod support;

use std::fs;
use std::path::Path;

use bert_model::text::tokenizer::Normalization;
use bert_model::{BertForPreTraining, Tokenizer, load_partial};
use burn::tensor::Device;
use mutation::{mutated, rounds};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use support::golden;
use tempfile::TempDir;

/// Mutates one file of a directory again and again, and loads; gives the number of errors.
fn attack(directory: &Path, file: &str, reach: usize, load: impl Fn(&Path) -> Result<(), bert_model::Error>) -> usize {
    load(directory).unwrap_or_else(|error| panic!("{file}, untouched: {error}"));
    let rounds = rounds();
    let original = fs::read(directory.join(file)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(file.len() as u64);
    let mut errors = 0;
    for round in 0..rounds {
        let bytes = mutated(&original, reach, &mut rng);
        fs::write(directory.join(file), &bytes).unwrap();
        // What is being loaded stays on the disk for a look if this panics.
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

/// The most memory that this process has held; 0 where that is not told.
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
        // What loads must work as well.
        Tokenizer::load(directory)?.encode("ab c [MASK] Ä 漢字", None).map(drop).or(Ok(()))
    };
    assert!(attack(directory.path(), "tokenizer.json", usize::MAX, load) > 0);
    // An id that would make a list of all ids fill the memory.
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
