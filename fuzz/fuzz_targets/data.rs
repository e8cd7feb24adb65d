//! Fuzzes corpora and data files, with every reader. The first byte selects the format.
#![no_main]

mod folder;
#[path = "../../tests/support/readers.rs"]
mod readers;

use std::path::Path;

use bert_finetune::data::squad::read_squad;
use bert_model::Result;
use bert_pretrain::corpus::Corpus;
use folder::{check, folder};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 15] = [
    "corpus.txt",
    "corpus.jsonl",
    "corpus.txt.gz",
    "corpus.txt.zst",
    "table.csv",
    "table.tsv",
    "table.jsonl",
    "choices.csv",
    "tags.conll",
    "tags.conllu",
    "squad.json",
    "corpus.parquet",
    "table.parquet",
    "tags.parquet",
    "squad.parquet",
];

fn read(path: &Path, file: &str) -> Result<()> {
    match file {
        "squad.json" | "squad.parquet" => read_squad(path).map(drop),
        "tags.conll" | "tags.conllu" | "tags.parquet" => readers::tagged(path),
        "choices.csv" => readers::choices(path),
        "table.csv" | "table.tsv" | "table.jsonl" | "table.parquet" => readers::table(path),
        _ => Corpus::open(&[path])?.documents().try_for_each(|document| document.map(drop)),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let file = FILES[usize::from(*which) % FILES.len()];
    let folder = folder(|_| ());
    let path = folder.join(file);
    std::fs::write(&path, bytes).expect("written");
    check(folder, read(&path, file));
});
