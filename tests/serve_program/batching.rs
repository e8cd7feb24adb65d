//! Requests from many clients share batches, and each gets its own answer.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bert_model::pipeline::EmbeddingProcessor;
use serde_json::json;

use crate::http::{connect, exchange, request_bytes};
use crate::models::{models, open};
use crate::routes::numbers;
use crate::server::Server;

/// A text of `count` words that is unique to `number`.
fn text(number: usize, count: usize) -> String {
    (0..count).map(|word| format!("word{} ", 5 + (number * 7 + word * (number + 3)) % 62)).collect()
}

/// A body with `count` texts, enough to keep the model busy.
fn large(count: usize) -> String {
    let texts: Vec<String> = (0..count).map(|number| text(number, 15)).collect();
    json!({"inputs": texts}).to_string()
}

#[test]
fn everybody_gets_the_own_answer_in_order() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let embedder = open::<EmbeddingProcessor>(&directory, "encoder");
    thread::scope(|scope| {
        for client in 0..16 {
            let (server, embedder) = (&server, &embedder);
            scope.spawn(move || {
                for round in 0..8 {
                    let texts: Vec<String> = (0..1 + (client + round) % 5)
                        .map(|i| text(client * 100 + round * 10 + i, 1 + (client * i) % 15))
                        .collect();
                    let found = server.ask("/embed", json!({"inputs": texts, "normalize": false}));
                    let expected = embedder.embed(&texts).unwrap();
                    assert_eq!(found.as_array().unwrap().len(), texts.len());
                    for (found, expected) in found.as_array().unwrap().iter().zip(&expected) {
                        let worst = numbers(found).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        assert!(worst < 1e-5, "client {client}, round {round}: {worst}");
                    }
                }
            });
        }
    });
    let (inputs, batches) = (
        server.metric("bert_serve_inputs_total{model=\"encoder\"}"),
        server.metric("bert_serve_batch_inputs_count{model=\"encoder\"}"),
    );
    assert!(batches < inputs, "{batches} batches for {inputs} inputs");
}

#[test]
fn a_full_queue_is_told_and_small_requests_are_not_starved() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --max-queue 1");
    let (large, busy, answered) = (large(256), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let response = server.post("/embed", &large);
                match response.status {
                    200 => assert_eq!(response.json().as_array().unwrap().len(), 256),
                    429 => {
                        assert!(response.head.contains("retry-after: 1") && response.error().contains("--max-queue"))
                    }
                    status => panic!("{status}: {}", response.text()),
                }
                if response.status == 200 { &answered } else { &busy }.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert!(answered.into_inner() >= 1 && busy.into_inner() >= 1, "some are answered, some are too many");

    let server = Server::start(directory.path(), "--model encoder --timeout 120");
    let body = self::large(1024);
    thread::scope(|scope| {
        let large = scope.spawn(|| {
            let started = Instant::now();
            for _ in 0..3 {
                assert_eq!(server.post("/embed", &body).status, 200);
            }
            started.elapsed() / 3
        });
        let mut small = Vec::new();
        while !large.is_finished() {
            let started = Instant::now();
            server.ask("/embed", json!({"inputs": "word7"}));
            small.push(started.elapsed());
        }
        small.sort_unstable();
        let (small, large) = (small[small.len() / 2], large.join().unwrap());
        assert!(small < large / 2, "a small request took {small:?}, a large one {large:?}");
    });
}

#[test]
fn who_hangs_up_costs_nothing_more_and_who_waits_too_long_is_told() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let bytes = request_bytes("POST", "/embed", "", large(1024).as_bytes());
    for _ in 0..20 {
        let mut stream = connect(server.address);
        stream.write_all(&bytes).unwrap();
        drop(stream);
    }
    let started = Instant::now();
    while server.metric("bert_serve_waiting_requests{model=\"encoder\"}") > 0.0
        || server.metric("bert_serve_connections") > 1.0
    {
        assert!(started.elapsed() < Duration::from_secs(20), "still waiting for nobody");
        thread::sleep(Duration::from_millis(20));
    }
    let server = Server::start(directory.path(), "--model encoder --timeout 0.001");
    let late = exchange(server.address, &bytes).unwrap();
    assert_eq!(late.status, 504);
    assert!(late.error().contains("no answer within 0.001 s"), "{}", late.error());
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_server_uses_no_processor() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --model labels");
    server.ask("/embed", json!({"inputs": "word7"}));
    let before = server.cpu_seconds();
    thread::sleep(Duration::from_millis(500));
    assert!(server.cpu_seconds() - before <= 0.01);
}
