//! Which files are downloaded, where they are stored, and which requests are repeated.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bert_model::hub::HubProblem;

use crate::hub_server::{COMMIT, Fault, HubServer, sha256};
use crate::{CONFIG, Lab, parsed, problem, weights};

/// A commit other than that of the main branch.
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

#[test]
fn the_files_that_are_needed_are_fetched_once_into_pythons_layout() {
    let lab = Lab::new();
    assert_eq!(lab.open("owner/name").unwrap(), lab.snapshot());
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(lab.names(&format!("snapshots/{COMMIT}")), files);
    assert_eq!(fs::read(lab.snapshot().join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_to_string(lab.path("refs/main")).unwrap(), COMMIT);
    let missing = ["added_tokens.json", "finetune.json", "modules.json", "special_tokens_map.json"];
    assert_eq!(lab.names(&format!(".no_exist/{COMMIT}")), missing);
    let mut blobs = vec![sha256(&weights())];
    blobs.extend([CONFIG, b"{}", b"{\"a\": 1}"].map(|content| sha256(content)[..40].to_string()));
    blobs.sort();
    assert_eq!(lab.names("blobs"), blobs, "and nothing else");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(lab.snapshot().join("config.json")).unwrap(),
        Path::new(&format!("../../blobs/{}", &sha256(CONFIG)[..40]))
    );
    assert!(lab.cache.path().join(".locks/models--owner--name").is_dir());

    let first = lab.server.requests();
    for file in files {
        let count = |method: &str| {
            first.iter().filter(|line| line.starts_with(method) && line.contains(&format!("/{file}"))).count()
        };
        assert!(count("HEAD") == 1 && count("GET") >= 1, "{file}: {first:?}");
    }
    lab.open("owner/name").unwrap();
    assert_eq!(lab.server.requests(), ["HEAD /owner/name/resolve/main/config.json"], "one question for a branch");
    lab.open(&format!("owner/name@{COMMIT}")).unwrap();
    lab.hub().offline(true).model(&parsed("owner/name")).unwrap();
    assert!(lab.server.requests().is_empty(), "none for a commit, none offline");
}

#[test]
fn a_commit_is_fetched_without_a_branch() {
    let lab = Lab::new();
    lab.open(&format!("owner/name@{COMMIT}")).unwrap();
    assert!(lab.names("refs").is_empty());
    lab.server.requests();
    lab.open(&format!("owner/name@{COMMIT}")).unwrap();
    assert!(lab.server.requests().is_empty());
}

#[test]
fn branches_tags_and_short_names() {
    let lab = Lab::new();
    lab.server.change("owner/name", |model| {
        let mut files = model.commits[COMMIT].clone();
        files.insert("config.json".into(), b"{\"other\": 1}".to_vec());
        model.commits.insert(OTHER.into(), files);
        model.branches.insert("refs/pr/1".into(), OTHER.into());
    });
    lab.open("owner/name").unwrap();
    let other = lab.open("owner/name@refs/pr/1").unwrap();
    assert_eq!(other, lab.path("snapshots").join(OTHER));
    assert_eq!(fs::read(other.join("config.json")).unwrap(), b"{\"other\": 1}");
    assert_eq!(fs::read(lab.snapshot().join("config.json")).unwrap(), CONFIG);
    assert_eq!(fs::read_to_string(lab.path("refs/refs/pr/1")).unwrap(), OTHER);
    let requests = lab.server.requests();
    let weights = requests.iter().filter(|line| line.starts_with("GET /storage/")).count();
    assert_eq!(weights, 1, "the weights of both commits are one blob: {requests:?}");

    // If the branch moves on, the next run follows it, and the old commit remains.
    lab.server.change("owner/name", |model| drop(model.branches.insert("main".into(), OTHER.into())));
    assert_eq!(lab.open("owner/name").unwrap(), other);
    assert!(lab.snapshot().join("config.json").exists());

    lab.server.add("bert-base-uncased", &[("config.json", CONFIG), ("model.safetensors", b"x")]);
    let directory = lab.open("bert-base-uncased").unwrap();
    assert_eq!(directory, lab.cache.path().join("models--bert-base-uncased/snapshots").join(COMMIT));
}

#[test]
fn a_model_that_was_renamed_is_found() {
    let lab = Lab::new();
    lab.server.add("old/name", &[]);
    lab.server.change("old/name", |model| model.moved_to = Some("owner/name".into()));
    let directory = lab.open("old/name").unwrap();
    assert_eq!(fs::read(directory.join("config.json")).unwrap(), CONFIG);
}

#[test]
fn a_mirror_may_have_large_files_itself_and_say_less() {
    let lab = Lab::at(HubServer::on_one_host());
    lab.server.fail("HEAD", 99, Fault::Without("X-Error-Code"));
    lab.open("owner/name").unwrap();
    assert_eq!(fs::read(lab.snapshot().join("model.safetensors")).unwrap(), weights());
    let (found, message) = lab.problem("owner/name@nothing");
    assert!(found == HubProblem::NoRepository && message.contains("a model on http"), "{message}");
}

#[test]
fn weights_come_in_one_form() {
    let lab = Lab::new();
    let index = br#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}"#;
    let shards: [(&str, &[u8]); 5] = [
        ("config.json", CONFIG),
        ("model.safetensors.index.json", index),
        ("m-1.safetensors", b"one"),
        ("m-2.safetensors", b"two"),
        ("pytorch_model.bin", b"not needed"),
    ];
    lab.server.add("owner/name", &shards);
    let directory = lab.open("owner/name").unwrap();
    assert_eq!(fs::read(directory.join("m-2.safetensors")).unwrap(), b"two");
    assert!(!directory.join("pytorch_model.bin").exists());
    lab.server.add("owner/old", &[("config.json", CONFIG), ("pytorch_model.bin", b"old"), ("vocab.txt", b"[PAD]")]);
    let directory = lab.open("owner/old").unwrap();
    assert_eq!(fs::read(directory.join("pytorch_model.bin")).unwrap(), b"old");
    assert_eq!(fs::read(directory.join("vocab.txt")).unwrap(), b"[PAD]");
    lab.server.add("owner/half", &[("config.json", CONFIG), ("model.safetensors.index.json", index)]);
    let (found, message) = lab.problem("owner/half");
    assert!(found == HubProblem::NoFile && message.starts_with("owner/half: found no m-1.safetensors"), "{message}");
    lab.server.add("owner/empty", &[("config.json", CONFIG), ("tf_model.h5", b"x")]);
    let (found, message) = lab.problem("owner/empty");
    assert!(found == HubProblem::NoFile && message.contains("no model.safetensors, no pytorch_model.bin"), "{message}");
}

#[test]
fn the_modules_of_sentence_transformers_come_along() {
    let lab = Lab::new();
    let modules = br#"[
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    lab.server.change("owner/name", |model| {
        let files = model.commits.get_mut(COMMIT).unwrap();
        for (file, content) in [
            ("modules.json", &modules[..]),
            ("sentence_bert_config.json", b"{\"max_seq_length\": 7}"),
            ("1_Pooling/config.json", b"{\"p\": 1}"),
            ("2_Dense/config.json", b"{\"d\": 1}"),
            ("2_Dense/model.safetensors", b"dense"),
            ("2_Dense/pytorch_model.bin", b"not needed"),
        ] {
            files.insert(file.into(), content.to_vec());
        }
    });
    let directory = lab.open("owner/name").unwrap();
    assert_eq!(fs::read(directory.join("1_Pooling/config.json")).unwrap(), b"{\"p\": 1}");
    assert_eq!(fs::read(directory.join("2_Dense/model.safetensors")).unwrap(), b"dense");
    assert!(
        directory.join("sentence_bert_config.json").exists() && !directory.join("2_Dense/pytorch_model.bin").exists()
    );
    #[cfg(unix)]
    assert!(fs::read_link(directory.join("1_Pooling/config.json")).unwrap().starts_with("../../../blobs"));
    lab.server.requests();
    lab.open("owner/name").unwrap();
    assert_eq!(lab.server.requests().len(), 1);
}

#[test]
fn a_tokenizer_comes_without_weights() {
    let lab = Lab::new();
    let directory = lab.hub().tokenizer(&parsed("owner/name")).unwrap();
    assert!(directory.join("tokenizer.json").exists() && !directory.join("model.safetensors").exists());
    lab.server.requests();
    lab.hub().tokenizer(&parsed("owner/name")).unwrap();
    assert_eq!(lab.server.requests().len(), 1);
    lab.server.add("owner/empty", &[("config.json", CONFIG)]);
    let (found, _) = problem(lab.hub().tokenizer(&parsed("owner/empty")));
    assert_eq!(found, HubProblem::NoFile);
    let file = lab.hub().file(&parsed("owner/name"), "README.md").unwrap().unwrap();
    assert_eq!(fs::read(file).unwrap(), b"not needed");
    assert_eq!(lab.hub().file(&parsed("owner/name"), "LICENSE").unwrap(), None);
}

#[test]
fn what_is_missing_offline_is_an_error_and_nothing_is_asked() {
    let lab = Lab::new();
    let offline = || lab.hub().offline(true).model(&parsed("owner/name"));
    let (found, message) = problem(offline());
    assert!(found == HubProblem::Offline && message.contains("HF_HUB_OFFLINE"), "{message}");
    lab.open("owner/name").unwrap();
    fs::remove_file(lab.snapshot().join("model.safetensors")).unwrap();
    assert_eq!(problem(offline()).0, HubProblem::Offline);
    let (found, _) = problem(lab.hub().offline(true).model(&parsed("owner/name@other")));
    assert_eq!(found, HubProblem::Offline);
    lab.server.requests();
    // A link without its blob counts as missing; the blob is downloaded again.
    lab.open("owner/name").unwrap();
    fs::remove_file(lab.path("blobs").join(sha256(&weights()))).unwrap();
    lab.open("owner/name").unwrap();
    assert_eq!(fs::read(lab.snapshot().join("model.safetensors")).unwrap(), weights());
}

#[test]
fn the_cache_stands_in_for_a_hub_that_does_not_answer() {
    let lab = Lab::new();
    lab.open("owner/name").unwrap();
    let silent = lab.hub().endpoint("http://127.0.0.1:9");
    assert_eq!(silent.model(&parsed("owner/name")).unwrap(), lab.snapshot());
    assert_eq!(silent.model(&parsed(&format!("owner/name@{COMMIT}"))).unwrap(), lab.snapshot());
    let (found, message) = problem(silent.model(&parsed("owner/other")));
    assert!(found == HubProblem::Unreachable && message.contains("HF_ENDPOINT"), "{message}");
    fs::remove_file(lab.snapshot().join("model.safetensors")).unwrap();
    assert_eq!(problem(silent.model(&parsed("owner/name"))).0, HubProblem::Unreachable);
}

#[test]
fn a_list_of_a_commits_files_that_python_left_is_believed() {
    let lab = Lab::new();
    lab.open("owner/name").unwrap();
    fs::remove_dir_all(lab.path(".no_exist")).unwrap();
    fs::create_dir(lab.path("trees")).unwrap();
    let files: String = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        .map(|file| format!("\"{file}\": {{\"size\": 1, \"blob_id\": \"x\"}}"))
        .join(",");
    let tree = format!("{{\"format_version\": 1, \"files\": {{{files}}}}}");
    fs::write(lab.path(&format!("trees/{COMMIT}.json")), tree).unwrap();
    lab.server.requests();
    lab.open(&format!("owner/name@{COMMIT}")).unwrap();
    assert!(lab.server.requests().is_empty());
}

#[test]
fn progress_is_told_and_the_library_prints_nothing() {
    let lab = Lab::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let hub = lab.hub().on_progress(move |download| {
        log.lock().unwrap().push((download.file.to_string(), download.bytes, download.total, download.is_done));
    });
    hub.model(&parsed("owner/name")).unwrap();
    let told = told.lock().unwrap();
    let weights: Vec<_> = told.iter().filter(|(file, ..)| file == "model.safetensors").collect();
    assert_eq!((weights[0].1, weights[0].2), (0, Some(4_000_000)));
    assert!(weights.is_sorted_by_key(|told| told.1) && weights.len() > 3);
    assert!(weights.last().unwrap().3 && weights.last().unwrap().1 == 4_000_000);
    assert_eq!(told.iter().filter(|(.., is_done)| *is_done).count(), 4);
}
