//! What the files say, and what is wrong with them.

use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A folder with these files, and the path of the `vocab.txt` in it.
fn folder(files: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let path = folder.path().join("vocab.txt");
    (folder, path)
}

#[test]
fn a_vocabulary_has_a_piece_on_every_line() {
    let read = |content: &[u8]| {
        let (_folder, path) = folder(&[("vocab.txt", content)]);
        read_vocabulary(&path).map_err(|error| error.to_string())
    };
    assert_eq!(read(b"[PAD]\r\n\xc3\xa9\n##s\n\n").unwrap(), ["[PAD]", "é", "##s"]);
    assert_eq!(read(b"").unwrap(), [""; 0]);
    let message = read(b"a\nb\na\n").unwrap_err();
    assert!(message.contains("vocab.txt:3: found a duplicate of \"a\""), "{message}");
    let message = read(b"a\n\xff\n").unwrap_err();
    assert!(message.contains("vocab.txt:2: found bytes that are not UTF-8"), "{message}");
}

#[test]
fn special_tokens_are_named_by_the_configuration_or_the_map() {
    let config = json!({"cls_token": "<s>", "sep_token": {"content": "</s>", "lstrip": false}}).to_string();
    let map = json!({"cls_token": "ignored", "mask_token": {"content": "<mask>"}}).to_string();
    let files = [("tokenizer_config.json", config.as_bytes()), ("special_tokens_map.json", map.as_bytes())];
    let (_folder, path) = folder(&files);
    assert_eq!(special_names(&path).unwrap(), ["[PAD]", "[UNK]", "<s>", "</s>", "<mask>"]);
    let (_folder, path) = folder(&[]);
    assert_eq!(special_names(&path).unwrap(), SPECIAL_TOKENS);
}

#[test]
fn added_tokens_are_read_in_both_forms() {
    let (_folder, path) = folder(&[("added_tokens.json", b"{\"<e1>\": 7, \"<e2>\": 8}")]);
    let found = added_tokens(&path, &Value::Null).unwrap();
    assert_eq!(found.iter().map(|(id, token)| (*id, &*token.content)).collect::<Vec<_>>(), [(7, "<e1>"), (8, "<e2>")]);
    let token = |content: &str| {
        json!({"content": content, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false,
               "special": true})
    };
    let config = json!({"added_tokens_decoder": {"9": token("<e3>")}});
    let found = added_tokens(&path, &config).unwrap();
    assert_eq!((found.len(), &*found[&9].content, found[&9].special), (1, "<e3>", true));
    for config in [json!({"added_tokens_decoder": {"nine": token("x")}}), json!({"added_tokens_decoder": {"9": 3}})] {
        let message = added_tokens(&path, &config).unwrap_err().to_string();
        assert!(message.contains("tokenizer_config.json"), "{message}");
    }
    for content in ["[]", "{\"x\": -1}"] {
        let (_folder, path) = folder(&[("added_tokens.json", content.as_bytes())]);
        assert!(added_tokens(&path, &Value::Null).unwrap_err().to_string().contains("added_tokens.json"));
    }
}

#[test]
fn a_file_that_is_no_json_is_named_with_its_line() {
    let (_folder, path) = folder(&[("tokenizer_config.json", b"{\n\"a\": }")]);
    let message = read_json(&path.with_file_name("tokenizer_config.json")).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json:2: found"), "{message}");
    assert_eq!(read_json(&path).unwrap(), Value::Null);
}

#[test]
fn other_algorithms_are_refused_by_key() {
    let check = |config: Value| check_algorithm(&config, Path::new("x")).map_err(|error| error.to_string());
    for config in [json!({}), json!({"tokenizer_class": "BertTokenizerFast", "do_basic_tokenize": true})] {
        check(config).unwrap();
    }
    for (key, value) in [
        ("tokenizer_class", json!("BertJapaneseTokenizer")),
        ("word_tokenizer_type", json!("mecab")),
        ("subword_tokenizer_type", json!("character")),
        ("do_basic_tokenize", json!(false)),
    ] {
        let message = check(json!({key: value})).unwrap_err();
        assert!(message.contains(key) && message.contains("tokenizer.json"), "{message}");
    }
}
