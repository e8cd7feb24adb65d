//! Responses of the Hub other than the requested file.

use std::time::{Duration, Instant};

use bert_model::hub::HubProblem;

use crate::hub_server::{COMMIT, Fault};
use crate::{Lab, parsed, problem};

#[test]
fn models_revisions_and_files_that_are_not_there_are_told_apart() {
    let lab = Lab::new();
    for (name, expected, part) in [
        ("owner/nothing", HubProblem::NoRepository, "status 401"),
        ("owner/name@nothing", HubProblem::NoRevision, "expected a branch, tag or commit of that model"),
        (&*format!("owner/name@{}", "0".repeat(40)), HubProblem::NoRevision, "Invalid rev id"),
    ] {
        let (found, message) = lab.problem(name);
        assert!(found == expected && message.starts_with(name) && message.contains(part), "{message}");
    }
    let (found, message) = problem(lab.hub().token(Some("hf_x".into())).model(&parsed("owner/nothing")));
    assert!(found == HubProblem::NoRepository && message.contains("status 404"), "{message}");
    assert!(message.contains("a directory of that name") && !message.contains("hf_x"), "{message}");
    lab.server.add("owner/empty", &[("README.md", b"x")]);
    let (found, message) = lab.problem("owner/empty");
    assert!(found == HubProblem::NoFile && message.contains("no config.json"), "{message}");
    assert!(lab.names("snapshots").is_empty(), "nothing is left behind");
}

#[test]
fn private_and_gated_models_need_a_token_that_only_the_hub_sees() {
    let lab = Lab::new();
    lab.server.change("owner/name", |model| model.token = Some("hf_right".into()));
    let with = |token: &str| lab.hub().token(Some(token.into())).model(&parsed("owner/name"));
    let (found, message) = lab.problem("owner/name");
    assert!(found == HubProblem::NoRepository && message.contains("HF_TOKEN"), "{message}");
    let (found, message) = problem(with("hf_wrong"));
    assert!(found == HubProblem::Unauthorized && message.contains("a valid token in HF_TOKEN"), "{message}");
    lab.server.change("owner/name", |model| model.is_gated = true);
    let (found, message) = problem(with("hf_right"));
    assert!(
        found == HubProblem::Forbidden && message.contains("status 403 (Access to model is restricted)"),
        "{message}"
    );
    lab.server.change("owner/name", |model| model.is_gated = false);
    lab.server.requests();
    with("hf_right").unwrap();
    let requests = lab.server.requests();
    for line in &requests {
        assert_eq!(line.ends_with("with a token"), !line.contains("/storage/"), "{line}");
    }
    assert!(requests.iter().any(|line| line.contains("/storage/")));
    // Downloaded files remain available to the user, even when the token is gone.
    lab.open("owner/name").unwrap();
}

#[test]
fn a_busy_or_failing_hub_is_asked_again() {
    for (part, status) in [
        ("HEAD /owner/name/resolve/main", 429),
        ("HEAD /owner/name/resolve/0", 500),
        ("GET /owner", 502),
        ("GET /storage", 503),
        ("GET /storage", 504),
        ("GET /storage", 408),
    ] {
        let lab = Lab::new();
        lab.server.fail(part, 3, Fault::Status(status, vec![]));
        lab.open("owner/name").unwrap_or_else(|error| panic!("{part}, {status}: {error}"));
    }
}

#[test]
fn the_wait_that_the_hub_asks_for_is_kept() {
    let lab = Lab::new();
    lab.server.fail("HEAD", 1, Fault::Status(429, vec![("Retry-After", "1".into())]));
    lab.server.fail("GET /storage", 1, Fault::Status(503, vec![("Retry-After", "1".into())]));
    let started = Instant::now();
    lab.open("owner/name").unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));

    let lab = Lab::new();
    lab.server.fail("HEAD", 9, Fault::Status(429, vec![("RateLimit", "\"api\";r=0;t=3000".into())]));
    let (found, message) = lab.problem("owner/name");
    assert!(found == HubProblem::Busy && message.contains("asking to wait 3000 seconds"), "{message}");
}

#[test]
fn a_hub_that_fails_for_good_is_an_error() {
    let lab = Lab::new();
    lab.server.fail("HEAD", 99, Fault::Status(500, vec![]));
    let (found, message) = lab.problem("owner/name");
    assert!(found == HubProblem::Server && message.contains("status 500"), "{message}");
    assert_eq!(lab.server.requests().len(), 6, "five repetitions");

    let lab = Lab::new();
    lab.server.fail("GET /storage", 99, Fault::Status(403, vec![]));
    let (found, _) = lab.problem("owner/name");
    assert_eq!(found, HubProblem::Forbidden);
    assert!(!lab.snapshot().join("model.safetensors").exists());
}

/// If the cache has the model, a failing Hub costs a single request. Otherwise, nothing is guessed: if the Hub fails to
/// describe a file in the middle of a first download, that is an error, and not a missing file.
#[test]
fn a_failure_in_the_middle_is_not_taken_for_a_missing_file() {
    let lab = Lab::new();
    lab.server.fail(&format!("HEAD /owner/name/resolve/{COMMIT}/modules.json"), 99, Fault::Status(503, vec![]));
    assert_eq!(lab.problem("owner/name").0, HubProblem::Server);

    let lab = Lab::new();
    lab.open("owner/name").unwrap();
    lab.server.requests();
    lab.server.fail("HEAD", 99, Fault::Status(503, vec![("Retry-After", "100".into())]));
    lab.open("owner/name").unwrap();
    assert_eq!(lab.server.requests().len(), 1);
}

#[test]
fn what_is_no_hub_is_named() {
    for header in ["X-Repo-Commit", "ETag"] {
        let lab = Lab::new();
        lab.server.fail("HEAD", 99, Fault::Without(header));
        let (found, message) = lab.problem("owner/name");
        assert!(found == HubProblem::Protocol && message.contains("HF_ENDPOINT"), "{message}");
    }
    let lab = Lab::new();
    for (header, value) in [("X-Repo-Commit", "../../../x"), ("ETag", "\"../../../x\"")] {
        let mut headers = vec![("X-Repo-Commit", COMMIT.to_string()), ("ETag", "\"a\"".into())];
        headers.retain(|(name, _)| *name != header);
        headers.push((header, value.into()));
        lab.server.fail("HEAD", 1, Fault::Status(200, headers));
        assert_eq!(lab.problem("owner/name").0, HubProblem::Protocol, "{header}: {value}");
    }
    assert!(!lab.cache.path().join("models--owner--name").exists());
    let lab = Lab::new();
    lab.server.add("owner/loop", &[]);
    lab.server.change("owner/loop", |model| model.moved_to = Some("owner/loop".into()));
    let (found, message) = lab.problem("owner/loop");
    assert!(found == HubProblem::Protocol && message.contains("more than 10 redirects"), "{message}");
}
