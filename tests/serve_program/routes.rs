//! Embeddings, labels, and ranks through the routes of OpenAI and text-embeddings-inference, and information about the
//! server.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bert_model::pipeline::{ClassificationProcessor, EmbeddingProcessor, PairProcessor};
use serde_json::{Value, json};

use crate::models::{add_prompts, change, minilm, models, open};
use crate::server::Server;

const TEXTS: [&str; 3] = ["word7", "word9 word8 word7 word30 word31", "word12 word13"];

pub fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "differs by {worst}");
}

fn normalized(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

#[test]
fn embeddings_as_openai_gives_them() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let expected = open::<EmbeddingProcessor>(&directory, "encoder").embed(&TEXTS).unwrap();
    let found = server.ask("/v1/embeddings", json!({"model": "encoder", "input": TEXTS, "user": "me"}));
    assert_eq!((&found["object"], &found["model"]), (&json!("list"), &json!("encoder")));
    // Includes two special tokens per text.
    assert_eq!(found["usage"], json!({"prompt_tokens": 14, "total_tokens": 14}));
    for (index, vector) in expected.iter().enumerate() {
        let entry = &found["data"][index];
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
        assert_close(&numbers(&entry["embedding"]), &normalized(vector));
    }
    let encoded = server.ask("/v1/embeddings", json!({"input": TEXTS, "encoding_format": "base64"}));
    for (plain, encoded) in found["data"].as_array().unwrap().iter().zip(encoded["data"].as_array().unwrap()) {
        let bytes = STANDARD.decode(encoded["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        assert_close(&decoded, &numbers(&plain["embedding"]));
    }
    let short = server.ask("/v1/embeddings", json!({"input": "word7", "dimensions": 5}));
    assert_close(&numbers(&short["data"][0]["embedding"]), &normalized(&expected[0][..5]));
    let error = server.post("/v1/embeddings", r#"{"input": "word7", "dimensions": 25}"#);
    assert_eq!(error.status, 422);
    assert!(error.error().contains("`dimensions`: found 25, expected 1 to 24"), "{}", error.error());
}

#[test]
fn vectors_and_cosines_as_text_embeddings_inference_gives_them() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let embedder = open::<EmbeddingProcessor>(&directory, "encoder");
    let expected = embedder.embed(&TEXTS).unwrap();
    let plain = server.ask("/embed", json!({"inputs": TEXTS, "normalize": false}));
    let unit = server.ask("/embed", json!({"inputs": TEXTS}));
    for (index, vector) in expected.iter().enumerate() {
        assert_close(&numbers(&plain[index]), vector);
        assert_close(&numbers(&unit[index]), &normalized(vector));
    }
    assert_eq!(server.ask("/embed", json!({"inputs": "word7"})).as_array().unwrap().len(), 1);
    let cosines =
        server.ask("/similarity", json!({"inputs": {"source_sentence": TEXTS[0], "sentences": [TEXTS[1], TEXTS[0]]}}));
    let dot = |a: &[f32], b: &[f32]| normalized(a).iter().zip(normalized(b)).map(|(a, b)| a * b).sum::<f32>();
    assert_close(&numbers(&cosines), &[dot(&expected[0], &expected[1]), 1.0]);

    // The model has 19 positions.
    let long = "word7 word8 ".repeat(9);
    let refused = server.post("/embed", json!({"inputs": ["word7", long]}).to_string());
    assert_eq!(refused.status, 413);
    assert!(refused.error().contains("input 1 has 20 tokens, the model takes at most 19"), "{}", refused.error());
    let cut = server.ask("/embed", json!({"inputs": long, "truncate": true, "normalize": false}));
    assert_close(&numbers(&cut[0]), &embedder.embed(&[&long]).unwrap()[0]);
    let fitting = "word7 ".repeat(17);
    assert_eq!(server.post("/embed", json!({"inputs": fitting}).to_string()).status, 200, "19 tokens fit");
    let server = Server::start(directory.path(), "--model encoder --auto-truncate");
    assert_eq!(server.post("/embed", json!({"inputs": long}).to_string()).status, 200);
    assert_eq!(server.post("/embed", json!({"inputs": long, "truncate": false}).to_string()).status, 413);
}

#[test]
fn labels_of_texts_pairs_and_lists() {
    let directory = models();
    let server = Server::start(directory.path(), "--model labels");
    let classifier = open::<ClassificationProcessor>(&directory, "labels");
    let probability = |labels: &Value, name: &str| {
        let label = labels.as_array().unwrap().iter().find(|label| label["label"] == name).unwrap();
        label["score"].as_f64().unwrap() as f32
    };
    let one = server.ask("/predict", json!({"inputs": TEXTS[1]}));
    let expected = classifier.classify(&[TEXTS[1]]).unwrap();
    for (name, score) in classifier.labels().iter().zip(&expected[0].scores) {
        assert_close(&[probability(&one, name)], &[*score]);
    }
    let scores: Vec<f32> =
        one.as_array().unwrap().iter().map(|label| label["score"].as_f64().unwrap() as f32).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{one}");
    let raw = server.ask("/predict", json!({"inputs": TEXTS[1], "raw_scores": true}));
    let ratio = probability(&raw, "LABEL_0") - probability(&raw, "LABEL_1");
    assert_close(&[ratio.exp()], &[probability(&one, "LABEL_0") / probability(&one, "LABEL_1")]);
    let pair = server.ask("/predict", json!({"inputs": ["word5", "word6"]}));
    let expected = classifier.classify_pairs(&[("word5", "word6")]).unwrap();
    assert_close(&[probability(&pair, "LABEL_2")], &[expected[0].scores[2]]);
    let list = server.ask("/predict", json!({"inputs": [[TEXTS[1]], ["word5", "word6"]]}));
    for (found, expected) in list.as_array().unwrap().iter().zip([&one, &pair]) {
        assert_eq!(found[0]["label"], expected[0]["label"]);
        assert_close(&[probability(found, "LABEL_1")], &[probability(expected, "LABEL_1")]);
    }
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[test]
fn several_labels_stand_for_themselves() {
    let directory = models();
    let server = Server::start(directory.path(), "--model several");
    let classifier = open::<ClassificationProcessor>(&directory, "several");
    let found = server.ask("/predict", json!({"inputs": "word7"}));
    let best = classifier.classify(&["word7"]).unwrap()[0].scores.iter().copied().fold(0.0, f32::max);
    assert_close(&[found[0]["score"].as_f64().unwrap() as f32], &[best]);
}

#[test]
fn ranks_are_in_order_of_their_scores() {
    let directory = models();
    let server = Server::start(directory.path(), "--model ranker");
    let raw = |text: &str| {
        let found = server.ask("/predict", json!({"inputs": ["word5", text], "raw_scores": true}));
        found[0]["score"].as_f64().unwrap() as f32
    };
    let ranks = server.ask("/rerank", json!({"query": "word5", "texts": TEXTS, "return_text": true}));
    let ranks = ranks.as_array().unwrap();
    assert_eq!(ranks.len(), 3);
    for rank in ranks {
        let index = rank["index"].as_u64().unwrap() as usize;
        assert_eq!(rank["text"], TEXTS[index]);
        assert_close(&[rank["score"].as_f64().unwrap() as f32], &[1.0 / (1.0 + (-raw(TEXTS[index])).exp())]);
    }
    assert!(ranks.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));
    let plain = server.ask("/rerank", json!({"query": "word5", "texts": TEXTS, "raw_scores": true}));
    assert_eq!(plain[0].as_object().unwrap().len(), 2, "no text unless it is asked for");
    let index = plain[0]["index"].as_u64().unwrap() as usize;
    assert_close(&[plain[0]["score"].as_f64().unwrap() as f32], &[raw(TEXTS[index])]);
}

/// A cross-encoder's score is the head's output behind the activation that its configuration names; for a next-sentence
/// head, it is the probability that the text follows the query.
#[test]
fn ranks_have_the_scores_of_the_pair_scorer() {
    let directory = models();
    change(&directory, "ranker/config.json", |config| {
        config["sentence_transformers"] = json!({"activation_fn": "torch.nn.modules.activation.Tanh"});
    });
    // A checkpoint with both pretraining heads ranks, too.
    let both = directory.path().join("both");
    fs::create_dir(&both).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models/gelu-odd");
    fs::copy(golden.join("config.json"), both.join("config.json")).unwrap();
    fs::copy(golden.join("model.safetensors"), both.join("model.safetensors")).unwrap();
    fs::copy(directory.path().join("follows/tokenizer.json"), both.join("tokenizer.json")).unwrap();
    let server = Server::start(directory.path(), "--model ranker --model follows --model both --model labels");
    for model in ["ranker", "follows", "both"] {
        let ask = |raw: bool| {
            let body = json!({"query": "word5", "texts": TEXTS, "raw_scores": raw, "model": model});
            let ranks = server.ask("/rerank", body);
            let mut scores = [0.0_f32; 3];
            for rank in ranks.as_array().unwrap() {
                scores[rank["index"].as_u64().unwrap() as usize] = rank["score"].as_f64().unwrap() as f32;
            }
            scores
        };
        let scorer = open::<PairProcessor>(&directory, model);
        let found = scorer.run(&TEXTS.map(|text| ("word5", text))).unwrap();
        assert_close(&ask(false), &found.iter().map(|pair| pair.score).collect::<Vec<_>>());
        assert_close(&ask(true), &found.iter().map(|pair| pair.logit).collect::<Vec<_>>());
        assert!(ask(false) != ask(true));
        if model == "ranker" {
            assert_close(&ask(false), &ask(true).map(f32::tanh));
        }
        let info = server.get(&format!("/info?model={model}")).json();
        assert!(info["routes"].as_array().unwrap().contains(&json!("/rerank")), "{info}");
    }
    let refused = server.post("/rerank", json!({"query": "word5", "texts": ["word6"], "model": "labels"}).to_string());
    assert!(refused.status == 422 && refused.error().contains("it supports /predict"), "{}", refused.error());
    let long = json!({"query": "word5", "texts": ["word6 ".repeat(50)], "model": "follows"});
    assert_eq!(server.post("/rerank", long.to_string()).status, 413);
}

#[test]
fn prompts_stand_before_the_texts() {
    let directory = models();
    add_prompts(&directory, "encoder");
    let server = Server::start(directory.path(), "--model encoder");
    let embedder = open::<EmbeddingProcessor>(&directory, "encoder");
    let vector = |prompt: &str| normalized(&embedder.embed_with_prompt(&[TEXTS[0]], prompt).unwrap()[0]);
    let (query, passage) = (vector("word40 word41 "), vector("word50 "));
    assert!(query != passage);
    let embed = |more: Value| {
        let mut body = json!({"inputs": TEXTS[0]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        numbers(&server.ask("/embed", body.clone())[0])
    };
    assert_close(&embed(json!({})), &query);
    assert_close(&embed(json!({"prompt_name": "query"})), &query);
    assert_close(&embed(json!({"prompt_name": "passage"})), &passage);
    let tokens = server.ask("/tokenize", json!({"inputs": TEXTS[0], "prompt_name": "passage"}));
    assert_eq!(tokens[0][1]["text"], "word50");
    assert_eq!(server.ask("/tokenize", json!({"inputs": TEXTS[0]}))[0][1]["text"], "word40", "the default one");
    let refused = server.post("/tokenize", json!({"inputs": ["word7", "a".repeat(250 * 19 + 1)]}).to_string());
    let expected = "input 1 has more than 4750 characters";
    assert!(refused.status == 422 && refused.error().contains(expected), "{}", refused.error());
    // OpenAI's clients cannot name a prompt; the default one applies.
    let found = server.ask("/v1/embeddings", json!({"input": TEXTS[0]}));
    assert_close(&numbers(&found["data"][0]["embedding"]), &query);
    assert_eq!(found["usage"]["prompt_tokens"], 5, "the tokens of the prompt count");
    for body in [
        json!({"inputs": TEXTS[0], "parameters": {"prompt_name": "passage"}}),
        json!({"inputs": TEXTS[0], "prompt_name": "passage"}),
    ] {
        assert_close(&numbers(&server.ask("/", body)[0]), &passage);
    }
    let inputs = json!({"source_sentence": TEXTS[0], "sentences": [TEXTS[0]]});
    let same = server.ask("/similarity", json!({"inputs": inputs, "parameters": {"prompt_name": "passage"}}));
    assert_close(&numbers(&same), &[1.0]);
    let refused = server.post("/embed", json!({"inputs": "word7", "prompt_name": "other"}).to_string());
    let expected = "prompt: found no prompt `other`, expected one of passage, query";
    assert!(refused.status == 422 && refused.error().contains(expected), "{}", refused.error());
    // 17 words fit the 19 positions, but not behind a prompt.
    let refused = server.post("/embed", json!({"inputs": "word7 ".repeat(17)}).to_string());
    assert!(refused.status == 413 && refused.error().contains("has 21 tokens"), "{}", refused.error());
}

/// The setting is sentence-transformers': the tokenizer itself keeps the case.
#[test]
fn tokens_are_those_that_a_model_in_lower_case_reads() {
    let directory = models();
    add_prompts(&directory, "encoder");
    change(&directory, "encoder/tokenizer.json", |tokenizer| tokenizer["normalizer"]["lowercase"] = false.into());
    let server = Server::start(directory.path(), "--model encoder");
    let tokens = |server: &Server| server.ask("/tokenize", json!({"inputs": "WORD7"}))[0][3]["id"].clone();
    assert_eq!(tokens(&server), 1, "[UNK]");
    let settings = json!({"max_seq_length": 19, "do_lower_case": true}).to_string();
    fs::write(directory.path().join("encoder/sentence_bert_config.json"), settings).unwrap();
    let server = Server::start(directory.path(), "--model encoder");
    assert_eq!(tokens(&server), 7);
}

#[test]
fn the_server_describes_itself() {
    let directory = models();
    let server = Server::start(directory.path(), "--model labels --model ours=encoder");
    let list = server.get("/v1/models").json();
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["labels", "ours"]);
    assert_eq!(server.get("/v1/models/ours").json()["routes"][0], "/v1/embeddings");
    assert_eq!(server.get("/v1/models/other").status, 404);
    // A name that is a model's own counts before one that only ends in it.
    let both = Server::start(directory.path(), "--model owner/encoder=labels --model encoder --precision bf16");
    assert_eq!(both.get("/info").json()["model_dtype"], "bfloat16");
    assert_eq!(both.get("/v1/models/encoder").json()["id"], "encoder");
    assert_eq!(both.get("/v1/models/owner%2Fencoder").json()["id"], "owner/encoder");
    let info = server.get("/info").json();
    assert_eq!(info["model_dtype"], "float32");
    assert_eq!(info["model_type"]["classifier"]["id2label"]["2"], "LABEL_2");
    let info = server.get("/info?model=ours").json();
    assert_eq!(info["model_type"]["embedding"]["pooling"], "mean");
    assert!(info["tokenization_workers"].as_u64().unwrap() > 0);
    assert_eq!((&info["model_id"], &info["max_input_length"]), (&json!("ours"), &json!(19)));
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/ready").status, 200);
    server.ask("/embed", json!({"inputs": TEXTS}));
    assert_eq!(server.metric("bert_serve_inputs_total{model=\"ours\"}"), 3.0);
    assert_eq!(server.metric("bert_serve_requests_total{route=\"/embed\",status=\"200\"}"), 1.0);
    let tokens = server.ask("/tokenize", json!({"inputs": "Word7, word8"}));
    let word = json!({"id": 7, "text": "Word7", "special": false, "start": 0, "stop": 5});
    assert_eq!(
        (&tokens[0][1], &tokens[0][0]["text"], tokens[0].as_array().unwrap().len()),
        (&word, &json!("[CLS]"), 5)
    );
    let bare = server.ask("/tokenize", json!({"inputs": ["word7", "word8"], "add_special_tokens": false}));
    assert_eq!((bare.as_array().unwrap().len(), &bare[1][0]["id"]), (2, &json!(8)));
    let page = server.get("/");
    assert!(page.head.contains("text/html") && page.head.contains("content-security-policy"), "{}", page.head);
}

#[test]
fn every_route_of_the_description_is_there_and_no_other() {
    let directory = models();
    let server = Server::start(directory.path(), "--model encoder");
    let description = server.get("/openapi.json").json();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "encoder");
        for method in methods.as_object().unwrap().keys() {
            let status = match method.as_str() {
                "get" => server.get(&path).status,
                _ => server.post(&path, "{}").status,
            };
            assert!(![404, 405].contains(&status), "{method} {path}: {status}");
        }
        if !methods.as_object().unwrap().contains_key("get") {
            assert_eq!(server.get(&path).status, 405, "{path}");
        }
    }
    let routes = include_str!("../../bert-serve/src/app.rs").matches(".route(").count();
    assert_eq!(routes, description["paths"].as_object().unwrap().len());
}

#[test]
fn the_vectors_of_a_real_model() {
    let Some(path) = minilm() else { return };
    let server = Server::start(&path, "--model .");
    let found = server.ask(
        "/similarity",
        json!({"inputs": {"source_sentence": "A man is eating food.",
            "sentences": ["A man is eating a piece of bread.", "The girl is carrying a baby."]}}),
    );
    let found = numbers(&found);
    assert!(found[0] > 0.7 && found[1] < 0.2, "{found:?}");
    let model = &server.get("/v1/models").json()["data"][0];
    assert_eq!(model["id"], "all-MiniLM-L6-v2", "{model}");
}
