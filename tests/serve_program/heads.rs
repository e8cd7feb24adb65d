//! Tags, answers, masks, and choices, and the formats of Hugging Face's inference API.

use bert_model::pipeline::{ChoiceProcessor, MaskProcessor, QuestionProcessor, TaggingProcessor};
use serde_json::{Value, json};

use crate::models::{models, open};
use crate::routes::numbers;
use crate::server::Server;

fn close(found: &Value, expected: f64) -> bool {
    (found.as_f64().unwrap() - expected).abs() < 1e-5
}

#[test]
fn tags_of_texts_and_of_words() {
    let directory = models();
    let server = Server::start(directory.path(), "--model tags");
    let long = "word5 word6, wörd ".repeat(20);
    let expected = open::<TaggingProcessor>(&directory, "tags").tag(&["word5, word6", &long]).unwrap();
    let found = server.ask("/tag", json!({"text": ["word5, word6", long]}));
    for (found, expected) in found.as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&found["words"], &found["tags"]), (&json!(expected.words), &json!(expected.tags)));
        assert_eq!(found["entities"].as_array().unwrap().len(), expected.entities.len());
        for (found, expected) in found["entities"].as_array().unwrap().iter().zip(&expected.entities) {
            assert_eq!(found["type"], json!(expected.label));
            assert_eq!((&found["start"], &found["end"]), (&json!(expected.start), &json!(expected.end)));
            assert_eq!(found["text"], json!(expected.text));
            assert!(close(&found["score"], f64::from(expected.score)));
        }
    }
    let one = server.ask("/tag", json!({"inputs": "word5, word6"}));
    assert_eq!((&one["words"], &one["tags"]), (&found[0]["words"], &found[0]["tags"]));
    let words = server.ask("/tag", json!({"words": ["word5", ",", "word6"]}));
    assert_eq!(words["tags"], one["tags"]);
    let lists = server.ask("/tag", json!({"words": [["word5"], ["word5", ",", "word6"]]}));
    assert_eq!((lists.as_array().unwrap().len(), &lists[1]["tags"]), (2, &one["tags"]));
    // Same as transformers' pipeline with aggregated entities.
    let groups = server.ask("/", json!({"inputs": "word5, word6", "parameters": {"aggregation_strategy": "simple"}}));
    let first = one["entities"].as_array().unwrap().first().map(|entity| &entity["text"]);
    assert_eq!(groups.as_array().unwrap().first().map(|group| &group["word"]), first);
}

#[test]
fn answers_and_their_rivals() {
    let directory = models();
    let server = Server::start(directory.path(), "--model answers");
    let context = (5..60).map(|id| format!("wörd word{id} ")).collect::<String>();
    let expected = open::<QuestionProcessor>(&directory, "answers").answer(&[("word5", &context)]).unwrap();
    let body = json!({"question": "word5", "context": context});
    let found = server.ask("/answer", body.clone());
    assert_eq!(found.as_object().unwrap().keys().collect::<Vec<_>>(), ["answer", "score", "start", "end"]);
    assert_eq!(found["answer"], json!(expected[0].text));
    assert_eq!((&found["start"], &found["end"]), (&json!(expected[0].start), &json!(expected[0].end)));
    assert!(close(&found["score"], expected[0].score));
    let listed = server.ask("/answer", json!({"question": "word5", "context": context, "n_best": 3}));
    assert_eq!(listed["n_best"].as_array().unwrap().len(), 3);
    assert_eq!(listed["n_best"][0], found);
    let both = server.ask("/answer", json!({"inputs": [body, body]}));
    assert_eq!((both.as_array().unwrap().len(), &both[1]["answer"]), (2, &found["answer"]));
    assert_eq!(server.ask("/", json!({"inputs": body})), found);
    let two = server.ask("/", json!({"inputs": body, "parameters": {"top_k": 2}}));
    assert_eq!((two.as_array().unwrap().len(), &two[0]["answer"]), (2, &found["answer"]));
}

#[test]
fn masks_are_filled_and_the_encoder_embeds_as_well() {
    let directory = models();
    let server = Server::start(directory.path(), "--model masks --model encoder");
    let filler = open::<MaskProcessor>(&directory, "masks");
    let expected = filler.fill("word5 [MASK] word6 [MASK]", 3).unwrap();
    let found = server.ask("/fill-mask", json!({"text": "word5 [MASK] word6 [MASK]", "top_k": 3}));
    assert_eq!(found["text"], "word5 [MASK] word6 [MASK]");
    for (found, expected) in found["masks"].as_array().unwrap().iter().zip(&expected.masks) {
        assert_eq!(found["position"], json!(expected.position));
        for (found, expected) in found["predictions"].as_array().unwrap().iter().zip(&expected.predictions) {
            assert_eq!((&found["token"], &found["id"]), (&json!(expected.token), &json!(expected.id)));
            assert!(close(&found["probability"], expected.probability));
        }
    }
    assert_eq!(found["masks"].as_array().unwrap().len(), 2);
    let listed = server.ask("/fill-mask", json!({"text": ["[MASK]"]}));
    assert_eq!(listed[0]["masks"][0]["predictions"].as_array().unwrap().len(), 5);
    let tokens = server.ask("/", json!({"inputs": "word5 [MASK]", "parameters": {"top_k": 2}}));
    assert_eq!(tokens.as_array().unwrap().len(), 2);
    let (word, text) = (tokens[0]["token_str"].as_str().unwrap(), tokens[0]["sequence"].as_str().unwrap());
    assert_eq!(text, format!("word5 {word}"));
    let vectors = |model: &str| numbers(&server.ask("/embed", json!({"inputs": "word5", "model": model}))[0]);
    assert_eq!(vectors("masks"), vectors("encoder"));
    let refused = server.post("/fill-mask", r#"{"text": "word5"}"#);
    assert_eq!(refused.status, 422);
    assert!(refused.error().contains("found no [MASK]"), "{}", refused.error());
    assert_eq!(server.post("/fill-mask", json!({"text": "[MASK] ".repeat(50)}).to_string()).status, 413);
    // A short request must not ask for an answer of any size.
    let refused = server.post("/fill-mask", json!({"text": vec!["[MASK]"; 200], "top_k": 1000}).to_string());
    assert_eq!((refused.status, refused.text().contains("200000 predictions")), (413, true), "{}", refused.text());
    let long = format!("{}[MASK] [MASK]", " ".repeat(20_000));
    let refused = server.post("/", json!({"inputs": long, "parameters": {"top_k": 1000}}).to_string());
    assert_eq!((refused.status, refused.text().contains("bytes of text")), (413, true), "{}", refused.text());
}

#[test]
fn choices_are_weighed() {
    let directory = models();
    let server = Server::start(directory.path(), "--model choices");
    let expected = open::<ChoiceProcessor>(&directory, "choices").choose(&[("word5", vec!["word6", "word7 word8"])]);
    let expected = &expected.unwrap()[0];
    let body = json!({"text": "word5", "choices": ["word6", "word7 word8"]});
    let found = server.ask("/choose", body.clone());
    assert_eq!(found["choice"], json!(expected.index));
    for (found, expected) in numbers(&found["probabilities"]).iter().zip(&expected.probabilities) {
        assert!((found - expected).abs() < 1e-5);
    }
    let several = server.ask("/choose", json!({"inputs": [body, {"text": "word9", "choices": ["word6"]}]}));
    assert_eq!((&several[0]["choice"], &several[1]["probabilities"]), (&found["choice"], &json!([1.0])));
    // The choices of a question are computed together, so a batch bounds them.
    let server = Server::start(directory.path(), "--model choices --max-batch-tokens 40");
    assert_eq!(server.ask("/choose", body)["choice"], json!(expected.index));
    let many = json!({"text": "word5", "choices": vec!["word6"; 9]});
    let refused = server.post("/choose", many.to_string());
    let message = "found 9 choices of up to 5 tokens, expected at most 40 tokens in all (--max-batch-tokens)";
    assert!(refused.status == 413 && refused.error().contains(message), "{}", refused.error());
}

#[test]
fn labels_and_vectors_in_the_forms_of_the_inference_api() {
    let directory = models();
    let server = Server::start(directory.path(), "--model labels --model encoder");
    let labels =
        server.ask("/", json!({"inputs": "word7", "parameters": {"top_k": 2}, "options": {"use_cache": false}}));
    let expected = server.ask("/predict", json!({"inputs": "word7"}));
    assert_eq!(labels, json!([[expected[0], expected[1]]]));
    let vectors = server.ask("/?model=encoder", json!({"inputs": "word7"}));
    assert_eq!(vectors, server.ask("/embed", json!({"inputs": "word7"})));
    // The model that the body names chooses the form, too.
    assert_eq!(vectors, server.ask("/", json!({"inputs": "word7", "model": "encoder"})));
    let refused = server.post("/?model=encoder", json!({"inputs": "word7", "model": "labels"}).to_string());
    assert!(refused.status == 422 && refused.error().contains("found two models"), "{}", refused.error());
}
