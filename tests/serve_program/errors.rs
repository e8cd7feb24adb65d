//! Every error has a status, a message, and a type, in the same form on every route.

use std::fs;

use serde_json::json;

use crate::http::{exchange, request_bytes};
use crate::models::models;
use crate::server::Server;

#[test]
fn every_wrong_request_is_told_what_is_wrong() {
    let directory = models();
    let all =
        "--model encoder --model labels --model tags --model answers --model masks --model choices --model ranker";
    let server = Server::start(directory.path(), &format!("{all} --max-inputs 4 --max-body 2000"));
    let deep = format!("{{\"inputs\": {}", "[".repeat(1000));
    let ignored = format!("{{\"inputs\": \"a\", \"options\": {{\"a\": {}", "[".repeat(1000));
    let long = format!("{{\"inputs\": \"{}\"}}", "a".repeat(2000));
    for (path, body, status, expected) in [
        ("/embed", "", 400, "the body is not JSON"),
        ("/embed", "{", 400, "the body is not JSON"),
        ("/embed", "\u{feff}{}", 400, "the body is not JSON"),
        ("/embed", &deep, 422, "invalid type: sequence, expected a string"),
        ("/", &ignored, 400, "recursion limit"),
        ("/embed", r#"{"inputs": "a"} {}"#, 400, "trailing"),
        ("/embed", "{}", 422, "missing field `inputs`"),
        ("/embed", "[]", 422, "invalid length 0"),
        ("/embed", "3", 422, "invalid type: integer `3`"),
        ("/embed", r#"{"inputs": 3}"#, 422, "invalid type: integer `3`, expected one, or a list"),
        ("/embed", r#"{"inputs": ["a", 3]}"#, 422, "expected a string"),
        ("/embed", r#"{"inputs": []}"#, 422, "found an empty list"),
        ("/embed", r#"{"inputs": ""}"#, 422, "found an empty text"),
        ("/embed", r#"{"inputs": ["a", ""]}"#, 422, "found an empty text"),
        ("/embed", r#"{"inputs": "a", "input": "a"}"#, 422, "unknown field `input`"),
        ("/embed", r#"{"inputs": "a", "inputs": "a"}"#, 422, "duplicate field `inputs`"),
        ("/embed", r#"{"inputs": "a", "truncate": "yes"}"#, 422, "expected a boolean"),
        ("/embed", r#"{"inputs": "a", "dimensions": 0}"#, 422, "`dimensions`: found 0"),
        ("/embed", r#"{"inputs": "a", "truncation_direction": "Left"}"#, 422, "unknown variant `Left`"),
        ("/embed", r#"{"inputs": ["a", "a", "a", "a", "a"]}"#, 413, "found 5 inputs, expected at most 4"),
        ("/embed", &long, 413, "the body is longer than 2000 bytes"),
        ("/embed", r#"{"inputs": "a", "model": "other"}"#, 404, "no model `other`; available: encoder, labels"),
        ("/embed?model=other", r#"{"inputs": "a"}"#, 404, "no model `other`"),
        ("/embed?model=encoder", r#"{"inputs": "a", "model": "masks"}"#, 422, "two models, `encoder` and `masks`"),
        ("/embed?mdoel=encoder", r#"{"inputs": "a"}"#, 422, "the query has `mdoel=encoder`"),
        ("/embed?model=tags", r#"{"inputs": "a"}"#, 422, "does not support /embed; it supports /tag, /tokenize"),
        ("/rerank?model=labels", r#"{"query": "a", "texts": ["b"]}"#, 422, "it supports /predict, /tokenize"),
        ("/v1/embeddings", r#"{"input": [1, 2]}"#, 422, "expected a string"),
        ("/v1/embeddings", r#"{"input": "a", "encoding_format": "int8"}"#, 422, "unknown variant `int8`"),
        ("/v1/embeddings", r#"{"input": []}"#, 422, "found an empty list"),
        ("/similarity", r#"{"inputs": {"source_sentence": "a", "sentences": []}}"#, 422, "found an empty list"),
        ("/predict", r#"{"inputs": ["a", "b", "c"]}"#, 422, "found a list of 3"),
        ("/predict", r#"{"inputs": [["a"], "b"]}"#, 422, "found both texts and lists"),
        ("/rerank", r#"{"query": "", "texts": ["b"]}"#, 422, "`query`: found an empty text"),
        ("/rerank", r#"{"query": "a", "texts": []}"#, 422, "found an empty list"),
        ("/tag", "{}", 422, "expected `text` or `words`"),
        ("/tag", r#"{"words": []}"#, 422, "found an empty list"),
        ("/tag", r#"{"words": ["a", ["b"]]}"#, 422, "a list of words, or a list of such lists"),
        ("/answer", r#"{"question": "a"}"#, 422, "expected `question` and `context`"),
        ("/answer", r#"{"question": "a", "context": ""}"#, 422, "`context`: found an empty text"),
        ("/answer", r#"{"question": "a", "context": "b", "n_best": 99}"#, 422, "`n_best`: found 99"),
        ("/fill-mask", r#"{"text": "[MASK]", "top_k": 0}"#, 422, "`top_k`: found 0"),
        ("/rerank", r#"{"query": "word5", "texts": ["word6", ""]}"#, 422, "`texts`: found an empty text"),
        ("/tokenize", r#"{"inputs": ["word6", ""]}"#, 422, "`inputs`: found an empty text"),
        ("/choose", r#"{"text": "a", "choices": []}"#, 422, "found an empty list"),
        ("/choose", r#"{"text": "a", "choices": ["b", "c", "d", "e", "f"]}"#, 413, "found 5 inputs"),
        ("/tokenize", r#"{"inputs": []}"#, 422, "found an empty list"),
        ("/", r#"{"inputs": "a", "parameters": {"what": 1}}"#, 422, "unknown field `what`"),
        ("/nowhere", "{}", 404, "no route /nowhere"),
        ("/health", "{}", 405, "/health does not support POST"),
    ] {
        let response = server.post(path, body);
        assert_eq!(response.status, status, "{path} {body}: {}", response.text());
        assert!(response.error().contains(expected), "{path} {body}: {}", response.error());
        assert!(response.head.contains("content-type: application/json"), "{}", response.head);
    }
    for (method, path, status) in [("GET", "/embed", 405), ("DELETE", "/v1/models", 405), ("GET", "/favicon.ico", 404)]
    {
        let response = exchange(server.address, &request_bytes(method, path, "", b"")).unwrap();
        assert_eq!((response.status, response.error().is_empty()), (status, false), "{method} {path}");
    }
    assert_eq!(server.ask("/embed", json!({"inputs": ["a", "b", "c", "d"]})).as_array().unwrap().len(), 4);
}

#[test]
fn keys_are_asked_for_everywhere_but_at_the_door() {
    let directory = models();
    fs::write(directory.path().join("keys"), "first-key\nsecond-key\n").unwrap();
    let server = Server::start(directory.path(), "--model encoder --api-key-file keys --host 0.0.0.0");
    let address = ([127, 0, 0, 1], server.address.port()).into();
    let body = br#"{"inputs": "word7"}"#;
    let ask = |headers: &str| exchange(address, &request_bytes("POST", "/embed", headers, body)).unwrap();
    for headers in ["authorization: Bearer first-key\r\n", "Authorization: bearer second-key\r\n"] {
        assert_eq!(ask(headers).status, 200, "{headers}");
    }
    for headers in
        ["", "authorization: Bearer third-key\r\n", "authorization: first-key\r\n", "x-api-key: first-key\r\n"]
    {
        let refused = ask(headers);
        assert_eq!(refused.status, 401, "{headers}");
        assert!(refused.head.contains("www-authenticate: bearer") && refused.error().contains("key"));
    }
    for (path, status) in
        [("/", 200), ("/health", 200), ("/ready", 200), ("/v1/models", 401), ("/metrics", 401), ("/x", 401)]
    {
        let found = exchange(address, &request_bytes("GET", path, "", b"")).unwrap();
        assert_eq!(found.status, status, "{path}");
    }
}
