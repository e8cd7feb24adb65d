//! Any bytes as a corpus or a data file, through every reader.
#![no_main]

mod place;

use std::path::Path;

use bert_finetune::data::choices::{ChoiceOptions, read_choices};
use bert_finetune::data::conll::{ConllOptions, read_tagged};
use bert_finetune::data::squad::read_squad;
use bert_model::Result;
use bert_pretrain::corpus::Corpus;
use bert_pretrain::input::columns::Column;
use bert_pretrain::input::table::{LabelColumns, TableOptions, read_table};
use libfuzzer_sys::fuzz_target;
use place::{check, folder};

const FILES: [&str; 11] = [
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
];

fn read(path: &Path, file: &str) -> Result<()> {
    let name = |name: &str| Column::Name(name.to_string());
    match file {
        "squad.json" => read_squad(path).map(drop),
        "tags.conll" | "tags.conllu" => {
            read_tagged(path, ConllOptions::usual(path))?.try_for_each(|sentence| sentence.map(drop))
        }
        "choices.csv" => {
            let options = ChoiceOptions {
                text: name("context"),
                text_pair: Some(name("question")),
                choices: vec![name("a"), name("b")],
                label: Some(name("label")),
                header: true,
            };
            read_choices(path, &options)?.try_for_each(|row| row.map(drop))
        }
        "table.csv" | "table.tsv" | "table.jsonl" => {
            let label = Some(LabelColumns::One(name("label")));
            let options = TableOptions { text_pair: Some(name("pair")), label, ..TableOptions::texts(name("text")) };
            read_table(path, &options)?.try_for_each(|row| row.map(drop))
        }
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
