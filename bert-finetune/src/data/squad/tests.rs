//! Tests of the formats of question files, and of their errors.

use std::fs;

use super::*;

fn read(json: &str) -> Result<Vec<Question>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), json).unwrap();
    read_squad(file.path())
}

fn file(qas: &str) -> String {
    let paragraph = format!(r#"{{"context":"Zoë ate 𝄞 pies.","qas":[{qas}]}}"#);
    format!("\u{feff}{{\"version\":\"v2.0\",\"data\":[{{\"title\":\"T\",\"paragraphs\":[{paragraph}]}}]}}")
}

fn pies(start: usize) -> Option<Vec<Answer>> {
    Some(vec![Answer { text: "pies".into(), start: Some(start) }])
}

#[test]
fn offsets_count_code_points() {
    let questions = read(&file(
        r#"{"id":"1","question":"What?","answers":[{"text":"pies","answer_start":10}]},
           {"id":"2","question":"Who?","answers":[],"is_impossible":true,"plausible_answers":[]}"#,
    ));
    let questions = questions.unwrap();
    assert_eq!(questions[0].answers, pies(10));
    assert!(questions[1].is_impossible() && !questions[0].is_impossible());
    let code_points = CodePoints::new(&questions[0].context);
    assert_eq!((code_points.to_byte(10), code_points.to_byte(16)), (Some(14), None));
}

#[test]
fn a_compressed_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("squad.json.gz");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let json = file(r#"{"id":"1","question":"What?","answers":[{"text":"pies","answer_start":10}]}"#);
    std::io::Write::write_all(&mut encoder, json.as_bytes()).unwrap();
    fs::write(&path, encoder.finish().unwrap()).unwrap();
    assert_eq!(read_squad(&path).unwrap()[0].answers, pies(10));
}

/// A question has no answer if its list of answers is empty, regardless of `is_impossible`. Without a list, it is
/// unlabeled unless `is_impossible` is true.
#[test]
fn unanswerable_by_empty_answers_alone() {
    for (keys, expected) in [
        (r#""answers":[]"#, Some(vec![])),
        (r#""answers":[],"is_impossible":false"#, Some(vec![])),
        (r#""answers":{"text":[],"answer_start":[]}"#, Some(vec![])),
        (r#""is_impossible":true"#, Some(vec![])),
        (r#""answers":null,"is_impossible":null"#, None),
        (r#""plausible_answers":[]"#, None),
        (r#""answers":[{"text":"pies","answer_start":10}],"is_impossible":true"#, pies(10)),
    ] {
        let questions = read(&file(&format!(r#"{{"question":"What?",{keys}}}"#))).unwrap();
        assert_eq!(questions[0].answers, expected, "{keys}");
    }
}

#[test]
fn ids_and_titles_may_be_anything() {
    for (id, expected) in [("", "1"), (r#""id":7,"#, "7"), (r#""id":null,"#, "1"), (r#""id":"q","#, "q")] {
        let json = file(&format!(r#"{{{id}"question":"What?","answers":[]}}"#));
        for title in ["\"T\"", "null", "3"] {
            assert_eq!(read(&json.replace("\"T\"", title)).unwrap()[0].id, expected, "{id} {title}");
        }
    }
}

#[test]
fn flat_rows_stand_in_data_in_a_list_or_one_a_line() {
    let row = r#"{"id":1,"title":"T","context":"Zoë ate 𝄞 pies.","question":"What?","answers":ANSWERS}"#;
    for answers in [
        r#"{"text":["pies"],"answer_start":[10]}"#,
        r#"{"text":"pies","answer_start":10}"#,
        r#"[{"text":"pies","answer_start":10}]"#,
    ] {
        let row = row.replace("ANSWERS", answers);
        for json in [format!("{{\"data\":[{row},{row}]}}"), format!("[{row},\n{row}]"), format!("{row}\n{row}\n")] {
            let questions = read(&json).unwrap();
            assert_eq!((questions.len(), &questions[1].answers), (2, &pies(10)), "{json}");
        }
    }
    let bare = row.replace("ANSWERS", r#"["pies"]"#);
    assert_eq!(read(&bare).unwrap()[0].answers.as_ref().unwrap()[0].start, None);
}

#[test]
fn an_answer_that_is_not_at_its_offset_has_no_place() {
    for start in ["11", "400", "-1", "null", "\"x\"", "9223372036854775807"] {
        let qas = format!(r#"{{"id":"q7","question":"?","answers":[{{"text":"pies","answer_start":{start}}}]}}"#);
        let question = read(&file(&qas)).unwrap().remove(0);
        assert_eq!((question.first_place(), question.is_placed()), (None, false), "{start}");
        assert_eq!(question.answers.unwrap()[0].text, "pies");
    }
}

#[test]
fn what_is_not_squad() {
    for (json, expected) in [
        ("{\"data\":\n[{}]}", ":2: found neither `data` nor `paragraphs` nor `context` (column 4), expected SQuAD's"),
        ("{\"data\":[", ":1: found EOF while parsing a list (column 9), expected SQuAD's JSON"),
        ("{\"data\":[]}", ": found no questions, expected at least one"),
        ("", ": found no questions, expected at least one"),
        ("7", ":1: found invalid type: integer `7`, expected an object or a list of objects"),
        ("{\"context\":\"a\"}\n", ":1: found `context` without `qas` or `question`"),
        ("{\"context\":[],\"question\":\"b\"}", ":1: found a question or context that is neither a text nor a number"),
    ] {
        let message = read(json).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nis not\n{expected}");
    }
}

#[test]
fn rows_of_parquet() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet/squad.parquet");
    let questions = read_squad(&path).unwrap();
    assert_eq!(questions[0].first_place(), Some((10, 14)));
    assert!(!questions[0].is_impossible() && questions[1].is_impossible());
}

/// Reported bugs: no question of such a file was answered.
#[test]
fn answers_and_texts_may_be_null_or_of_another_type() {
    for (answers, expected) in [
        (r#"[{"text":"b","answer_start":2},{"text":null,"answer_start":null}]"#, Some(vec!["b"])),
        (r#"[{"text":null}]"#, None),
        (r#"[{"answer_start":3}]"#, None),
        (r#"{"text":[null],"answer_start":[null]}"#, None),
        (r#""b""#, Some(vec!["b"])),
        ("[1, \"b\"]", Some(vec!["1", "b"])),
        ("[]", Some(vec![])),
        ("true", None),
        ("null", None),
    ] {
        let text = format!(
            r#"{{"data":[{{"paragraphs":[{{"context":"a b","qas":[{{"question":"q","answers":{answers}}}]}}]}}]}}"#
        );
        let found = read(&text).unwrap().remove(0).answers;
        let texts = found.as_ref().map(|found| found.iter().map(|answer| &*answer.text).collect::<Vec<_>>());
        assert_eq!(texts, expected, "{answers}");
    }
    let asked = |text: &str| {
        let questions = read(text).unwrap();
        questions.iter().map(|it| format!("{}|{}", it.context, it.question)).collect::<Vec<_>>()
    };
    assert_eq!(asked(r#"[{"question":null,"context":null},{"question":7,"context":"a"}]"#), ["|", "a|7"]);
    let nested = r#"{"data":[{"paragraphs":[{"context":null,"qas":[{"question":null}]},{"context":"b","qas":null}]}]}"#;
    assert_eq!(asked(nested), ["|"]);
}
