use serde_json::json;

use super::*;

/// A file from `tests/golden/parquet`, written by pyarrow.
fn golden(name: &str) -> Input {
    Input::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet").join(name))
}

fn read(name: &str, columns: &[&str]) -> Vec<Vec<Value>> {
    let columns: Vec<String> = columns.iter().map(|column| column.to_string()).collect();
    let rows = Parquet::open(&golden(name)).unwrap().rows(&columns).unwrap();
    rows.enumerate()
        .map(|(index, row)| {
            let (number, cells) = row.unwrap();
            assert_eq!(number, index as u64 + 1);
            cells
        })
        .collect()
}

#[test]
fn the_same_rows_in_every_compression_and_encoding() {
    let columns = ["text", "label", "score", "is_long", "pair"];
    let expected = read("snappy.parquet", &columns);
    assert_eq!(expected.len(), 40);
    assert_eq!(expected[0], [json!("row 0: Zoë ate 𝄞 pies"), json!(0), json!(0.0), json!(false), json!(null)]);
    assert_eq!(expected[3], [json!("row 3: Zoë ate 𝄞 pies"), json!(0), json!(0.3), json!(true), json!("pair 3")]);
    for name in ["zstd.parquet", "gzip.parquet", "plain.parquet", "delta.parquet", "pages-v2.parquet"] {
        assert_eq!(read(name, &columns), expected, "{name}");
    }
}

#[test]
fn columns_in_the_order_in_which_they_are_asked_for() {
    let file = Parquet::open(&golden("snappy.parquet")).unwrap();
    assert_eq!(file.columns(), ["text", "pair", "label", "score", "is_long"]);
    assert_eq!(
        read("snappy.parquet", &["label", "text", "label"])[1],
        [json!(1), json!("row 1: Zoë ate 𝄞 pies"), json!(1)]
    );
    let error = file.rows(&["body".to_string()]).err().unwrap().to_string();
    assert!(error.ends_with("found no column `body`, expected one of `text`, `pair`, `label`, `score`, `is_long`"));
}

#[test]
fn lists_structures_and_the_names_of_tags() {
    let rows = read("tags.parquet", &["tokens", "ner_tags"]);
    assert_eq!(rows[0], [json!(["Anna", "lives", "in", "Bonn"]), json!(["B-PER", "O", "O", "B-LOC"])]);
    assert_eq!(rows[1], [json!([]), json!([])]);
    let lines = Parquet::open(&golden("tags.parquet")).unwrap().lines().unwrap();
    let expected = r#"{"tokens":["Bonn","sleeps"],"ner_tags":["B-LOC","O"]}"#;
    assert_eq!(lines.last().unwrap().unwrap(), Line { number: 3, text: expected.into() });
    let rows = read("squad.parquet", &["id", "answers"]);
    assert_eq!(rows[0], [json!("1"), json!({"text": ["pies"], "answer_start": [10]})]);
    assert_eq!(rows[1], [json!("2"), json!({"text": [], "answer_start": []})]);
}

#[test]
fn what_is_no_parquet_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content, expected) in [
        ("a.parquet", &b"text\nnot parquet at all, but long enough to be looked at\n"[..], "expected a parquet file"),
        ("b.parquet", b"", "expected a parquet file"),
        ("c.parquet.gz", b"", "found a compressed .parquet file, expected an uncompressed file"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = Parquet::open(&Input::new(&path)).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    let error = Parquet::open(&Input::new(directory.path().join("none.parquet"))).err().unwrap().to_string();
    assert!(error.ends_with("cannot open: No such file or directory"), "{error}");
}
