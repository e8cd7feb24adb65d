//! On SIGTERM and SIGINT, pending requests are answered, new ones are rejected, and the process exits cleanly.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{connect, read, request_bytes};
use crate::models::models;
use crate::server::Server;

#[test]
fn no_request_is_lost_under_load() {
    let directory = models();
    for signal in ["TERM", "INT"] {
        let server = Server::start(directory.path(), "--model encoder");
        let (address, lost) = (server.address, Mutex::new(Vec::new()));
        let texts: Vec<String> = (0..64).map(|number| format!("word{} word9 word11", 5 + number % 60)).collect();
        let bytes = request_bytes("POST", "/embed", "", json!({"inputs": texts}).to_string().as_bytes());
        let signaled = Mutex::new(None::<Instant>);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let Ok(mut stream) = TcpStream::connect(address) else { break };
                        let is_sent = stream.write_all(&bytes).is_ok();
                        let sent = Instant::now();
                        let status = read(stream).map(|response| response.status);
                        let after = signaled.lock().unwrap().is_some_and(|signaled| sent > signaled);
                        if status != Some(200) && is_sent && !after {
                            lost.lock().unwrap().push(status);
                        }
                        if status.is_none() {
                            break;
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(300));
            *signaled.lock().unwrap() = Some(Instant::now());
            server.signal(signal);
        });
        let (status, time, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(time < Duration::from_secs(10), "{time:?}");
        assert!(lost.into_inner().unwrap().is_empty(), "requests without an answer");
    }
}

#[test]
fn idle_and_stuck_connections_do_not_keep_the_server() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder --grace 0.5");
    // A kept-alive connection, and one that never completes its request.
    let mut idle = connect(server.address);
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut stuck = connect(server.address);
    stuck.write_all(b"POST /embed HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{").unwrap();
    thread::sleep(Duration::from_millis(100));
    server.signal("TERM");
    let (status, time, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert!(time < Duration::from_secs(5), "{time:?}");
    assert!(log.iter().any(|line| line.contains("still open after 0.5 s (--grace)")), "{log:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let mut stuck = connect(server.address);
    stuck.write_all(b"POST /embed HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{").unwrap();
    thread::sleep(Duration::from_millis(100));
    server.signal("TERM");
    thread::sleep(Duration::from_millis(100));
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(143));
}
