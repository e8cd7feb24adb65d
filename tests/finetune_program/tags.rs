//! Tagging schemes other than IOB2, from training to prediction.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{json, object, run, success, text};
use crate::{on_file, workshop};

/// Reported bug: the middle tags of BMES were lost, every entity was split in two, and tags were learned that occur in
/// no file.
#[test]
fn every_scheme_is_learned_and_answered_with_its_own_tags() {
    let directory = workshop();
    let at = directory.path();
    for (name, begin, inside, end, single) in [
        ("bmes", "B-TITLE", "M-TITLE", "E-TITLE", "S-TITLE"),
        ("bmewo", "B_TITLE", "M_TITLE", "E_TITLE", "W_TITLE"),
        ("bilou", "TITLE-B", "TITLE-I", "TITLE-L", "TITLE-U"),
        ("iob2", "TITLE_B", "TITLE_I", "TITLE_I", "TITLE_B"),
        ("ioe2", "I-TITLE", "I-TITLE", "E-TITLE", "E-TITLE"),
        ("plain", "TITLE", "TITLE", "TITLE", "TITLE"),
    ] {
        let sentence = |i: usize| match i % 2 {
            0 => format!("a O\ngood {begin}\nfine {inside}\nfilm {end}\n. O\n\n"),
            _ => format!("a O\nbook {single}\n. O\n\n"),
        };
        let file = format!("{name}.conll");
        fs::write(at.join(&file), (0..48).map(sentence).collect::<String>()).unwrap();
        let summary = json(&on_file(&file, name, "--task tagging --epochs 12"), at);
        assert!(summary["eval"]["f1"].as_f64().unwrap() > 0.95, "{name}: {summary}");
        assert_eq!(summary["eval"]["per_type"]["TITLE"]["support"], 48, "{name}: {summary}");
        assert_eq!(summary["eval"]["strict"].is_object(), name != "plain", "{name}");
        let mut tags = vec!["O", begin, inside, end, single];
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(object(at.join(name).join("run.json"))["labels"], value!(tags), "{name}");
        let answer = json(&format!("predict --model {name} 'a good fine film .' --json --quiet"), at);
        let entities = answer["entities"].as_array().unwrap();
        assert_eq!((entities.len(), &entities[0]["text"]), (1, &"good fine film".into()), "{name}: {answer}");
    }
}

/// A trained model's labels are renamed in `config.json`; `predict` reports on stderr those that follow no scheme.
#[test]
fn labels_that_follow_no_scheme_are_named_on_stderr() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.conll"), "a O\ngood B-X\nfilm I-X\n\n".repeat(8)).unwrap();
    json(&on_file("a.conll", "tags", "--task tagging --epochs 1"), at);
    fs::remove_file(at.join("tags/finetune.json")).unwrap();
    let config = fs::read_to_string(at.join("tags/config.json")).unwrap();
    for (names, expected) in [
        (["B-X", "I-X"], None),
        (["X_B", "X_I"], None),
        (["LOC", "PER"], None),
        (["b-x", "i-x"], Some("tags `b-x`, `i-x`: not in the schemes")),
        (["B-X", "[CLS]"], Some("tags `B-X`: not in the schemes")),
        (["X.B", "X.I"], Some("tags `X.B`, `X.I`: not in the schemes")),
    ] {
        let named =
            config.replace("\"B-X\"", &format!("{:?}", names[0])).replace("\"I-X\"", &format!("{:?}", names[1]));
        fs::write(at.join("tags/config.json"), named).unwrap();
        let output = run("predict --model tags 'a good film' --json --quiet", at);
        success(&output);
        let warning = text(&output.stderr);
        match expected {
            Some(expected) => assert!(warning.contains(expected), "{names:?}: {warning}"),
            None => assert_eq!(warning, "", "{names:?}"),
        }
    }
}

/// Reported bug: `0` for `O` became an entity type without words.
#[test]
fn a_zero_for_the_letter_o_is_warned_of() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("zero.conll"), "a 0\ngood PER\n\nfilm LOC\nfine 0\n\n".repeat(8)).unwrap();
    let output = run(&on_file("zero.conll", "zero", "--task tagging --epochs 1"), at);
    success(&output);
    assert!(text(&output.stderr).contains("the tag `0` is the digit"), "{}", text(&output.stderr));
}

/// Reported bug: IOB2 with a stray `I` was mistaken for IOB1 and converted, so that the accuracy differed from
/// seqeval's.
#[test]
fn tags_are_compared_as_they_stand() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("a.conll"), "a O\ngood B\nfilm I\n\n".repeat(8)).unwrap();
    json(&on_file("a.conll", "tags", "--task tagging --epochs 12"), at);
    let words = ["a", "good", "film", "a", "a", "good", "a", "film", "a"];
    let tags = ["O", "B", "I", "I", "O", "B", "O", "I", "O"];
    let lines: String = words.iter().zip(tags).map(|(word, tag)| format!("{word} {tag}\n")).collect();
    fs::write(at.join("stray.conll"), lines).unwrap();
    let metrics = json("evaluate --model tags --data stray.conll --json --quiet --predictions p.jsonl", at);
    let found = crate::program::lines(at.join("p.jsonl"));
    let found: Vec<&str> = found[0]["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let right = found.iter().zip(tags).filter(|(found, gold)| **found == *gold).count();
    assert_eq!(metrics["accuracy"].as_f64(), Some(right as f64 / 9.0), "{metrics}");
}
