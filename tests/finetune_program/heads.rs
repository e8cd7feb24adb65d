//! Tagging, question answering and multiple choice.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{fail, feed, in_row, json, objects, succeed, success};
use crate::{on_file, workshop};

#[test]
fn tagging_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    // IOB1, as in CoNLL-2003, learned as written; a title is "good film" or "fine book", and everything else is
    // outside.
    let sentence = |i: usize| match i % 3 {
        0 => "a O\ngood I-TITLE\nfilm I-TITLE\n. O\n\n",
        1 => "fine I-TITLE\nbook I-TITLE\ngood B-TITLE\nfilm I-TITLE\n\n",
        _ => "a O\nbad O\nfilm O\n\n",
    };
    let text: String = (0..48).map(sentence).collect();
    fs::write(at.join("titles.conll"), format!("-DOCSTART- O\n\n{text}")).unwrap();
    let summary = json(&on_file("titles.conll", "tags", "--task tagging --epochs 12"), at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 0.95, "{summary}");

    let metrics = json("evaluate --model tags --data titles.conll --json --quiet", at);
    assert_eq!((&metrics["f1"], &metrics["examples"]), (&summary["eval"]["f1"], &Value::from(48)));
    let answer = json("predict --model tags 'a good film .' --json --quiet", at);
    assert_eq!(answer["words"], value!(["a", "good", "film", "."]));
    let entity = &answer["entities"][0];
    assert_eq!((&entity["type"], &entity["text"]), (&Value::from("TITLE"), &Value::from("good film")), "{answer}");
    assert_eq!((&entity["start"], &entity["end"]), (&Value::from(2), &Value::from(11)), "{answer}");
    // In a sentence much longer than the model's maximum, every word gets a tag.
    let long = "a good film . ".repeat(30);
    let answer = json(&format!("predict --model tags '{long}' --json --quiet"), at);
    assert_eq!(answer["tags"].as_array().unwrap().len(), 120);

    fs::write(at.join("texts.csv"), "text\n\"a good, film\"\n").unwrap();
    fs::write(at.join("texts.jsonl"), "{\"text\": \"a good, film\"}\n").unwrap();
    fs::write(at.join("words.jsonl"), "{\"words\": [\"a\", \"good\", \",\", \"film\"]}\n").unwrap();
    for file in ["texts.csv", "texts.jsonl", "words.jsonl"] {
        let found = json(&format!("predict --model tags --input {file} --json --quiet"), at);
        assert_eq!(found["words"], value!(["a", "good", ",", "film"]), "{file}");
    }

    let answer = json("predict --model tags 'a good  film.' --json --quiet", at);
    assert_eq!(answer["entities"][0]["text"], "good  film", "what stands there: {answer}");
    fs::write(at.join("bodies.csv"), "id,body\n1,a good film\n").unwrap();
    let bodies = json("predict --model tags --input bodies.csv --text body --json --quiet", at);
    assert_eq!(bodies["words"], value!(["a", "good", "film"]));
    // Numbered tags, as written by the `datasets` library.
    fs::write(at.join("numbers.jsonl"), "{\"tokens\": [\"a\", \"good\", \"film\"], \"ner_tags\": [2, 0, 1]}\n")
        .unwrap();
    let metrics = json("evaluate --model tags --data numbers.jsonl --json --quiet", at);
    assert_eq!(metrics["f1"], 1.0, "{metrics}");

    // CoNLL-U with tags in another column; the words are still in the second.
    let row = |id: usize, word: &str, tag: &str| format!("{id}\t{word}\t_\tX\t{tag}\t_\t0\t_\t_\t_\n");
    let text = format!("# text = a film\n{}{}\n", row(1, "a", "DT"), row(2, "film", "NN")).repeat(8);
    fs::write(at.join("tree.conllu"), text).unwrap();
    json(&on_file("tree.conllu", "tree", "--task tagging --epochs 12 --tag-column 5"), at);
    let answer = &objects(&succeed("predict --model tree --input tree.conllu --json --quiet", at))[0];
    assert_eq!((&answer["words"], &answer["tags"]), (&value!(["a", "film"]), &value!(["DT", "NN"])));

    fs::write(at.join("odd.conll"), "a O\ngood I-BAND\n").unwrap();
    let message = fail("evaluate --model tags --data odd.conll --quiet", at, 1);
    assert!(message.contains("odd.conll:2: found the tag \"I-BAND\"") && message.contains("B-TITLE"), "{message}");
}

/// A SQuAD file of questions about films; every third one has no answer.
fn questions() -> String {
    let paragraph = |i: usize| {
        let word = ["good", "bad", "poor"][i % 3];
        let answers = match i % 3 {
            2 => value!([]),
            _ => value!([{"text": word, "answer_start": 2}]),
        };
        let question = if i % 3 == 2 { "book" } else { "film" };
        value!({"context": format!("a {word} film ."), "qas": [
            {"id": i.to_string(), "question": question, "answers": answers, "is_impossible": i % 3 == 2}]})
    };
    let paragraphs: Vec<Value> = (0..48).map(paragraph).collect();
    value!({"version": "v2.0", "data": [{"title": "films", "paragraphs": paragraphs}]}).to_string()
}

#[test]
fn question_answering_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("questions.json"), questions()).unwrap();
    let task = "--task question-answering --epochs 25 --max-seq-len 16 --doc-stride 4";
    let summary = json(&on_file("questions.json", "answers", task), at);
    assert!(summary["eval"]["f1"].as_f64().unwrap() > 90.0, "{summary}");
    let metrics = json("evaluate --model answers --data questions.json --json --quiet", at);
    assert_eq!(metrics["exact_match"], summary["eval"]["exact_match"], "the tuned threshold is kept");
    let ask = |question: &str, context: &str| {
        let asked = format!("--question '{question}' --context '{context}'");
        json(&format!("predict --model answers {asked} --json --quiet"), at)
    };
    let answer = ask("film", "a bad film .");
    assert_eq!(
        (&answer["answer"], &answer["start"], &answer["end"]),
        (&"bad".into(), &2.into(), &5.into()),
        "{answer}"
    );
    let none = ask("book", "a poor film .");
    assert!(none["answer"] == "" && none["score"].as_f64().unwrap() > 0.2, "{none}");
    let listed = "predict --model answers --question book --context 'a poor film .' --n-best 3 --json --quiet";
    let listed = json(listed, at);
    let n_best = listed["n_best"].as_array().unwrap();
    assert_eq!((n_best.len(), &n_best[0]), (3, &none), "{listed}");
    assert!(n_best.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()), "{listed}");
    assert!(metrics["loss"].as_f64().unwrap() < 1.0, "{metrics}");
    fs::write(at.join("asked.jsonl"), "{\"question\": \"film\", \"context\": \"a bad film .\"}\n").unwrap();
    fs::write(at.join("asked.txt"), "film\ta bad film .\n").unwrap();
    for file in ["asked.jsonl", "asked.txt"] {
        let found = json(&format!("predict --model answers --input {file} --json --quiet"), at);
        assert_eq!(found, in_row(1, &answer), "{file}");
    }
    fs::write(at.join("faq.csv"), "q,passage\nfilm,a bad film .\n").unwrap();
    let elsewhere = "predict --model answers --input faq.csv --text q --text-pair passage --json --quiet";
    assert_eq!(json(elsewhere, at), in_row(1, &answer));

    // A third-party directory does not say whether a question may have no answer; the file does, and the user can.
    let config = fs::read_to_string(at.join("answers/config.json")).unwrap();
    assert!(!config.contains("id2label"), "a head for answers has no classes");
    fs::remove_file(at.join("answers/finetune.json")).unwrap();
    let metrics = json("evaluate --model answers --data questions.json --json --quiet", at);
    assert!(metrics["no_answer"]["f1"].is_number() && metrics["best_f1"].is_number(), "{metrics}");
    assert_eq!(ask("book", "a poor film .")["answer"].as_str().map(str::is_empty), Some(false));
    let eager = "predict --model answers --question film --context 'a bad film .' --json --quiet";
    let none = json(&format!("{eager} --no-answer-threshold -1000"), at);
    assert_eq!(none["answer"], "");
}

#[test]
fn multiple_choice_from_training_to_prediction() {
    let directory = workshop();
    let at = directory.path();
    let row = |i: usize| {
        let (right, other) = (["good", "fine"][i / 2 % 2], ["bad", "poor"][i / 4 % 2]);
        let (first, second) = if i.is_multiple_of(2) { (right, other) } else { (other, right) };
        format!("{{\"premise\":\"a film\",\"one\":\"{first}\",\"two\":\"{second}\",\"label\":{}}}\n", i % 2)
    };
    fs::write(at.join("choices.jsonl"), (0..48).map(row).collect::<String>()).unwrap();
    let task = "--task multiple-choice --text premise --choices one,two --epochs 10";
    let summary = json(&on_file("choices.jsonl", "chooser", task), at);
    assert_eq!(summary["eval"]["accuracy"], 1.0, "{summary}");
    let answer = json("predict --model chooser 'a film' --choice poor --choice fine --json --quiet", at);
    assert_eq!(answer["choice"], 1);
    // From standard input, as lines of JSON or in another format.
    let asked = "{\"premise\":\"a film\",\"one\":\"fine\",\"two\":\"poor\"}\n";
    let answers = success(&feed("predict --model chooser - --json --quiet", at, asked));
    assert_eq!(objects(&answers)[0]["choice"], 0);
    let asked = "premise,one,two\na film,fine,poor\n";
    assert_eq!(success(&feed("predict --model chooser - --input-format csv --json --quiet", at, asked)), answers);
    // Options that do not apply to this model are rejected.
    let message = fail("predict --model chooser --question why? --context 'a film'", at, 2);
    assert!(message.contains("--question has no effect here: the task is multiple-choice"), "{message}");
    let message = fail("predict --model chooser --input choices.jsonl --choice fine", at, 2);
    assert!(
        message.contains("--choice has no effect here: for texts from a file, it is read from the file's columns"),
        "{message}"
    );
}
