//! Tests of reading tokenizer files, and of their errors.

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
    assert_eq!(read(b"[PAD]\r\n\xc3\xa9\n##s\n\n").unwrap().0, ["[PAD]", "é", "##s"]);
    assert_eq!(read(b"").unwrap(), (vec![], None));
    let (pieces, warning) = read(b"a\nb\na\na\n").unwrap();
    assert_eq!(pieces, ["a", "b", "a", "a"]);
    let warning = warning.unwrap();
    assert!(warning.contains("vocab.txt:3: duplicate \"a\" (first on line 1), 2 duplicate"), "{warning}");
    let message = read(b"a\n\xff\n").unwrap_err();
    assert!(message.contains("vocab.txt:2: found bytes that are not UTF-8"), "{message}");
}

/// As in transformers, the older map takes precedence unless the configuration lists the added tokens.
#[test]
fn special_tokens_are_named_by_the_map_or_the_configuration() {
    let mut config = json!({"cls_token": "<s>", "sep_token": {"content": "</s>", "lstrip": false}, "pad_token": null});
    let map = json!({"cls_token": "<cls>", "mask_token": {"content": "<mask>"}}).to_string();
    let names = |config: &Value| {
        let config = config.to_string();
        let files = [("tokenizer_config.json", config.as_bytes()), ("special_tokens_map.json", map.as_bytes())];
        let (_folder, path) = folder(&files);
        Configuration::beside(&path).unwrap().names()
    };
    assert_eq!(names(&config), ["[PAD]", "[UNK]", "<cls>", "</s>", "<mask>"]);
    config["added_tokens_decoder"] = json!({});
    assert_eq!(names(&config), ["[PAD]", "[UNK]", "<s>", "</s>", "[MASK]"]);
    let (_folder, path) = folder(&[]);
    assert_eq!(Configuration::beside(&path).unwrap().names(), SPECIAL_TOKENS);
}

#[test]
fn further_special_tokens_are_read_from_both_files() {
    let config = json!({"additional_special_tokens": ["<a>", {"content": "<b>", "lstrip": true}]}).to_string();
    let map = json!({"extra_special_tokens": {"query_token": "<q>"}, "additional_special_tokens": ["<a>"]}).to_string();
    let files = [("tokenizer_config.json", config.as_bytes()), ("special_tokens_map.json", map.as_bytes())];
    let (_folder, path) = folder(&files);
    let found = Configuration::beside(&path).unwrap().extra_tokens();
    let found: Vec<(&str, bool, bool)> = found.iter().map(|t| (&*t.content, t.lstrip, t.special)).collect();
    assert_eq!(found, [("<q>", false, true), ("<a>", false, true), ("<b>", true, true)]);
}

/// The added tokens of a folder with these files.
fn added(files: &[(&str, &str)]) -> Result<BTreeMap<u64, AddedToken>, String> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
    let (_folder, path) = folder(&files);
    let read = Configuration::beside(&path).and_then(|configuration| configuration.added_tokens());
    read.map_err(|error| error.to_string())
}

#[test]
fn added_tokens_are_read_in_both_forms() {
    let map = ("special_tokens_map.json", r#"{"additional_special_tokens": ["<e2>"]}"#);
    let found = added(&[("added_tokens.json", r#"{"<e1>": 7, "<e2>": 8}"#), map]).unwrap();
    let found: Vec<(u64, &str, bool)> = found.iter().map(|(id, token)| (*id, &*token.content, token.special)).collect();
    assert_eq!(found, [(7, "<e1>", false), (8, "<e2>", true)]);
    let found = added(&[("tokenizer_config.json", r#"{"added_tokens_decoder": {"9": {"content": "<e3>"}}}"#)]).unwrap();
    assert_eq!((found.len(), &*found[&9].content, found[&9].normalized), (1, "<e3>", true));
    for config in
        [json!({"added_tokens_decoder": {"nine": {"content": "x"}}}), json!({"added_tokens_decoder": {"9": 3}})]
    {
        let message = added(&[("tokenizer_config.json", &config.to_string())]).unwrap_err();
        assert!(message.contains("tokenizer_config.json"), "{message}");
    }
    for content in ["[]", "{\"x\": -1}"] {
        assert!(added(&[("added_tokens.json", content)]).unwrap_err().contains("added_tokens.json"));
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
