//! Models and tokenizers by their names on the Hugging Face Hub.

use std::fs;
use std::path::Path;

use crate::hub_server::{COMMIT, HubServer};
use crate::pretraining::{corpus, short};
use crate::program::{command, succeed, success};

/// Runs a command with this server as the Hub and with the cache in `cache`; returns stdout.
fn online(line: &str, at: &Path, server: &HubServer) -> String {
    let mut command = command(line, at);
    command.env_remove("HF_HUB_OFFLINE").env_remove("HF_TOKEN");
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HUB_CACHE", at.join("cache"));
    success(&command.output().unwrap())
}

#[test]
fn a_model_or_a_tokenizer_may_be_a_name() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 2, ""), at);
    let server = HubServer::start();
    let read = |name: &str| fs::read(at.join("run").join(name)).unwrap();
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"].map(|n| (n, read(n)));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, &**content)).collect();
    server.add("owner/name", &files);
    let snapshot = at.join("cache/models--owner--name/snapshots").join(COMMIT);

    let learned = short("other", 2, "--tokenizer owner/name").replace("--vocab-size 400", "");
    online(&learned, at, &server);
    assert!(snapshot.join("tokenizer.json").exists() && !snapshot.join("model.safetensors").exists());
    assert_eq!(fs::read(at.join("other/tokenizer.json")).unwrap(), read("tokenizer.json"));

    let fill = |model: &str| format!("fill-mask --model {model} 'Anna [MASK]' --json --quiet --device flex");
    assert_eq!(online(&fill("owner/name"), at, &server), succeed(&fill("run"), at));
    server.requests();
    online(&short("adapted", 2, "--init owner/name").replace("--vocab-size 400", ""), at, &server);
    assert_eq!(server.requests(), ["HEAD /owner/name/resolve/main/config.json"]);
    for line in [
        "evaluate --model owner/name --corpus corpus.txt --max-seq-len 32 --json --quiet",
        "next-sentence --model owner/name --first a --second b --json --quiet",
    ] {
        assert!(online(line, at, &server).starts_with('{'), "{line}");
    }
}
