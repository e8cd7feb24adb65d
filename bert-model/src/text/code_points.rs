//! Offsets in a text in Unicode code points, as Python and SQuAD count them.

/// Converts offsets in code points to the byte offsets of Rust strings.
///
/// ```
/// use bert_model::text::CodePoints;
///
/// let text = "naïve café";
/// assert_eq!(CodePoints::new(text).slice(text, 6, 10), "café");
/// ```
#[derive(Debug, Clone)]
pub struct CodePoints {
    /// Byte offset of each code point, followed by the length of the text.
    bytes: Vec<usize>,
}

impl CodePoints {
    /// Indexes the code points of a text.
    pub fn new(text: &str) -> Self {
        Self { bytes: text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect() }
    }

    /// The byte offset of a code point, or the length of the text for the number of its code
    /// points; `None` beyond.
    pub fn to_byte(&self, code_point: usize) -> Option<usize> {
        self.bytes.get(code_point).copied()
    }

    /// The part of `text`, which must be the indexed text, between two code points, clamped to its
    /// end.
    pub fn slice<'a>(&self, text: &'a str, start: usize, end: usize) -> &'a str {
        let byte = |code_point| self.to_byte(code_point).unwrap_or(text.len());
        text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}
