//! Python's `huggingface_hub` and this crate find each other's downloads. The tests need an interpreter with that
//! package, named by `BERT_PYTHON`, and report that they are skipped if there is none.

use std::process::Command;

use bert_model::hub::Hub;

use crate::{CONFIG, Lab, parsed, weights};

/// Runs a Python program against the lab's server and cache; `None` without an interpreter.
fn python(lab: &Lab, environment: &[(&str, &str)], program: &str) -> Option<String> {
    let Some(python) = std::env::var_os("BERT_PYTHON") else {
        println!("skipped: BERT_PYTHON names no interpreter with huggingface_hub");
        return None;
    };
    let mut command = Command::new(python);
    command.arg("-c").arg(program).env("HF_ENDPOINT", &lab.server.endpoint).env("HF_HUB_CACHE", lab.cache.path());
    command.env_remove("HF_TOKEN").env("HF_HUB_DISABLE_PROGRESS_BARS", "1").env("HF_HUB_DISABLE_UPDATE_CHECK", "1");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_string())
}

/// Requests the files of the model one by one, like transformers, including files that do not exist.
const FETCH: &str = r#"
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
             "modules.json", "finetune.json"]:
    try:
        print(hf_hub_download("owner/name", file))
    except EntryNotFoundError:
        print("none")
"#;

#[test]
fn python_finds_what_we_fetched() {
    let lab = Lab::new();
    lab.open("owner/name").unwrap();
    lab.server.requests();
    let Some(output) =
        python(&lab, &[("HF_HUB_OFFLINE", "1")], &FETCH.replace(", \"modules.json\", \"finetune.json\"", ""))
    else {
        return;
    };
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(output.contains(&lab.snapshot().join(file).display().to_string()), "{output}");
    }
    assert!(lab.server.requests().is_empty());
    let known = r#"
from huggingface_hub import try_to_load_from_cache, _CACHED_NO_EXIST, scan_cache_dir
assert try_to_load_from_cache("owner/name", "modules.json") is _CACHED_NO_EXIST
cache = scan_cache_dir()
assert not cache.warnings, cache.warnings
print([repo.repo_id for repo in cache.repos], len(list(cache.repos)[0].revisions))
"#;
    assert_eq!(python(&lab, &[], known).unwrap(), "['owner/name'] 1");
}

#[test]
fn we_find_what_python_fetched() {
    let lab = Lab::new();
    let Some(output) = python(&lab, &[], FETCH) else { return };
    assert!(output.contains("model.safetensors") && output.contains("none"), "{output}");
    lab.server.requests();
    let silent = |hub: Hub| hub.offline(true).model(&parsed("owner/name")).unwrap();
    assert_eq!(silent(lab.hub()), lab.snapshot());
    assert_eq!(lab.open("owner/name").unwrap(), lab.snapshot());
    assert_eq!(lab.server.requests(), ["HEAD /owner/name/resolve/main/config.json"]);
    assert_eq!(std::fs::read(lab.snapshot().join("config.json")).unwrap(), CONFIG);
    assert_eq!(std::fs::read(lab.snapshot().join("model.safetensors")).unwrap(), weights());
}

#[test]
fn python_goes_on_with_a_snapshot_of_ours() {
    let lab = Lab::new();
    lab.hub().tokenizer(&parsed("owner/name")).unwrap();
    lab.server.requests();
    let Some(_) = python(&lab, &[], FETCH) else { return };
    let requests = lab.server.requests();
    assert!(requests.iter().any(|line| line.contains("/storage/")), "{requests:?}");
    assert!(!requests.iter().any(|line| line.starts_with("GET") && line.contains("tokenizer")), "{requests:?}");
    assert_eq!(lab.open("owner/name").unwrap(), lab.snapshot());
}
