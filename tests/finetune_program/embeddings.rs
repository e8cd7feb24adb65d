//! `embed`: vectors of texts and of their tokens.

use std::fs;

use serde_json::{Value, json as value};

use crate::program::{objects, succeed};
use crate::workshop;

fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn embeddings_in_every_format() {
    let directory = workshop();
    let at = directory.path();
    let embed =
        |more: &str| succeed(&format!("embed --model model 'a good film' 'a book' --device flex --quiet {more}"), at);
    let lines = objects(&embed(""));
    assert_eq!((lines.len(), &lines[1]["text"]), (2, &Value::from("a book")));
    let expected = vector(&lines[1]["embedding"]);
    assert_eq!(expected.len(), 32);

    embed("-o out.npy");
    let bytes = fs::read(at.join("out.npy")).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && bytes.len() == 128 + 2 * 32 * 4);
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'shape': (2, 32)"));
    let found: Vec<f32> = bytes[128 + 32 * 4..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));

    embed("-o out.safetensors --layers -2..-1 --normalize");
    let bytes = fs::read(at.join("out.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("embeddings").unwrap().shape(), [2, 64]);

    let tokens = &objects(&embed("--pooling none"))[0];
    assert_eq!(tokens["tokens"], value!(["[CLS]", "a", "good", "film", "[SEP]"]));
    assert_eq!(tokens["embedding"].as_array().unwrap().len(), 5);
    for pooling in ["cls", "max", "pooler"] {
        embed(&format!("--pooling {pooling}"));
    }
}

#[test]
fn layers_are_joined_added_or_averaged() {
    let directory = workshop();
    let embed = |more: &str| {
        let line = format!("embed --model model 'a good film' --device flex --quiet {more}");
        vector(&objects(&succeed(&line, directory.path()))[0]["embedding"])
    };
    let (first, last) = (embed("--layers 0"), embed("--layers -1"));
    let combined = |how: &str| embed(&format!("--layers 0,-1 --combine {how}"));
    assert_eq!(combined("concat"), [&first[..], &last].concat());
    let close = |found: Vec<f32>, share: f32| {
        let expected = first.iter().zip(&last).map(|(a, b)| (a + b) * share);
        found.len() == first.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
    };
    assert!(close(combined("sum"), 1.0) && close(combined("mean"), 0.5));
}

/// Regression test: an empty file produced a matrix without columns, and a missing directory an error at the end.
#[test]
fn no_texts_make_a_matrix_of_the_usual_width() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("empty.txt"), "").unwrap();
    for (options, width) in [("", 32), ("--layers -2..-1", 64)] {
        let line = format!("embed --model model --input empty.txt {options} --quiet -o new/{width}.npy");
        assert_eq!(succeed(&line, at), "");
        let bytes = fs::read(at.join(format!("new/{width}.npy"))).unwrap();
        let header = String::from_utf8_lossy(&bytes);
        assert!(bytes.len() == 128 && header.contains(&format!("'shape': (0, {width})")), "{header}");
        succeed(&line.replace("npy", "safetensors"), at);
        let bytes = fs::read(at.join(format!("new/{width}.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("embeddings").unwrap().shape(), [0, width]);
    }
}

#[test]
fn a_file_of_vectors_is_told_of_in_json() {
    let directory = workshop();
    let at = directory.path();
    let told = objects(&succeed("embed --model model --input films.tsv -o x.npy --json --quiet", at));
    assert_eq!(told, [value!({"output": "x.npy", "texts": 64})]);
    assert_eq!(succeed("embed --model model --input films.tsv -o x.npy --quiet", at), "");
}
