//! Interrupted, damaged and concurrent transfers.

use std::fs;
use std::thread;
use std::time::Duration;

use bert_model::Error;
use bert_model::hub::HubProblem;

use crate::hub_server::{Fault, sha256};
use crate::{Lab, parsed, problem, weights};

fn assert_whole(lab: &Lab) {
    assert_eq!(fs::read(lab.snapshot().join("model.safetensors")).unwrap(), weights());
    let odd: Vec<String> = lab.names("blobs").into_iter().filter(|name| name.contains('.')).collect();
    assert!(odd.is_empty(), "left behind: {odd:?}");
}

/// The ranges of the weights that were requested.
fn ranges(lab: &Lab) -> Vec<String> {
    let requests = lab.server.requests();
    let stored = requests.iter().filter(|line| line.contains("/storage/"));
    stored.map(|line| line.split(' ').nth(2).unwrap_or("all").to_string()).collect()
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Cut(1_000_000));
    lab.server.fail("GET /storage", 1, Fault::Cut(500_000));
    lab.open("owner/name").unwrap();
    assert_whole(&lab);
    assert_eq!(ranges(&lab), ["all", "bytes=1000000-", "bytes=1500000-"]);
}

#[test]
fn another_run_goes_on_where_the_last_one_stopped() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Cut(3_000_000));
    lab.server.fail("GET /storage", 99, Fault::Cut(0));
    let (found, message) = lab.problem("owner/name");
    assert!(found == HubProblem::Unreachable, "{message}");
    assert!(message.contains("model.safetensors: 3000000 of 4000000 bytes"), "{message}");
    assert!(!lab.snapshot().join("model.safetensors").exists());
    assert_eq!(ranges(&lab).len(), 6, "five repetitions without a byte");
    let partial = lab.path("blobs").join(format!("{}.incomplete", sha256(&weights())));
    assert_eq!(fs::metadata(partial).unwrap().len(), 3_000_000);

    let healthy = Lab { server: crate::hub_server::HubServer::start(), cache: lab.cache };
    healthy.server.add("owner/name", &[("config.json", crate::CONFIG), ("model.safetensors", &weights())]);
    healthy.open("owner/name").unwrap();
    assert_whole(&healthy);
    assert_eq!(ranges(&healthy), ["bytes=3000000-"]);
}

#[test]
fn bytes_of_another_file_are_found_out_by_their_hash() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("blobs")).unwrap();
    let partial = lab.path("blobs").join(format!("{}.incomplete", sha256(&weights())));
    for left in [1_000_000, 4_000_000, 5_000_000] {
        fs::write(&partial, vec![7; left]).unwrap();
        lab.open("owner/name").unwrap();
        assert_whole(&lab);
        fs::remove_dir_all(lab.path("snapshots")).unwrap();
        fs::remove_file(lab.path("blobs").join(sha256(&weights()))).unwrap();
    }
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Cut(1_000_000));
    lab.server.fail("GET /storage", 1, Fault::Whole);
    lab.open("owner/name").unwrap();
    assert_whole(&lab);
    assert_eq!(ranges(&lab), ["all", "bytes=1000000-"]);
}

#[test]
fn a_server_that_gets_no_further_is_left() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Cut(1_000_000));
    for _ in 0..9 {
        lab.server.fail("GET /storage", 1, Fault::Status(416, vec![]));
        lab.server.fail("GET /storage", 1, Fault::Cut(1_000_000));
    }
    assert_eq!(lab.problem("owner/name").0, HubProblem::Damaged);
    assert_eq!(ranges(&lab).len(), 12, "five repetitions, and once more from the beginning");
}

#[test]
fn damaged_bytes_are_fetched_once_more_and_never_opened() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Flip);
    lab.open("owner/name").unwrap();
    assert_whole(&lab);

    let lab = Lab::new();
    lab.server.fail("GET /storage", 99, Fault::Flip);
    let (found, message) = lab.problem("owner/name");
    assert!(found == HubProblem::Damaged && message.contains("bytes with SHA-256"), "{message}");
    assert!(!lab.snapshot().join("model.safetensors").exists());
    assert!(lab.names("blobs").iter().all(|name| name.len() == 40), "{:?}", lab.names("blobs"));
}

#[test]
fn a_length_that_lies_is_an_error() {
    for (part, file) in [("GET /storage", "model.safetensors"), ("GET /owner/name/resolve", "config.json")] {
        for fault in [Fault::LongerLength(1), Fault::LongerLength(100_000)] {
            let lab = Lab::new();
            lab.server.fail(part, 99, fault.clone());
            let (found, message) = lab.problem("owner/name");
            assert!(found == HubProblem::Damaged && message.contains(file), "{fault:?}: {message}");
            assert!(!lab.snapshot().join(file).exists());
        }
    }
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Cut(1_000_000));
    lab.server.fail("GET /storage", 1, Fault::OtherPart);
    lab.open("owner/name").unwrap();
    assert_whole(&lab);
}

#[test]
fn a_file_that_changes_between_two_requests_is_asked_for_again() {
    let lab = Lab::new();
    lab.server.fail("GET /owner/name/resolve", 1, Fault::OtherVersion);
    lab.open("owner/name").unwrap();
    assert_eq!(fs::read(lab.snapshot().join("config.json")).unwrap(), crate::CONFIG);

    let lab = Lab::new();
    lab.server.fail("GET /owner/name/resolve", 99, Fault::OtherVersion);
    let (found, message) = lab.problem("owner/name");
    assert!(found == HubProblem::Damaged && message.contains("a different version of the file"), "{message}");
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Silence(100_000));
    lab.hub().timeout(Duration::from_millis(1500)).model(&parsed("owner/name")).unwrap();
    assert_whole(&lab);
    // A connection that is merely slow is not given up.
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Pause(Duration::from_millis(500)));
    lab.hub().timeout(Duration::from_secs(5)).model(&parsed("owner/name")).unwrap();
    assert_eq!(ranges(&lab), ["all"]);
}

#[test]
fn several_at_once_fetch_once() {
    let lab = Lab::new();
    lab.server.fail("GET /storage", 1, Fault::Pause(Duration::from_millis(500)));
    thread::scope(|scope| {
        let fetch = || lab.open("owner/name").unwrap();
        let all: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        all.into_iter().for_each(|each| assert_eq!(each.join().unwrap(), lab.snapshot()));
    });
    assert_whole(&lab);
    assert_eq!(ranges(&lab), ["all"], "the others wait for the first");
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_is_named_and_still_read() {
    use std::os::unix::fs::symlink;
    let lab = Lab::new();
    // A device that is always full takes the place of the partial weight file.
    fs::create_dir_all(lab.path("blobs")).unwrap();
    let partial = lab.path("blobs").join(format!("{}.incomplete", sha256(&weights())));
    symlink("/dev/full", &partial).unwrap();
    let error = lab.open("owner/name").unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains(".incomplete: cannot write"), "{error}");
    assert!(!lab.snapshot().join("model.safetensors").exists());
    fs::remove_file(&partial).unwrap();
    lab.open("owner/name").unwrap();
    assert_whole(&lab);

    // The cache directory is in fact a file.
    let hub = lab.hub().cache(lab.snapshot().join("config.json"));
    assert!(matches!(hub.model(&parsed("owner/name")).unwrap_err(), Error::Io { .. }));
    let (found, _) = problem(hub.offline(true).model(&parsed("owner/name")));
    assert_eq!(found, HubProblem::Offline);
}
