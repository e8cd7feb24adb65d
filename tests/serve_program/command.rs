//! Command-line errors are reported before the port opens.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::PROGRAM;
use crate::models::models;
use crate::server::Server;

/// Runs the program, which must fail with exit code `code`, and returns stderr.
fn fail(directory: &Path, options: &str, code: i32) -> String {
    let output = Command::new(PROGRAM)
        .args(options.split_whitespace())
        .current_dir(directory)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{options}: {message}");
    assert!(output.stdout.is_empty() && !message.contains("panicked"), "{message}");
    assert!(!message.contains("listening on"), "{options}: {message}");
    message
}

#[test]
fn a_wrong_command_line_is_refused() {
    let directory = models();
    for (options, expected) in [
        ("", "--model <MODEL>"),
        ("--model encoder --bogus", "--bogus"),
        ("--model encoder --port 99999", "99999"),
        (
            "--model encoder --host 0.0.0.0",
            "--host 0.0.0.0: other machines can reach it: add --api-key-file FILE, or --no-auth",
        ),
        ("--model encoder --no-auth --api-key-file keys", "cannot be used with"),
        ("--model encoder --timeout 0", "expected seconds"),
        ("--model encoder --precision f16", "none of f32, bf16, int8"),
        ("--model encoder --max-inputs 0", "--max-inputs: found 0"),
        ("--model encoder --model encoder", "two models are called `encoder`"),
    ] {
        let message = fail(directory.path(), options, 2);
        assert!(message.contains(expected), "{options}: {message}");
    }
}

#[test]
fn what_cannot_be_served_is_told_before_the_port_opens() {
    let directory = models();
    let at = directory.path();
    fs::write(at.join("keys"), "\n").unwrap();
    fs::copy(at.join("labels/config.json"), at.join("tags/config.json")).unwrap();
    fs::write(at.join("answers/model.safetensors"), "not a tensor").unwrap();
    fs::remove_file(at.join("masks/tokenizer.json")).unwrap();
    for (options, expected) in [
        ("--model nowhere", "nowhere"),
        ("--model encoder --model tags", "tags/model.safetensors"),
        ("--model answers", "answers/model.safetensors"),
        ("--model masks", "tokenizer.json or vocab.txt"),
        ("--model encoder --api-key-file keys", "keys: found no key"),
        ("--model encoder --api-key-file none", "none: cannot read"),
        ("--model encoder --device abacus", "abacus"),
    ] {
        let message = fail(at, &format!("{options} --port 0"), 1);
        assert!(message.lines().last().unwrap().starts_with("error: "), "{message}");
        assert!(message.contains(expected), "{options}: {message}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let message = fail(at, &format!("--model encoder --port {port}"), 1);
    assert!(message.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{message}");
}

#[test]
fn other_addresses() {
    let directory = models();
    for options in ["--host localhost", "--host 0.0.0.0 --no-auth", "--host ::1"] {
        // The last address cannot be tested on a machine without IPv6.
        if options.ends_with("::1") && TcpListener::bind("[::1]:0").is_err() {
            println!("skipped: this machine has no ::1");
            continue;
        }
        let server = Server::start(directory.path(), &format!("--model encoder {options}"));
        assert_eq!(server.get("/health").status, 200);
    }
}
