//! Models given by their name on the Hugging Face Hub.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::hub_server::{COMMIT, Fault, HubServer};
use crate::program::{args, command, failure, objects, success, text};
use crate::{PROGRAM, workshop};

/// A server that offers the workshop's model as `owner/name`.
fn server(workshop: &TempDir) -> HubServer {
    let server = HubServer::start();
    let read = |name: &str| fs::read(workshop.path().join("model").join(name)).unwrap();
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"];
    let files: Vec<(&str, Vec<u8>)> = names.map(|name| (name, read(name))).into();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, &**content)).collect();
    server.add("owner/name", &files);
    server
}

/// A command that uses this server, with its cache in the workshop's `hf`.
fn online(line: &str, at: &Path, server: &HubServer) -> Command {
    let mut command = command(line, at);
    environment(&mut command, at, server);
    command
}

fn environment(command: &mut Command, at: &Path, server: &HubServer) {
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", at.join("hf"));
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"] {
        command.env_remove(name);
    }
}

fn output(line: &str, at: &Path, server: &HubServer) -> Output {
    online(line, at, server).output().unwrap()
}

#[test]
fn a_name_gives_what_its_directory_gives() {
    let directory = workshop();
    let at = directory.path();
    let server = server(&directory);
    let expected = success(&output("embed --model model 'a good film' --device flex --quiet", at, &server));
    assert!(server.requests().is_empty());
    let first = output("embed --model owner/name 'a good film' --device flex", at, &server);
    let messages = text(&first.stderr);
    assert!(messages.contains("fetched owner/name: model.safetensors, "), "{messages}");
    assert_eq!(success(&first), expected);
    server.requests();
    let second = output("embed --model owner/name 'a good film' --device flex", at, &server);
    assert!(!text(&second.stderr).contains("fetched"));
    assert_eq!(success(&second), expected);
    assert_eq!(server.requests(), ["HEAD /owner/name/resolve/main/config.json"]);
    for (line, offline) in [(format!("owner/name@{COMMIT}"), "0"), ("owner/name".to_string(), "1")] {
        let line = format!("embed --model {line} 'a good film' --device flex --quiet");
        let output = online(&line, at, &server).env("HF_HUB_OFFLINE", offline).output().unwrap();
        assert_eq!(success(&output), expected);
        assert!(output.stderr.is_empty() && server.requests().is_empty());
    }
}

#[test]
fn a_directory_of_that_name_wins() {
    let directory = workshop();
    let at = directory.path();
    let server = server(&directory);
    fs::create_dir(at.join("owner")).unwrap();
    fs::rename(at.join("model"), at.join("owner/name")).unwrap();
    success(&output("embed --model owner/name x --device flex --quiet", at, &server));
    assert!(server.requests().is_empty());
}

#[test]
fn a_model_is_fine_tuned_from_its_name() {
    let directory = workshop();
    let at = directory.path();
    let server = server(&directory);
    let line = "train --model owner/name --train films.tsv --eval films.tsv --lr 3e-3 --epochs 2 --max-seq-len 12 \
                --device flex --quiet --json -o run";
    success(&output(line, at, &server));
    let run = fs::read_to_string(at.join("run/run.json")).unwrap();
    assert!(run.contains(&format!("models--owner--name/snapshots/{COMMIT}")), "{run}");
    let predicted = success(&output("predict --model run 'a good film' --json --device flex --quiet", at, &server));
    assert_eq!(objects(&predicted).len(), 1);
}

#[test]
fn a_name_of_nothing_is_one_line() {
    let directory = workshop();
    let at = directory.path();
    let server = server(&directory);
    for (name, offline, expected) in [
        (
            "owner/nothing",
            "0",
            "error: owner/nothing: found status 401 (Repository not found), expected a directory of",
        ),
        ("owner/name@nothing", "0", "error: owner/name@nothing: found status 404 (Invalid rev id), expected a branch"),
        ("owner/name@../x", "0", "error: owner/name@../x: found the revision \"../x\", expected a branch, a tag or"),
        ("../owner", "0", "error: ../owner/config.json: cannot read: No such file or directory"),
        (
            "owner/name",
            "1",
            "error: owner/name: found no such directory, and no complete copy of such a model in the cache",
        ),
    ] {
        let line = format!("embed --model {name} x --device flex --quiet");
        let message = failure(&online(&line, at, &server).env("HF_HUB_OFFLINE", offline).output().unwrap(), 1);
        assert!(message.starts_with(expected) && message.lines().count() == 1, "{name}: {message}");
    }
    assert!(!at.join("hf").exists(), "nothing is left behind");
}

#[test]
fn two_programs_at_once_fetch_once() {
    let directory = workshop();
    let at = directory.path();
    let server = server(&directory);
    server.fail("GET /storage", 1, Fault::Pause(Duration::from_millis(800)));
    let line = "embed --model owner/name 'a good film' --device flex --quiet";
    let piped = |command: &mut Command| command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let both = [0, 1].map(|_| piped(&mut online(line, at, &server)));
    let [first, second] = both.map(|child| success(&child.wait_with_output().unwrap()));
    assert_eq!(first, second);
    let stored = server.requests().iter().filter(|line| line.contains("/storage/")).count();
    assert_eq!(stored, 1);
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_the_next_run_goes_on() {
    let directory = workshop();
    let at = directory.path();
    let server = server(&directory);
    let line = "embed --model owner/name 'a good film' --device flex --quiet";
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"", PROGRAM]).args(args(line)).current_dir(at);
    environment(&mut limited, at, &server);
    let message = failure(&limited.output().unwrap(), 1);
    assert!(message.contains(".incomplete: cannot write: File too large"), "{message}");
    assert!(!at.join(format!("hf/hub/models--owner--name/snapshots/{COMMIT}/model.safetensors")).exists());
    server.requests();
    success(&output(line, at, &server));
    let requests = server.requests();
    assert!(requests.iter().any(|line| line.contains("/storage/") && line.contains("bytes=8192-")), "{requests:?}");
}
