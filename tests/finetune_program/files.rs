//! Data files of every format and size, and full disks.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::program::{command, fail, failure, feed, json, objects, run_with_file_limit, succeed, success};
#[cfg(target_os = "linux")]
use crate::program::{peak_until_end, spawn};
use crate::{on_file, train, workshop, workshop_of};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// For every kind of file that a task reads, a compressed file gives the same run and the same answers as a plain one.
#[test]
fn compressed_files_are_what_they_hold() {
    let directory = workshop();
    let at = directory.path();
    let (labels, texts) = (["good", "bad"], ["a good film", "a poor book"]);
    let row = |before: &str, between: &str, after: &str| -> String {
        (0..8).map(|i| format!("{before}{}{between}{}{after}\n", texts[i % 2], labels[i % 2])).collect()
    };
    let squad = serde_json::json!({"data": [{"paragraphs": [{"context": "a bad film .", "qas": [
        {"id": "1", "question": "film", "answers": [{"text": "bad", "answer_start": 2}]},
        {"id": "2", "question": "book", "answers": [{"text": "film", "answer_start": 6}]}]}]}]});
    for (file, content, options) in [
        ("films.csv", format!("text,label\n{}", row("", ",", "")), ""),
        ("films.tsv", format!("text\tlabel\n{}", row("", "\t", "")), ""),
        ("films.jsonl", row("{\"text\": \"", "\", \"label\": \"", "\"}"), ""),
        ("tags.txt", "good B-X\nfilm O\n\nbad O\nfilm B-X\n\n".repeat(4), "--task tagging"),
        ("tags.conllu", "1\tgood\t_\tADJ\n2\tfilm\t_\tNOUN\n\n".repeat(4), "--task tagging"),
        ("squad.json", squad.to_string(), "--task question-answering"),
    ] {
        fs::write(at.join(file), &content).unwrap();
        let zipped = format!("{file}.gz");
        fs::write(at.join(&zipped), gzip(&content)).unwrap();
        let train = |file: &str, output: &str| {
            let summary = json(&on_file(file, output, &format!("{options} --epochs 1 --overwrite")), at);
            (summary["eval"].clone(), fs::read(at.join(output).join("model.safetensors")).unwrap())
        };
        assert!(train(file, "plain") == train(&zipped, "zipped"), "{file}");
        let evaluate = |file: &str| json(&format!("evaluate --model plain --data {file} --json --quiet"), at);
        assert_eq!(evaluate(file), evaluate(&zipped), "{file}");
        let predict = |file: &str| succeed(&format!("predict --model plain --input {file} --json --quiet"), at);
        assert_eq!(predict(file), predict(&zipped), "{file}");
    }
    let embed = |file: &str| succeed(&format!("embed --model model --input {file} --quiet"), at);
    assert_eq!(embed("films.csv"), embed("films.csv.gz"));
}

/// Texts from standard input are lines, unless another format is given.
#[test]
fn the_standard_input_has_the_format_that_is_named() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    let expected = success(&feed("predict --model run - --json --quiet", at, "a good film\na bad film\n"));
    assert_eq!(objects(&expected).len(), 2);
    for (format, input) in [
        ("txt", "a good film\na bad film\n"),
        ("csv", "id,text\n1,a good film\n2,a bad film\n"),
        ("tsv", "id\ttext\n1\ta good film\n2\ta bad film\n"),
        ("jsonl", "{\"text\": \"a good film\"}\n{\"text\": \"a bad film\"}\n"),
    ] {
        let line = format!("predict --model run - --input-format {format} --json --quiet");
        assert_eq!(success(&feed(&line, at, input)), expected, "{format}");
    }
}

#[test]
fn any_bytes_may_come_and_long_texts_are_cut() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    let predict = |file: &str| format!("predict --model run --input {file} --json --quiet");
    let labels = |file: &str| -> Vec<Value> {
        objects(&succeed(&predict(file), at)).into_iter().map(|answer| answer["label"].clone()).collect()
    };

    // A text of 100,000 words is truncated as in training; this does not affect the answers to its neighbors.
    fs::write(at.join("long.txt"), format!("a good film\n{}\na bad film\n", "a good film ".repeat(33_334))).unwrap();
    assert_eq!(labels("long.txt"), ["good", "good", "bad"]);

    // A byte order mark, Windows line ends, NULs, control characters, and no newline at the end.
    fs::write(at.join("odd.txt"), b"\xef\xbb\xbfa good film\r\n\0\x01\x02\r\n\r\na bad film").unwrap();
    let labels = labels("odd.txt");
    assert_eq!((labels.len(), &labels[0], &labels[3]), (4, &Value::from("good"), &Value::from("bad")));

    fs::write(at.join("empty.txt"), "").unwrap();
    assert_eq!(succeed(&predict("empty.txt"), at), "", "no line, no answer");
    fs::write(at.join("latin.txt"), b"a good film\ncaf\xe9\n").unwrap();
    assert!(fail(&predict("latin.txt"), at, 1).contains("latin.txt:2: found byte 0xe9"));
    fs::create_dir(at.join("folder.txt")).unwrap();
    assert!(fail(&predict("folder.txt"), at, 1).contains("folder.txt: cannot read: Is a directory"));
    // A line of one gibibyte is not read to its end.
    fs::File::create(at.join("endless.txt")).unwrap().set_len(1 << 30).unwrap();
    assert!(fail(&predict("endless.txt"), at, 1).contains("endless.txt:1: found a line of over 16 MiB"));
    #[cfg(target_os = "linux")]
    {
        let peak = peak_until_end(&mut spawn(&predict("endless.txt"), at));
        assert!((1..500_000).contains(&peak), "{peak} KiB");
    }
    fs::write(at.join("words.csv"), "text,label\n\"a good film,good\n").unwrap();
    let message = fail("evaluate --model run --data words.csv --quiet", at, 1);
    assert!(message.contains("words.csv:2: found an unclosed quotation mark"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_file() {
    let directory = workshop();
    let at = directory.path();
    fs::write(at.join("texts.txt"), "a good film\n".repeat(2000)).unwrap();
    for output in ["out.jsonl", "out.npy", "out.safetensors"] {
        fs::write(at.join(output), "old").unwrap();
        let line = format!("embed --model model --input texts.txt --quiet --device flex -o {output}");
        let message = failure(&run_with_file_limit(100, &line, at), 1);
        assert!(message.contains(output) && message.contains("cannot write: File too large"), "{message}");
        assert_eq!(fs::read_to_string(at.join(output)).unwrap(), "old", "{output}");
        assert!(!at.join(format!("{output}.partial")).exists(), "{output}");
    }
    let message = failure(&run_with_file_limit(20, &train("run", "--max-seq-len 12"), at), 1);
    assert!(message.contains("cannot write: File too large"), "{message}");
    succeed(&train("run", "--max-seq-len 12 --overwrite"), at);
    let page = fs::read(at.join("run/report.html")).unwrap();
    let message = failure(&run_with_file_limit(1, "report --run run", at), 1);
    assert!(message.contains("report.html: cannot write: File too large"), "{message}");
    assert!(fs::read(at.join("run/report.html")).unwrap() == page, "half a report");
}

/// A text of any length is read in windows, and its memory grows by a few times its size. Both lines are long enough
/// for full batches, whose memory does not depend on the text.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn a_line_of_megabytes_takes_a_few_times_its_size() {
    const LINES: [usize; 2] = [20_000, 80_000];
    let directory = workshop_of(128);
    let at = directory.path();
    let sentence = "somebody saw a good film about a rather bad book . ";
    let tagged = |word: &str| format!("{word} {}\n", if ["good", "book"].contains(&word) { "B-X" } else { "O" });
    fs::write(at.join("tags.txt"), (sentence.split_whitespace().map(tagged).collect::<String>() + "\n").repeat(32))
        .unwrap();
    let squad = serde_json::json!({"data": [{"paragraphs": [{"context": "a bad film .", "qas": [
        {"id": "1", "question": "film", "answers": [{"text": "bad", "answer_start": 2}]}]}]}]});
    fs::write(at.join("squad.json"), squad.to_string()).unwrap();
    for count in LINES {
        fs::write(at.join(format!("{count}.txt")), sentence.repeat(count)).unwrap();
        let row = serde_json::json!({"question": "film", "context": sentence.repeat(count)});
        fs::write(at.join(format!("{count}.jsonl")), row.to_string()).unwrap();
    }
    succeed(&on_file("tags.txt", "tags", "--task tagging --epochs 3"), at);
    succeed(&on_file("squad.json", "answers", "--task question-answering --epochs 1"), at);
    for (model, kind) in [("tags", "txt"), ("answers", "jsonl")] {
        let [short, long] = LINES.map(|count| {
            let line = format!("predict --model {model} --input {count}.{kind} --json --quiet --device flex");
            // The least of three: how much freed memory the threads keep depends on their timing.
            (0..3).map(|_| peak_until_end(&mut spawn(&line, at)) * 1024).min().unwrap()
        });
        let characters = (sentence.len() * (LINES[1] - LINES[0])) as u64;
        let each = long.saturating_sub(short) as f64 / characters as f64;
        println!("{model}: {each:.1} bytes per character of {characters}, beyond {} MB", short / 1_000_000);
        assert!(each <= 30.0, "{model}: {each:.1} bytes per character");
    }
}

/// The peak memory use of a prediction over this many texts, in KiB.
#[cfg(target_os = "linux")]
fn peak_of_predicting(texts: usize, at: &Path) -> u64 {
    let mut file = std::io::BufWriter::new(fs::File::create(at.join("many.txt")).unwrap());
    for index in 0..texts {
        writeln!(file, "{} film {index}", ["a good", "a bad", "some other and rather long"][index % 3]).unwrap();
    }
    drop(file);
    let answers = fs::File::create(at.join("answers.jsonl")).unwrap();
    let mut child = command("predict --model run --input many.txt --json --quiet", at).stdout(answers).spawn().unwrap();
    let peak = peak_until_end(&mut child);
    assert!(child.wait().unwrap().success());
    let answers = fs::read_to_string(at.join("answers.jsonl")).unwrap();
    assert_eq!(answers.lines().count(), texts);
    peak
}

/// Predictions are made and written as texts are read: fifteen times as many texts take no more memory, once the
/// allocator has seen several windows of them.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "slow: cargo test --workspace -- --include-ignored"]
fn predictions_over_many_texts_take_no_more_memory() {
    let directory = workshop();
    let at = directory.path();
    succeed(&train("run", "--max-seq-len 12"), at);
    let [few, many] = [20_000, 300_000].map(|texts| peak_of_predicting(texts, at));
    println!("KiB at most: {few} for 20,000 texts, {many} for 300,000");
    assert!(many as f64 <= few as f64 * 1.5, "KiB at most: {few} for 20,000 texts, {many} for 300,000");
}
