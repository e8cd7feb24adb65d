//! A headless browser, controlled through its DevTools protocol: JSON over a WebSocket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{parse, request_bytes};

pub struct Chromium {
    child: Child,
    socket: TcpStream,
    next_id: u64,
    errors: Vec<String>,
    _profile: TempDir,
}

/// Names under which the browser may be installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

const OPTIONS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
];

impl Chromium {
    /// Starts the browser if one is installed; otherwise prints a note.
    pub fn start() -> Option<Self> {
        let profile = TempDir::new().unwrap();
        let start = |name: &&str| {
            let mut command = Command::new(name);
            command.args(OPTIONS).arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()
        };
        let Some(mut child) = NAMES.iter().find_map(start) else {
            println!("skipped: no chromium is installed");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let found =
            lines.find_map(|line| line.strip_prefix("DevTools listening on ws://").map(str::to_string)).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let host = found.split('/').next().unwrap().to_string();
        let mut browser = Self { child, socket: page_socket(&host), next_id: 0, errors: Vec::new(), _profile: profile };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    /// Navigates to an address.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
    }

    /// Evaluates an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let found = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        found["result"]["value"].clone()
    }

    /// Resizes the window.
    pub fn resize(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "code": key}));
        }
    }

    /// Script errors and policy violations of the page.
    pub fn errors(&self) -> Vec<String> {
        self.errors.clone()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        self.send(json!({"id": id, "method": method, "params": parameters}).to_string().as_bytes());
        loop {
            let message: Value = serde_json::from_slice(&self.receive()).unwrap();
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            let entry = &message["params"]["entry"];
            // Responses with a 4xx status are logged as well, but the test provokes them.
            if message["method"] == "Runtime.exceptionThrown"
                || (entry["level"] == "error" && entry["source"] != "network")
            {
                self.errors.push(message.to_string());
            }
        }
    }

    /// Sends a text message in one frame. Clients must mask their frames, and all zeros is a valid mask.
    fn send(&mut self, text: &[u8]) {
        let mut frame = vec![0x81, 0x80 | 127];
        frame.extend((text.len() as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text);
        self.socket.write_all(&frame).unwrap();
    }

    /// Receives a message of one or more frames.
    fn receive(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        loop {
            let [first, second] = self.bytes();
            let length = match second & 0x7f {
                126 => u64::from(u16::from_be_bytes(self.bytes())),
                127 => u64::from_be_bytes(self.bytes()),
                length => u64::from(length),
            };
            let mut data = vec![0; length as usize];
            self.socket.read_exact(&mut data).unwrap();
            message.extend(data);
            if first & 0x80 != 0 {
                return message;
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// Opens a WebSocket to a new page.
fn page_socket(host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host).unwrap();
    let request = request_bytes("PUT", "/json/new?about:blank", "", b"");
    stream
        .write_all(&String::from_utf8(request).unwrap().replace("host: test", &format!("host: {host}")).into_bytes())
        .unwrap();
    // The browser keeps the connection open.
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let target: Value = loop {
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend(&chunk[..length]);
        if let Some(target) = parse(&bytes).and_then(|response| serde_json::from_slice(&response.body).ok()) {
            break target;
        }
    };
    let address = target["webSocketDebuggerUrl"].as_str().unwrap();
    let path = &address[address.find("/devtools").unwrap()..];
    let mut socket = TcpStream::connect(host).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
