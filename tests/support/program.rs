//! Running a program (`PROGRAM` of the test that includes this file) as its users do.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::PROGRAM;

/// The program, about to run in `directory`.
pub fn command(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory);
    command
}

pub fn run(arguments: &[&str], directory: &Path) -> Output {
    command(arguments, directory).output().unwrap()
}

/// Runs it where no file may grow beyond `kib`, which is what a full disk looks like to a program.
#[cfg(unix)]
pub fn run_with_file_limit(kib: u64, arguments: &[&str], directory: &Path) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
    Command::new("sh").args(["-c", &script, PROGRAM]).args(arguments).current_dir(directory).output().unwrap()
}

/// In the background, silent.
pub fn spawn(arguments: &[&str], directory: &Path) -> std::process::Child {
    command(arguments, directory).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs what should succeed; gives stdout.
pub fn succeed(arguments: &[&str], directory: &Path) -> String {
    let output = run(arguments, directory);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs what should succeed and print one JSON object.
pub fn json(arguments: &[&str], directory: &Path) -> Value {
    serde_json::from_str(&succeed(arguments, directory)).unwrap()
}

/// Runs what should fail with `code`; gives stderr.
pub fn fail(arguments: &[&str], directory: &Path, code: i32) -> String {
    failure(&run(arguments, directory), code)
}

/// Asserts that a run failed with `code`, without panic and without a word on stdout; gives stderr.
pub fn failure(output: &Output, code: i32) -> String {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(output.stdout.is_empty(), "wrote to stdout: {}", text(&output.stdout));
    assert!(!message.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
    message
}
