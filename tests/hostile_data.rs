//! Promise: hostile data files do no harm. For any bytes, reading returns examples or an error that names the file, and
//! never panics.

#[path = "support/mutation.rs"]
mod mutation;
#[path = "support/readers.rs"]
mod readers;

use std::fs;
use std::io::Write;
use std::path::Path;

use bert_finetune::data::squad::read_squad;
use bert_finetune::features::Encoded;
use bert_finetune::for_task;
use bert_finetune::tasks::any::open_task;
use bert_finetune::tasks::{Query, Task};
use bert_model::text::tokenizer::Normalization;
use bert_model::{BertConfig, Result, Tokenizer};
use bert_pretrain::corpus::{Corpus, SentenceMode};
use mutation::{mutated, rounds};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// Reads many mutations of a file with this name and content.
fn attack(name: &str, content: &[u8], read: impl Fn(&Path) -> Result<()>) {
    attack_in(&TempDir::new().unwrap(), name, content, read);
}

/// Like [`attack`], but in a given directory.
fn attack_in(directory: &TempDir, name: &str, content: &[u8], read: impl Fn(&Path) -> Result<()>) {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    read(&path).unwrap_or_else(|error| panic!("{name}, untouched: {error}"));
    let mut rng = ChaCha8Rng::seed_from_u64(name.len() as u64);
    let mut errors = 0;
    for round in 0..rounds() {
        fs::write(&path, mutated(content, usize::MAX, &mut rng)).unwrap();
        if let Err(error) = read(&path) {
            let message = error.to_string();
            assert!(message.contains(name), "{name}, round {round}: no file named: {message}");
            errors += 1;
        }
    }
    println!("{name}: {errors} of {} refused", rounds());
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn corpora() {
    let text = "The soup was good. It was hot.\n\nA river, wide and cold!\r\nIt runs to the sea.\n".repeat(20);
    let jsonl = "{\"text\": \"One. Two \\u00e9.\", \"id\": 3}\n".repeat(20);
    let read = |path: &Path| {
        for mode in [SentenceMode::Wrapped, SentenceMode::Auto] {
            let corpus = Corpus::open(&[path])?.with_sentences(mode);
            let mut found = 0;
            for document in corpus.documents() {
                document?;
                found += 1;
            }
            corpus.require_documents(found)?;
        }
        Ok(())
    };
    attack("a.txt", text.as_bytes(), read);
    attack("a.jsonl", jsonl.as_bytes(), read);
    attack("a.txt.gz", &gzip(&text), read);
}

#[test]
fn parquet() {
    let golden = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet").join(name);
        fs::read(path).unwrap()
    };
    for name in ["snappy", "zstd", "gzip", "plain", "delta", "pages-v2"].map(|name| format!("{name}.parquet")) {
        attack(&name, &golden(&name), readers::table);
    }
    attack("tags.parquet", &golden("tags.parquet"), readers::tagged);
    attack("squad.parquet", &golden("squad.parquet"), |path| read_squad(path).map(drop));
    let corpus = |path: &Path| Corpus::open(&[path])?.documents().try_for_each(|document| document.map(drop));
    attack("documents.parquet", &golden("documents.parquet"), corpus);
}

#[test]
fn tables_and_choices() {
    let csv = "text,pair,label\n\"a, \"\"b\"\"\nc\",d,1\nx,y,0\n".repeat(9);
    attack("a.csv", csv.as_bytes(), readers::table);
    attack("a.csv.gz", &gzip(&csv), readers::table);
    attack("a.tsv", "text\tpair\tlabel\na \"b\tc\t1\nx\ty\t0\n".repeat(9).as_bytes(), readers::table);
    attack("a.jsonl", "{\"text\": \"a\", \"pair\": \"b\", \"label\": 1}\n".repeat(9).as_bytes(), readers::table);
    attack(
        "b.csv",
        format!("context,question,a,b,label\n{}", "it rained,why,wet,dry,0\n".repeat(9)).as_bytes(),
        readers::choices,
    );
}

#[test]
fn tagged_sentences_and_questions() {
    let conll = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\nBonn NNP I-NP I-LOC\n".repeat(9);
    let conllu = "# text = a b\n1-2\tab\t_\t_\n1\ta\t_\tX\n2\tb\t_\tY\n8.1\te\t_\tZ\n\n".repeat(9);
    attack("a.conll", conll.as_bytes(), readers::tagged);
    attack("a.conllu", conllu.as_bytes(), readers::tagged);
    let squad = serde_json::json!({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{
        "context": "Ünïcode the Nile runs north", "qas": [
            {"id": "1", "question": "Which river?", "answers": [{"text": "Nile", "answer_start": 12}]},
            {"id": "2", "question": "Why?", "answers": [], "is_impossible": true}]}]}]});
    attack("a.json", squad.to_string().as_bytes(), |path| read_squad(path).map(drop));
    attack("a.json.gz", &gzip(&squad.to_string()), |path| read_squad(path).map(drop));
}

#[test]
fn descriptions_of_fine_tuned_models() {
    let directory = TempDir::new().unwrap();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let pieces: Vec<String> = special.into_iter().chain(["a", "good", "film", "."]).map(str::to_string).collect();
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
    tokenizer.save(directory.path(), 16).unwrap();
    let config = BertConfig { max_position_embeddings: 16, ..BertConfig::default() }.with_vocab_size(pieces.len());
    config.with_labels(&["B-X", "O"]).save(directory.path().join("config.json")).unwrap();
    // A model that opens must also split a long text into inputs that fit it.
    let read = |path: &Path| {
        for_task!(open_task(path.parent().unwrap())?, task => {
            let text = "a good film . ".repeat(30);
            let query = Query { text: text.clone(), pair: Some("a".into()), question: Some("film".into()), choices: vec!["a".into(), text] };
            let example = task.example_of(&query)?;
            for item in Encoded::new(&task, &[example], &BertConfig::default())?.items() {
                assert!(item.tokens() <= 16, "{} tokens", item.tokens());
            }
            Ok(())
        })
    };
    for task in ["classification", "multi-label", "regression", "tagging", "question-answering", "multiple-choice"] {
        let content = serde_json::json!({
            "task": task, "text": "text", "text_pair": null, "label": "label", "choices": [], "header": true,
            "skip_short_rows": false, "token_column": null, "tag_column": null, "tag_scheme": "iob2", "max_seq_len": 16,
            "doc_stride": 4, "no_answer_threshold": 0.0, "metric": "f1",
        });
        attack_in(&directory, "finetune.json", content.to_string().as_bytes(), read);
    }
}
