//! Running a program (`PROGRAM` of the test that includes this file) as its users do: a command is one line, as it is
//! typed in a shell.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::PROGRAM;

/// The words of a command line; quotation marks, single or double, keep a text together.
pub fn args(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match quote {
            Some(mark) if mark == character => quote = None,
            None if character == '\'' || character == '"' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    assert!(quote.is_none(), "an unclosed quotation mark: {line}");
    words.extend(word);
    words
}

/// The program, about to run in `directory`.
pub fn command(line: &str, directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    // What is no directory is not looked for in the network, unless a test says so.
    command.args(args(line)).current_dir(directory).env("HF_HUB_OFFLINE", "1");
    command
}

pub fn run(line: &str, directory: &Path) -> Output {
    command(line, directory).output().unwrap()
}

/// Runs it with a text on its standard input.
pub fn feed(line: &str, directory: &Path, input: &str) -> Output {
    let pipes = |command: &mut Command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = pipes(&mut command(line, directory));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Writes lines to its standard input one by one, each after the answer to the one before; gives the answers.
pub fn converse(line: &str, directory: &Path, input: &[&str]) -> Vec<String> {
    let mut child = command(line, directory).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let (sender, answers) = channel();
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut ask = |text: &&str| {
        writeln!(stdin, "{text}").unwrap();
        answers.recv_timeout(Duration::from_secs(60)).ok()
    };
    let answered: Vec<String> = input.iter().map_while(&mut ask).collect();
    drop(stdin);
    let status = child.wait().unwrap();
    assert_eq!(answered.len(), input.len(), "an answer waits for the next line");
    assert!(status.success());
    answered
}

/// Runs it where no file may grow beyond `kib`, which is what a full disk looks like to a program.
#[cfg(unix)]
pub fn run_with_file_limit(kib: u64, line: &str, directory: &Path) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
    Command::new("sh").args(["-c", &script, PROGRAM]).args(args(line)).current_dir(directory).output().unwrap()
}

/// In the background, silent.
pub fn spawn(line: &str, directory: &Path) -> Child {
    command(line, directory).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs what should succeed; gives stdout.
pub fn succeed(line: &str, directory: &Path) -> String {
    success(&run(line, directory))
}

/// Asserts that a run succeeded; gives stdout.
pub fn success(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs what should succeed and print one JSON object.
pub fn json(line: &str, directory: &Path) -> Value {
    serde_json::from_str(&succeed(line, directory)).unwrap()
}

/// The JSON objects of a text, one a line.
pub fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An answer as it is when it comes from a row of a file or of the standard input.
pub fn in_row(row: u64, answer: &Value) -> Value {
    let mut line = serde_json::Map::from_iter([("row".to_string(), row.into())]);
    line.extend(answer.as_object().unwrap().clone());
    line.into()
}

/// The JSON objects of a file, one a line.
pub fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    objects(&fs::read_to_string(path).unwrap())
}

/// The JSON object of a file.
pub fn object(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs what should fail with `code`; gives stderr.
pub fn fail(line: &str, directory: &Path, code: i32) -> String {
    failure(&run(line, directory), code)
}

/// Asserts that a run failed with `code`, without panic and without a word on stdout; gives stderr.
pub fn failure(output: &Output, code: i32) -> String {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(output.stdout.is_empty(), "wrote to stdout: {}", text(&output.stdout));
    assert!(!message.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
    message
}

/// Waits for a process of the program and returns its peak memory use, in KiB.
///
/// For a moment after `spawn` the child still has the memory of the test (`vfork`); its name changes after that.
#[cfg(target_os = "linux")]
pub fn peak_until_end(child: &mut Child) -> u64 {
    let name = format!("Name:\t{}\n", Path::new(PROGRAM).file_name().unwrap().display());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        if status.starts_with(&name) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
            peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert!(peak > 0, "ended before its memory was read");
    peak
}
