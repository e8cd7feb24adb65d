//! A server that runs for as long as a test needs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PROGRAM;
use crate::http::{Response, exchange, request_bytes};

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Collects the log after startup until the server exits.
    log: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    /// Starts the program in a directory of models, on a free port, and waits until it listens.
    pub fn start(directory: &Path, options: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["--port", "0", "--device", "flex"]).args(options.split_whitespace()).current_dir(directory);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut before = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("never listened: {before:?}") };
            if let Some(address) = line.strip_prefix("listening on http://") {
                break address.parse().unwrap();
            }
            before.push(line);
        };
        let log = thread::spawn(move || lines.map_while(Result::ok).collect());
        Self { child, address, log: Some(log) }
    }

    pub fn get(&self, path: &str) -> Response {
        exchange(self.address, &request_bytes("GET", path, "", b"")).unwrap()
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        exchange(self.address, &request_bytes("POST", path, "", body.as_ref())).unwrap()
    }

    /// The JSON of a response that must succeed.
    pub fn ask(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, body.to_string());
        assert_eq!(response.status, 200, "{path} {body}: {}", response.text());
        response.json()
    }

    /// The value of the metric `line` in `/metrics`; 0 if it is missing.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").text();
        let value = text.lines().find_map(|found| found.strip_prefix(line).and_then(|rest| rest.trim().parse().ok()));
        value.unwrap_or(0.0)
    }

    /// Resident memory in KiB.
    #[cfg(target_os = "linux")]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time used so far, in seconds.
    #[cfg(target_os = "linux")]
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process exits; returns its exit status, how long that took, and its log.
    pub fn wait(mut self) -> (ExitStatus, Duration, Vec<String>) {
        let started = Instant::now();
        let status = self.child.wait().unwrap();
        (status, started.elapsed(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
