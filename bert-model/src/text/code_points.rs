//! Places in a text, counted in Unicode code points as Python and SQuAD count them.

/// Translates code points to byte offsets, which Rust's strings are indexed by.
///
/// ```
/// use bert_model::text::CodePoints;
///
/// let text = "naïve café";
/// assert_eq!(CodePoints::new(text).slice(text, 6, 10), "café");
/// ```
#[derive(Debug, Clone)]
pub struct CodePoints {
    /// The byte offset of every code point, then the length of the text.
    bytes: Vec<usize>,
}

impl CodePoints {
    /// Indexes a text.
    pub fn new(text: &str) -> Self {
        Self { bytes: text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect() }
    }

    /// The byte offset of a code point; the length of the text for the number of its code points; `None` beyond.
    pub fn to_byte(&self, code_point: usize) -> Option<usize> {
        self.bytes.get(code_point).copied()
    }

    /// The part of `text`, which must be the text that was indexed, between two code points; both are clamped to its
    /// end.
    pub fn slice<'a>(&self, text: &'a str, start: usize, end: usize) -> &'a str {
        let byte = |code_point| self.to_byte(code_point).unwrap_or(text.len());
        text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}
