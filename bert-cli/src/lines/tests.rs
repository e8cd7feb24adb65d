//! Tests of line splitting, and of input that is rejected.

use super::*;
use flate2::write::GzEncoder;
use std::io::Write;

/// The lines of a file with this name and content, or the message of the first error.
fn lines(name: &str, content: &[u8]) -> std::result::Result<Vec<String>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    let mut reader = LineReader::open(&path).unwrap();
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line().map_err(|error| error.to_string())? {
        lines.push(line.to_string());
    }
    Ok(lines)
}

fn refusal(name: &str, content: &[u8]) -> String {
    lines(name, content).unwrap_err()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Incompressible lines, so that truncation removes data rather than the trailer.
fn numbers() -> String {
    (0..50_000u32).map(|number| format!("{}\n", number.wrapping_mul(2_654_435_761))).collect()
}

#[test]
fn marks_and_carriage_returns_are_dropped_and_nothing_else() {
    assert_eq!(lines("a.txt", b"\xef\xbb\xbfone\r\n two \0\n\r\nlast").unwrap(), ["one", " two \0", "", "last"]);
    assert_eq!(lines("a.txt", b"").unwrap(), [""; 0]);
}

#[test]
fn the_format_is_told_by_the_first_line_which_is_not_lost() {
    for (text, format) in [
        ("{\"text\": 1}\n", Some(Format::JsonLines)),
        ("ham\tgood\nspam\tbad", Some(Format::Tsv)),
        ("LOC:city which city\n", None),
        ("", None),
    ] {
        let mut lines = Lines::of(text);
        assert_eq!((lines.sniff(), lines.sniff()), (format, format), "{text}");
        assert_eq!(lines.map(|line| line.unwrap().text).collect::<Vec<_>>(), text.lines().collect::<Vec<_>>());
    }
}

#[test]
fn carriage_returns_end_lines_where_nothing_else_does() {
    assert_eq!(lines("a.txt", b"\xef\xbb\xbfone\rtwo\r\rfour\r").unwrap(), ["one", "two", "", "four"]);
    assert_eq!(lines("a.txt", b"one\rtwo").unwrap(), ["one", "two"]);
    assert_eq!(lines("a.txt", b"one\rtwo\nthree\r").unwrap(), ["one\rtwo", "three"]);
    assert_eq!(lines("a.txt", b"one\r").unwrap(), ["one"]);
    // Some editor has added a newline at the end.
    assert_eq!(lines("a.txt", b"one\rtwo\r\rfour\n").unwrap(), ["one", "two", "", "four"]);
    assert_eq!(lines("a.txt", b"one\rtwo\n").unwrap(), ["one", "two"]);
    assert_eq!(lines("a.txt", b"one\rtwo\rthree\r\nfour\nfive\r").unwrap(), ["one", "two", "three", "four", "five"]);
    let long = b"0123456789abcde\r".repeat((MAX_LINE_BYTES >> 4) + 1);
    assert_eq!(lines("a.txt", &long).unwrap().len(), (MAX_LINE_BYTES >> 4) + 1);
}

#[test]
fn compressed_files_read_as_plain_ones() {
    let text = numbers();
    let expected: Vec<&str> = text.lines().collect();
    assert_eq!(lines("a.txt.gz", &gzip(text.as_bytes())).unwrap(), expected);
    assert_eq!(lines("a.txt.zst", &zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap(), expected);
}

#[test]
fn a_whole_file_is_read_decompressed_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json.gz");
    let text = numbers();
    std::fs::write(&path, gzip(text.as_bytes())).unwrap();
    assert_eq!(read_file(&path).unwrap(), text.as_bytes());
    std::fs::write(&path, &gzip(text.as_bytes())[..1000]).unwrap();
    let message = read_file(&path).unwrap_err().to_string();
    assert!(message.contains("a.json.gz: found an unexpected end of file within compressed data"), "{message}");
}

#[test]
fn joined_gzip_files_are_read_to_the_end() {
    assert_eq!(lines("a.GZ", &[gzip(b"one\n"), gzip(b"two\n")].concat()).unwrap(), ["one", "two"]);
}

#[test]
fn a_compressed_file_cut_short_names_the_line_reached() {
    let text = numbers();
    for (name, whole) in [("a.gz", gzip(text.as_bytes())), ("a.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())] {
        let message = refusal(name, &whole[..whole.len() / 2]);
        assert!(message.contains("an unexpected end of file within compressed data"), "{message}");
        let line: u64 = message.split(':').nth(1).unwrap().parse().unwrap();
        assert!((10_000..40_000).contains(&line), "{message}");
    }
}

#[test]
fn what_is_not_compressed_is_not_taken_for_it() {
    assert!(refusal("a.gz", b"plain text\n").contains("a.gz:1: found data that cannot be decompressed"));
    assert!(refusal("a.zst", b"plain text\n").contains("a.zst:1: found data that cannot be decompressed"));
}

#[test]
fn a_byte_that_is_not_utf_8_is_named_with_its_place() {
    let message = refusal("a.txt", b"good\ncaf\xe9 noir\n");
    assert!(message.contains("a.txt:2: found byte 0xe9 at offset 3 of the line"), "{message}");
    assert!(message.contains("iconv -f latin1"), "{message}");
    assert!(refusal("a.txt", b"\xef\xbb\xbfa\xff\n").contains("byte 0xff at offset 4"));
}

/// Reported bug: pointers were trained on, three lines of text each.
#[test]
fn a_git_lfs_pointer_is_no_data() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for name in ["a.txt", "a.csv", "a.jsonl", "a.conll", "a.gz", "a.jsonl.zst"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, pointer).unwrap();
        let opened = LineReader::open(&path).and_then(|mut reader| reader.next_line().map(|_| ()));
        for message in [opened.unwrap_err().to_string(), read_file(&path).unwrap_err().to_string()] {
            assert!(message.contains("found a Git LFS pointer") && message.contains("git lfs pull"), "{message}");
        }
    }
}

#[test]
fn utf_16_is_named() {
    assert!(refusal("a.txt", b"\xff\xfea\0\n\0").contains("a.txt:1: found a UTF-16 byte order mark"));
    assert!(refusal("a.txt", b"\xfe\xff\0a\0\n").contains("iconv -f utf-16"));
}

#[test]
fn a_line_may_have_16_mib_and_no_more() {
    let mut content = vec![b'a'; MAX_LINE_BYTES];
    content.extend_from_slice(b"\r\nb");
    assert_eq!(lines("a.txt", &content).unwrap()[1], "b");
    content.insert(0, b'a');
    assert!(refusal("a.txt", &content).contains("a.txt:1: found a line of over 16 MiB, expected lines of at most"));
}

#[test]
fn a_line_without_end_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeros.txt");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let mut reader = LineReader::open(&path).unwrap();
    assert!(reader.next_line().unwrap_err().to_string().contains("over 16 MiB"));
    assert!(reader.buffer.capacity() <= 4 * MAX_LINE_BYTES);
}
