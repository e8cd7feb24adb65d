//! Promise: the tokenizer of a model directory gives the same ids as transformers, whichever files it consists of, and
//! errors name what is wrong with a file.

mod support;

use std::fs;
use std::path::Path;

use bert_model::text::Sequence;
use bert_model::text::tokenizer::Normalization;
use bert_model::{BertConfig, Tokenizer};
use serde_json::{Value, json};
use support::golden;
use tempfile::TempDir;

fn vocabulary(size: usize) -> Tokenizer {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let pieces: Vec<String> = special.into_iter().chain((5..size).map(|id| format!("word{id}"))).collect();
    Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap()
}

/// A directory with a modified version of the tokenizer.json of [`vocabulary`].
fn changed(change: impl FnOnce(&mut Value)) -> TempDir {
    let directory = TempDir::new().unwrap();
    let mut file = serde_json::from_str(&vocabulary(8).to_json().unwrap()).unwrap();
    change(&mut file);
    fs::write(directory.path().join("tokenizer.json"), file.to_string()).unwrap();
    directory
}

fn refusal(directory: &Path) -> String {
    Tokenizer::load(directory).unwrap_err().to_string()
}

/// The expected ids were computed with transformers by `tests/golden/make_tokenizer_goldens.py`.
#[test]
fn odd_directories_have_the_ids_of_transformers() {
    let goldens: Value = serde_json::from_str(&fs::read_to_string(golden("tokenizers.json")).unwrap()).unwrap();
    for case in goldens["cases"].as_array().unwrap() {
        let directory = TempDir::new().unwrap();
        for (file, content) in case["files"].as_object().unwrap() {
            fs::write(directory.path().join(file), content.as_str().unwrap()).unwrap();
        }
        let name = &case["name"];
        let tokenizer = Tokenizer::load(directory.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let special = tokenizer.special();
        assert_eq!(json!([special.pad, special.unk, special.cls, special.sep]), case["special"], "{name}");
        assert_eq!(json!(tokenizer.mask().unwrap()), case["mask"], "{name}");
        let again = TempDir::new().unwrap();
        tokenizer.save(again.path(), 16).unwrap();
        for tokenizer in [&tokenizer, &Tokenizer::load(again.path()).unwrap()] {
            let truncating = case["max_length"].as_u64().map(|length| tokenizer.truncating(length as usize).unwrap());
            let tokenizer = truncating.as_ref().unwrap_or(tokenizer);
            for (index, texts) in case["texts"].as_array().unwrap().iter().enumerate() {
                let Sequence { ids, types } =
                    tokenizer.sequence(texts[0].as_str().unwrap(), texts[1].as_str()).unwrap();
                assert_eq!(
                    (json!(ids), json!(types)),
                    (case["ids"][index].clone(), case["types"][index].clone()),
                    "{name}"
                );
            }
        }
    }
}

/// The vocabulary was trimmed, but the template kept the ids of the old one.
#[test]
fn a_template_has_the_ids_of_its_own_vocabulary() {
    for (token, id) in [("[CLS]", 7), ("[SEP]", 5), ("[CLS]", 5000)] {
        let directory = changed(|file| {
            let key = if token == "[CLS]" { "cls" } else { "sep" };
            file["post_processor"][key] = json!([token, id]);
        });
        let error = refusal(directory.path());
        let own = if token == "[CLS]" { 2 } else { 3 };
        assert!(error.contains("tokenizer.json: found"), "{error}");
        assert!(
            error.contains(&format!("the id {id} for {token} in `post_processor`, expected {own}, its id")),
            "{error}"
        );
    }
}

/// On such a template, the tokenizers library would panic at the first text.
#[test]
fn a_template_that_is_not_whole_is_refused() {
    let special = |id: &str, ids: Value, tokens: Value| json!({id: {"id": id, "ids": ids, "tokens": tokens}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let cls = json!({"SpecialToken": {"id": "[CLS]", "type_id": 0}});
    let template = |single: Value, special_tokens: Value| {
        let pair = json!([text("A"), text("B")]);
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special_tokens})
    };
    let good = special("[CLS]", json!([2]), json!(["[CLS]"]));
    for (processor, expected) in [
        (template(json!([cls, text("A")]), json!({})), "[CLS] in the template but not among its special tokens"),
        (template(json!([cls, text("B")]), good.clone()), "a second text in the template for a single text"),
        (template(json!([cls, text("A")]), special("[CLS]", json!([2]), json!([]))), "0 tokens with 1 ids for [CLS]"),
        (template(json!([cls, text("A")]), special("[CLS]", json!([2]), json!(["<s>"]))), "the id 2 for <s>"),
    ] {
        let error = refusal(changed(|file| file["post_processor"] = processor.clone()).path());
        assert!(error.contains("tokenizer.json") && error.contains(expected), "{error}");
        let inside = json!({"type": "Sequence", "processors": [processor]});
        assert!(refusal(changed(|file| file["post_processor"] = inside).path()).contains(expected));
    }
    let whole = template(json!([cls, text("A")]), good);
    let twice = json!({"type": "Sequence", "processors": [whole, whole]});
    let error = refusal(changed(|file| file["post_processor"] = twice).path());
    assert!(error.contains("a template after another post-processor"), "{error}");
    let nothing = json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]});
    let error = refusal(changed(|file| file["pre_tokenizer"] = nothing).path());
    assert!(error.contains("a `FixedLength` of 0"), "{error}");
}

#[test]
fn token_types_beyond_the_models_are_refused() {
    let directory = changed(|file| {
        let part = |kind: &str, id: &str, token_type: u32| json!({kind: {"id": id, "type_id": token_type}});
        let (a, b) = (part("Sequence", "A", 3), part("Sequence", "B", 300));
        file["post_processor"] =
            json!({"type": "TemplateProcessing", "single": [a], "pair": [a, b], "special_tokens": {}});
        file["pre_tokenizer"] = json!({"type": "Whitespace"});
    });
    let tokenizer = Tokenizer::load(directory.path()).unwrap();
    let config = |types| BertConfig { type_vocab_size: types, ..BertConfig::default() };
    let error = tokenizer.check_fits(&config(2)).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: the token type 3 in `post_processor` does not fit"), "{error}");
    tokenizer.check_fits(&config(4)).unwrap();
    assert!(tokenizer.check_fits_pairs(&config(4)).unwrap_err().to_string().contains("the token type 300"));
    let sequence = tokenizer.sequence("word5", Some("word6")).unwrap();
    assert!(sequence.check_fits(&config(256)).is_ok(), "types are bytes");
    assert!(sequence.check_fits(&config(255)).unwrap_err().to_string().contains("the token type 255"));
}

#[test]
fn a_tokenizer_without_a_mask_token_tokenizes() {
    let pieces: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the"].map(str::to_string).into();
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).unwrap();
    assert_eq!(tokenizer.sequence("the [MASK]", None).unwrap().ids, [2, 4, 1, 1, 1, 3]);
    assert!(tokenizer.mask().unwrap_err().to_string().contains("found no [MASK] token"));
    let directory = TempDir::new().unwrap();
    tokenizer.save(directory.path(), 16).unwrap();
    let config: Value =
        serde_json::from_str(&fs::read_to_string(directory.path().join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(config["mask_token"], Value::Null);
    assert!(Tokenizer::load(directory.path()).unwrap().mask().is_err());
}

#[test]
fn files_that_disagree_are_told() {
    let directory = TempDir::new().unwrap();
    vocabulary(6).save(directory.path(), 16).unwrap();
    let warnings = || Tokenizer::load(directory.path()).unwrap().warnings().join("; ");
    assert_eq!(warnings(), "");
    let path = directory.path().join("tokenizer_config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"do_lower_case\": true", "\"do_lower_case\": false")).unwrap();
    assert!(
        warnings().contains("`do_lower_case` is false, but tokenizer.json says true, which takes precedence"),
        "{}",
        warnings()
    );
    // transformers lowercases unless told otherwise, but only in the class for BERT.
    let cased = directory.path().join("tokenizer.json");
    let text = fs::read_to_string(&cased).unwrap();
    fs::write(
        &cased,
        text.replace("\"lowercase\": true", "\"lowercase\": false")
            .replace("\"lowercase\":true", "\"lowercase\":false"),
    )
    .unwrap();
    fs::remove_file(&path).unwrap();
    assert!(warnings().contains("`do_lower_case` is true by default, but tokenizer.json says false"), "{}", warnings());
    fs::write(&path, "{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}").unwrap();
    assert_eq!(warnings(), "");
    fs::write(&path, "{}").unwrap();
    fs::write(directory.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\nthe\n").unwrap();
    fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
    let tokenizer = Tokenizer::load(directory.path()).unwrap();
    assert!(tokenizer.warnings()[0].contains("vocab.txt:8: duplicate \"the\""), "{:?}", tokenizer.warnings());
    assert_eq!(tokenizer.pieces("the").unwrap(), [7]);
}

/// Some readers use only `vocab.txt` and `tokenizer_config.json`.
#[test]
fn normalization_is_saved() {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "é", "漢字"].map(str::to_string);
    let normalization = Normalization { lowercase: true, strip_accents: Some(false), chinese_chars: false };
    let directory = TempDir::new().unwrap();
    Tokenizer::from_vocabulary(&pieces, normalization).unwrap().save(directory.path(), 16).unwrap();
    fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
    let again = Tokenizer::load(directory.path()).unwrap();
    assert_eq!(again.pieces("É 漢字").unwrap(), [5, 6]);
}

/// The format of slow tokenizers: a vocabulary, and next to it the tokens added to it.
#[test]
fn tokens_that_were_added_to_a_vocabulary_stay_whole() {
    let marked = |content: &str| {
        let flags = r#""single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false"#;
        format!("{{\"content\": {content:?}, {flags}}}")
    };
    let decoder = format!(
        "{{\"added_tokens_decoder\": {{\"9\": {}, \"8\": {}, \"2\": {}}}}}",
        marked("</e1>"),
        marked("<e1>"),
        marked("[CLS]")
    );
    for (file, content) in
        [("tokenizer_config.json", decoder.as_str()), ("added_tokens.json", r#"{"</e1>": 9, "<e1>": 8}"#)]
    {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n<\n").unwrap();
        fs::write(directory.path().join(file), content).unwrap();
        let tokenizer = Tokenizer::load(directory.path()).unwrap();
        assert_eq!(tokenizer.vocab_size(), 10, "{file}");
        assert_eq!(tokenizer.pieces("A <e1> b </e1> <").unwrap(), [5, 8, 6, 9, 7], "{file}");
        // An added id that leaves a gap cannot be preserved.
        fs::write(directory.path().join(file), content.replace('9', "11")).unwrap();
        let error = Tokenizer::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("found the added token \"</e1>\" with the id 11"), "{error}");
    }
}

#[test]
fn a_vocabulary_of_another_algorithm_is_refused() {
    for (config, expected) in [
        (r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, "`tokenizer_class` is BertJapaneseTokenizer"),
        (r#"{"word_tokenizer_type": "mecab"}"#, "`word_tokenizer_type` is mecab"),
        (r#"{"do_basic_tokenize": false}"#, "`do_basic_tokenize` is false"),
    ] {
        let directory = TempDir::new().unwrap();
        vocabulary(6).save(directory.path(), 16).unwrap();
        fs::write(directory.path().join("tokenizer_config.json"), config).unwrap();
        assert!(Tokenizer::load(directory.path()).is_ok(), "tokenizer.json says all there is to say");
        fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
        let error = Tokenizer::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The names in multilingual models that kept XLM-R's vocabulary.
#[test]
fn special_tokens_may_have_other_names() {
    let directory = TempDir::new().unwrap();
    vocabulary(7).save(directory.path(), 16).unwrap();
    fs::remove_file(directory.path().join("vocab.txt")).unwrap();
    let names = [("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>")];
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let path = directory.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, names.iter().fold(text, |text, (from, to)| text.replace(from, to))).unwrap();
    }
    let tokenizer = Tokenizer::load(directory.path()).unwrap();
    assert_eq!(tokenizer.encode("word5", Some("word6")).unwrap().get_ids(), [2, 5, 3, 6, 3]);
    let again = TempDir::new().unwrap();
    tokenizer.save(again.path(), 16).unwrap();
    let loaded = Tokenizer::load(again.path()).unwrap();
    assert_eq!((loaded.special(), loaded.vocabulary()), (tokenizer.special(), tokenizer.vocabulary()));
    fs::remove_file(directory.path().join("tokenizer_config.json")).unwrap();
    assert!(Tokenizer::load(directory.path()).unwrap_err().to_string().contains("found no [PAD]"));
}

/// transformers rebuilds a `BertTokenizer` from its keys, but uses the file of a `PreTrainedTokenizerFast` unchanged.
#[test]
fn only_berts_own_way_of_cutting_text_is_called_berts() {
    let saved_class = |pre_tokenizer: &str| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("tokenizer.json");
        fs::write(&path, vocabulary(6).to_json().unwrap().replace("\"BertPreTokenizer\"", pre_tokenizer)).unwrap();
        Tokenizer::load(directory.path()).unwrap().save(directory.path(), 16).unwrap();
        fs::read_to_string(directory.path().join("tokenizer_config.json")).unwrap()
    };
    assert!(saved_class("\"BertPreTokenizer\"").contains("\"BertTokenizer\""));
    let foreign = saved_class("\"WhitespaceSplit\"");
    assert!(foreign.contains("\"PreTrainedTokenizerFast\"") && !foreign.contains("do_lower_case"), "{foreign}");
}

#[test]
fn vocabularies_that_cannot_be_are_refused_by_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vocab.txt");
    let special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    let error = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        Tokenizer::load(directory.path()).unwrap_err().to_string()
    };
    assert!(error(b"[PAD]\n[UNK]\nthe\n").contains("found no [CLS]"));
    assert!(error(&[special.as_bytes(), b"\xff\n"].concat()).contains("vocab.txt:6: found bytes that are not UTF-8"));
    assert!(error(b"").contains("found no [PAD]"));
    fs::write(directory.path().join("tokenizer.json"), "{\"version\":").unwrap();
    assert!(Tokenizer::load(directory.path()).unwrap_err().to_string().contains("tokenizer.json"));
}
