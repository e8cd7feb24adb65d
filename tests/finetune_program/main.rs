//! Promise: `bert-finetune` trains, evaluates, predicts and embeds as its help says, and its errors name the cause.

mod answers;
mod effects;
mod embeddings;
mod errors;
mod files;
mod heads;
mod hub;
#[path = "../support/hub_server.rs"]
mod hub_server;
mod models;
#[cfg(all(unix, feature = "mpi"))]
#[path = "../support/mpirun.rs"]
mod mpirun;
mod options;
mod parquet;
mod precision;
#[path = "../support/program.rs"]
mod program;
mod questions;
#[cfg(all(unix, feature = "mpi"))]
mod ranks;
mod runs;
mod sample;
mod sentences;
mod sequences;
mod tables;
mod tags;
mod unlabeled;

use std::fs;

use bert_model::text::tokenizer::Normalization;
use bert_model::{BertConfig, BertForPreTraining, Pretrained, Tokenizer, save};
use burn::tensor::Device;
use serde_json::json as value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bert-finetune");

const WORDS: [&str; 8] = ["good", "fine", "bad", "poor", "a", "film", "book", "."];

/// A directory with a tiny random model and a labeled table in which four words determine the label.
fn workshop() -> TempDir {
    workshop_of(16)
}

/// A workshop whose model has this many positions.
fn workshop_of(max_position_embeddings: usize) -> TempDir {
    let directory = TempDir::new().unwrap();
    let pieces: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].iter().chain(&WORDS).map(|piece| piece.to_string()).collect();
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
    let config = BertConfig {
        hidden_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 64,
        max_position_embeddings,
        // Large enough that such a small model learns within a few steps.
        initializer_range: 0.2,
        ..BertConfig::default()
    }
    .with_vocab_size(pieces.len());
    let model = BertForPreTraining::init_seeded(&config, 1, &Device::flex());
    save(directory.path().join("model"), &model, &config, &tokenizer).unwrap();
    let rows: String = (0..64)
        .map(|i| format!("a {} {}\t{}\n", WORDS[i % 4], ["film", "book"][i / 4 % 2], ["good", "bad"][i % 4 / 2]))
        .collect();
    fs::write(directory.path().join("films.tsv"), format!("text\tlabel\n{rows}")).unwrap();
    directory
}

/// A SQuAD file with two questions about one text.
fn two_questions() -> String {
    let answered = |id: &str, question: &str, text: &str, start: u32| value!({"id": id, "question": question, "answers": [{"text": text, "answer_start": start}]});
    let questions = [answered("q1", "film", "bad", 2), answered("q2", "book", "film", 6)];
    value!({"data": [{"paragraphs": [{"context": "a bad film .", "qas": questions}]}]}).to_string()
}

/// A line of a file with two choices, of which the second is right.
const CHOICE: &str = "{\"text\":\"a film\",\"a\":\"good\",\"b\":\"bad\",\"label\":1}\n";

/// The command for a training run on the workshop's table.
fn train(output: &str, more: &str) -> String {
    format!(
        "train --model model --train films.tsv --eval films.tsv --test films.tsv --lr 3e-3 --epochs 8 \
         --device flex --quiet --json -o {output} {more}"
    )
}

/// The command for a training run on any file.
fn on_file(file: &str, output: &str, more: &str) -> String {
    let rate = if more.contains("--lr ") { "" } else { "--lr 3e-3" };
    format!(
        "train --model model --train {file} --eval {file} --batch-size 8 --device flex --quiet --json \
         -o {output} {rate} {more}"
    )
}
