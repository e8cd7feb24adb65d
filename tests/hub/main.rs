//! Promise: a model with a name on the Hugging Face Hub is downloaded once and completely into the cache that Python's
//! library uses, and then read from there; a damaged or incomplete file is never opened.

mod answers;
mod cache;
#[path = "../support/hub_server.rs"]
mod hub_server;
mod python;
mod transfers;

use std::path::PathBuf;
use std::time::Duration;

use bert_model::hub::{Hub, HubName, HubProblem};
use bert_model::{Error, Result};
use hub_server::{COMMIT, HubServer};
use tempfile::TempDir;

/// A server with the model `owner/name`, and an empty cache.
struct Lab {
    server: HubServer,
    cache: TempDir,
}

const CONFIG: &[u8] = br#"{"model_type": "bert"}"#;

/// The contents of the model's weight file, which is stored as a large file.
fn weights() -> Vec<u8> {
    (0..1_000_000_u32).flat_map(|i| (i ^ (i >> 7)).to_le_bytes()).collect()
}

impl Lab {
    fn new() -> Self {
        Self::at(HubServer::start())
    }

    fn at(server: HubServer) -> Self {
        let (tokenizer, tokenizer_config) = (&b"{}"[..], &b"{\"a\": 1}"[..]);
        let files = [
            ("config.json", CONFIG),
            ("model.safetensors", &*weights()),
            ("pytorch_model.bin", b"not needed"),
            ("tf_model.h5", b"not needed"),
            ("README.md", b"not needed"),
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", tokenizer_config),
            ("vocab.txt", b"not needed"),
        ];
        server.add("owner/name", &files);
        Self { server, cache: TempDir::new().unwrap() }
    }

    fn hub(&self) -> Hub {
        let hub = Hub::from_env().unwrap().endpoint(&self.server.endpoint).cache(self.cache.path());
        hub.token(None).offline(false).retry_wait(Duration::from_millis(1)).timeout(Duration::from_secs(5))
    }

    fn open(&self, name: &str) -> Result<PathBuf> {
        self.hub().model(&parsed(name))
    }

    fn problem(&self, name: &str) -> (HubProblem, String) {
        problem(self.open(name))
    }

    /// `models--owner--name/…`
    fn path(&self, path: &str) -> PathBuf {
        self.cache.path().join("models--owner--name").join(path)
    }

    fn snapshot(&self) -> PathBuf {
        self.path("snapshots").join(COMMIT)
    }

    /// The names of the files of a folder of the model, sorted.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).map(|entries| entries.collect::<Vec<_>>());
        let entries = entries.unwrap_or_default().into_iter();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn parsed(name: &str) -> HubName {
    HubName::parse(name).unwrap().unwrap()
}

fn problem<T: std::fmt::Debug>(result: Result<T>) -> (HubProblem, String) {
    let error = result.unwrap_err();
    match &error {
        Error::Hub { problem, .. } => (*problem, error.to_string()),
        other => panic!("{other}"),
    }
}
