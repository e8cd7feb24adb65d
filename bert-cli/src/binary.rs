//! Detects binary files where text is expected, so that error messages do not suggest converting them to UTF-8.

/// The magic bytes of common binary formats, and what they are.
const BINARY_MARKS: [(&[u8], &str); 7] = [
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTANDARD),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x7fELF", "a program"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
];

const GZIP: &str = "gzip";
const ZSTANDARD: &str = "Zstandard";

/// Number of bytes to search for a zero byte, which text does not contain.
const ZERO_WITHIN: usize = 4096;

/// Describes the binary data in a line that is not UTF-8: the file starts with the magic bytes of a known format, or
/// there are zero bytes in the line or after it. `None` if it does not look like binary data. Compressed data may have a
/// name that says so, but standard input (`is_stdin`) has none.
pub(crate) fn binary_data(is_first: bool, is_stdin: bool, line: &[u8], next: &[u8]) -> Option<String> {
    if let Some((_, kind)) = BINARY_MARKS.iter().find(|(mark, _)| is_first && line.starts_with(mark)) {
        let advice = match (*kind, is_stdin) {
            (GZIP, true) => "; decompress it with `zcat`",
            (ZSTANDARD, true) => "; decompress it with `zstdcat`",
            (GZIP, false) => "; name it .gz",
            (ZSTANDARD, false) => "; name it .zst",
            _ => "",
        };
        return Some(format!("binary data ({kind}{advice})"));
    }
    let has_zero = |bytes: &[u8]| bytes.iter().take(ZERO_WITHIN).any(|byte| *byte == 0);
    (has_zero(line) || has_zero(next)).then(|| "binary data".into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::lines::LineReader;

    fn refusal(content: &'static [u8]) -> String {
        let mut reader = LineReader::new(Path::new("a.txt"), Box::new(content));
        loop {
            if let Err(error) = reader.next_line() {
                return error.to_string();
            }
        }
    }

    #[test]
    fn binary_files_are_named_as_such_and_latin1_is_not() {
        for (content, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "found binary data (a PNG image), expected a text file in UTF-8"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "binary data (a JPEG image)"),
            (b"\x1f\x8b\x08\x08", "binary data (gzip; name it .gz)"),
            (b"good\n\xfe\xed\n\0\0", "a.txt:2: found binary data, expected"),
            (b"good\n\xe9t\xe9\n", "`iconv -f latin1 -t utf-8`"),
        ] {
            let message = refusal(content);
            assert!(message.contains(expected), "{message}");
        }
    }
}
