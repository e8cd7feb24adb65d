//! Tests of document boundaries in text and `.jsonl`, hard-wrapped or not.

use std::path::PathBuf;

use super::*;

/// The documents of a file with this name and content, up to the first error.
fn read(name: &str, content: &str) -> Result<Vec<Document>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    Documents::new(vec![file(path)]).collect()
}

fn file(path: PathBuf) -> CorpusFile {
    CorpusFile { path, bytes: 0, is_wrapped: false }
}

/// The documents of a hard-wrapped file with this name and content.
fn read_wrapped(name: &str, content: &str) -> Vec<Document> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    Documents::new(vec![CorpusFile { is_wrapped: true, ..file(path) }]).collect::<Result<_>>().unwrap()
}

fn document(line: u64, lines: &[&str]) -> Document {
    Document { lines: lines.iter().map(|line| line.to_string()).collect(), file: 0, line }
}

fn refusal(content: &str) -> String {
    read("a.jsonl", content).unwrap_err().to_string()
}

#[test]
fn empty_lines_end_a_document_of_text() {
    let documents = read("a.txt", "\n \nOne.\r\n Two.\n\t\n\nThree.").unwrap();
    assert_eq!(documents, [document(3, &["One.", " Two."]), document(7, &["Three."])]);
}

#[test]
fn a_file_of_another_name_is_text() {
    assert_eq!(read("notes.md", "{}\n").unwrap(), [document(1, &["{}"])]);
}

#[test]
fn the_end_of_a_file_ends_a_document() {
    let directory = tempfile::tempdir().unwrap();
    let files = ["a.txt", "b.txt"].map(|name| file(directory.path().join(name)));
    files.iter().for_each(|file| std::fs::write(&file.path, "One.\nTwo.").unwrap());
    let documents: Vec<Document> = Documents::new(files.into()).collect::<Result<_>>().unwrap();
    assert_eq!(documents.iter().map(|document| document.file).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_line_of_jsonl_is_a_document() {
    let content = "{\"id\": 1, \"text\": \"One.\\r\\n \\n\\nTwo.\\n\"}\n\n{\"text\": \"\"}\n{\"text\": \"Three.\"}";
    assert_eq!(read("a.jsonl", content).unwrap(), [document(1, &["One.", "Two."]), document(4, &["Three."])]);
}

#[test]
fn what_is_no_record_is_named_with_its_line() {
    let good = "{\"text\": \"fine\"}\n";
    let expected = "expected a JSON object with a string under the key `text`";
    for (bad, found) in [
        ("{\"text\": \"cut", "a.jsonl:2: found malformed JSON (EOF while parsing a string at column 13)"),
        ("{\"body\": \"x\"}", "a.jsonl:2: found a JSON object without the key `text`"),
        ("{\"text\": 7}", "a.jsonl:2: found a number under the key `text`"),
        ("[\"text\"]", "a.jsonl:2: found an array"),
    ] {
        let message = refusal(&format!("{good}{bad}\n{good}"));
        assert!(message.contains(found) && message.contains(expected), "{message}");
    }
}

#[test]
fn the_first_error_is_the_last_item() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    std::fs::write(&path, "{\"text\": \"fine\"}\nbad\n{\"text\": \"fine\"}\n").unwrap();
    let items: Vec<_> = Documents::new(vec![file(path)]).collect();
    assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_document_too_large_for_memory_is_cut_between_lines() {
    let line = "x".repeat(999_999);
    let text = format!("{line}\n").repeat(10);
    let documents = read("a.txt", &text).unwrap();
    assert_eq!(documents.iter().map(|document| document.lines.len()).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(documents[1].line, 6);
    let records = read("a.jsonl", &serde_json::json!({ "text": text }).to_string()).unwrap();
    assert_eq!(records.iter().map(|document| document.lines.len()).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(records[1].line, 1);
}

#[test]
fn many_tiny_lines_are_cut_by_what_they_take_in_memory() {
    let documents = read("a.txt", &"a\n".repeat(1 << 20)).unwrap();
    assert!(documents.len() > 5);
    assert_eq!(documents.iter().map(|document| document.lines.len()).sum::<usize>(), 1 << 20);
}

#[test]
fn wrapped_lines_are_joined_to_paragraphs_and_a_file_is_a_document() {
    let text = "\nCHAPTER I\n\n\n  It was a well-\nknown fact. He\r\nleft.\n \nShe stayed.";
    let paragraphs = ["CHAPTER I", "It was a well-known fact. He left.", "She stayed."];
    assert_eq!(read_wrapped("book.txt", text), [document(2, &paragraphs)]);
    let json = |text: &str| serde_json::json!({ "text": text }).to_string();
    let records = format!("{}\n\n{}\n", json(text), json("One\ntwo."));
    assert_eq!(read_wrapped("books.jsonl", &records), [document(1, &paragraphs), document(3, &["One two."])]);
    assert!(read_wrapped("empty.txt", "\n\n").is_empty());
}

#[test]
fn a_wrapped_book_too_large_for_memory_is_cut_between_paragraphs() {
    let paragraph = format!("{}\n", "x".repeat(999)).repeat(1000);
    let documents = read_wrapped("book.txt", &format!("{paragraph}\n").repeat(10));
    assert_eq!(documents.iter().map(|document| document.lines.len()).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(documents[1].line, 5006);
}

#[test]
fn a_row_of_parquet_is_a_document() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet/documents.parquet");
    let documents: Result<Vec<Document>> = Documents::new(vec![file(path)]).collect();
    assert_eq!(documents.unwrap(), [document(1, &["One.", "Two.", "Three."]), document(3, &["Four."])]);
}
