//! Broken, slow, and malicious clients get a 4xx or a closed connection, without affecting other clients.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{connect, exchange, parse, read, request_bytes};
use crate::models::models;
use crate::server::Server;

/// Asserts that the server still answers other clients correctly and promptly.
fn assert_serves(server: &Server) {
    let found = server.ask("/embed", json!({"inputs": "word7"}));
    assert_eq!(found[0].as_array().unwrap().len(), 24);
}

/// A small random number generator, to make failures reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// Sends nearly valid bodies, with some bytes changed.
fn mutated(random: &mut Random, count: usize, server: &Server) {
    let seeds = [
        ("/v1/embeddings", r#"{"input": ["word7", "wörd \u00e9"], "encoding_format": "base64", "dimensions": 3}"#),
        (
            "/similarity",
            r#"{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": true}}"#,
        ),
        ("/embed", r#"{"inputs": [["a"], ["b", "c"]], "truncate": null}"#),
        ("/embed", r#"{"inputs": "a", "prompt_name": "query", "normalize": false}"#),
        ("/rerank", r#"{"query": "word7", "texts": ["word8", "b"], "raw_scores": true, "return_text": true}"#),
        ("/tokenize", r#"{"inputs": "word7, word8", "add_special_tokens": false}"#),
        ("/", r#"{"inputs": "word7", "parameters": {"normalize": true}, "options": {"a": [1e400, -0]}}"#),
    ];
    for _ in 0..count {
        let (path, seed) = seeds[random.below(seeds.len())];
        let mut body = seed.as_bytes().to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(body.len());
            match random.below(4) {
                0 => body[at] = random.below(256) as u8,
                1 => body.truncate(at.max(1)),
                2 => body.insert(at, b"\"{}[],:0\\"[random.below(9)]),
                _ => body.extend_from_within(at..),
            }
        }
        let response = server.post(path, &body);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(response.status == 200 || (400..500).contains(&response.status), "{path} {text}: {}", response.text());
        assert!(response.status == 200 || !response.error().is_empty(), "{text}");
    }
}

#[test]
fn bodies_of_any_bytes() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --model follows");
    let count = std::env::var("BERT_MUTATIONS").map_or(200, |count| count.parse().unwrap());
    mutated(&mut Random(1), count, &server);
    assert_serves(&server);
}

#[test]
fn what_is_no_http_ends_the_connection() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let flood: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let wide = format!("x: {}\r\n", "a".repeat(200_000));
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef".to_vec(),
        b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzzzz\r\n".to_vec(),
        request_bytes("GET", "/health", &flood, b""),
        request_bytes("GET", "/health", &wide, b""),
        request_bytes("GET", &format!("/{}", "a".repeat(100_000)), "", b""),
    ] {
        let status = exchange(server.address, &bytes).map(|response| response.status);
        assert!(status.is_none_or(|status| (400..500).contains(&status) || status == 505), "{status:?}");
    }
    assert_serves(&server);
}

#[test]
fn bodies_longer_than_they_may_be_are_refused_and_the_answer_arrives() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --max-body 100000");
    // With a content length, and sent in full.
    let response = server.post("/embed", vec![b'['; 5_000_000]);
    assert_eq!(response.status, 413);
    // Chunked, without a content length.
    let mut stream = connect(server.address);
    stream
        .write_all(b"POST /embed HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    for _ in 0..100 {
        stream.write_all(format!("{:x}\r\n{}\r\n", 5000, "a".repeat(5000)).as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read(stream).unwrap().status, 413);
    // With an enormous content length, and `Expect: 100-continue`.
    let mut stream = connect(server.address);
    stream
        .write_all(b"POST /embed HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n")
        .unwrap();
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).unwrap();
    assert_eq!(parse(&bytes[..length]).unwrap().status, 413);
    // A million texts.
    let server = Server::start(directory.path(), "--model encoder --max-body 8000000");
    let million = format!("{{\"inputs\": [{}\"a\"]}}", "\"a\",".repeat(999_999));
    let response = server.post("/embed", million);
    assert_eq!(response.status, 413);
    assert!(response.error().contains("found 1000000 inputs, expected at most 2048"));
    assert_serves(&server);
}

#[test]
fn slow_clients_are_not_waited_for() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --read-timeout 0.3");
    let started = Instant::now();
    let mut head = connect(server.address);
    head.write_all(b"GET /health HTT").unwrap();
    let silent = connect(server.address);
    let mut body = connect(server.address);
    body.write_all(b"POST /embed HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{\"inp")
        .unwrap();
    // Byte by byte, forever.
    let mut drip = connect(server.address);
    let dripping = thread::spawn(move || {
        for byte in b"GET /health HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'a')) {
            thread::sleep(Duration::from_millis(20));
            if drip.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let slow = read(body).unwrap();
    assert_eq!(slow.status, 408);
    assert!(slow.error().contains("--read-timeout"));
    assert!(read(head).is_none_or(|response| response.status == 408));
    assert!(read(silent).is_none_or(|response| response.status == 408));
    dripping.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_serves(&server);
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --max-connections 8");
    let held: Vec<_> = (0..8).map(|_| connect(server.address)).collect();
    let started = Instant::now();
    let refused = loop {
        let response = server.get("/health");
        if response.status == 503 || started.elapsed() > Duration::from_secs(5) {
            break response;
        }
    };
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("--max-connections"));
    drop(held);
    while server.get("/health").status != 200 {
        assert!(started.elapsed() < Duration::from_secs(10), "connections are never free again");
        thread::sleep(Duration::from_millis(10));
    }
    assert_serves(&server);
}

#[test]
#[ignore = "thousands of connections and requests, a minute"]
#[cfg(target_os = "linux")]
fn a_long_attack_leaves_memory_bounded_and_others_served() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --read-timeout 2");
    assert_serves(&server);
    let large =
        request_bytes("POST", "/embed", "", json!({"inputs": vec!["word7 ".repeat(900); 600]}).to_string().as_bytes());
    let mut residents = Vec::new();
    for round in 0..4 {
        let open: Vec<_> = (0..2000).filter_map(|_| std::net::TcpStream::connect(server.address).ok()).collect();
        for (number, mut stream) in open.into_iter().enumerate() {
            let _ = match number % 4 {
                0 => stream.write_all(&large[..large.len() / 2]),
                1 => stream.write_all(b"GET /health HTTP/1.1\r\n"),
                2 => stream.write_all(&large),
                _ => Ok(()),
            };
            // Some stay open for a second; most disconnect.
            if number % 8 == 0 {
                thread::spawn(move || {
                    thread::sleep(Duration::from_secs(1));
                    drop(stream);
                });
            }
        }
        mutated(&mut Random(round), 2000, &server);
        let started = Instant::now();
        assert_serves(&server);
        assert!(started.elapsed() < Duration::from_secs(5));
        residents.push(server.resident_kib());
    }
    println!("resident KiB: {residents:?}");
    assert!(residents[3] < residents[1] + residents[1] / 4 + 50_000, "memory grows: {residents:?}");
}
