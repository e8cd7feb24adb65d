//! Text offsets in Unicode code points, as used by Python and SQuAD.

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

    /// The byte offset of a code point; for the number of code points, the length of the text in bytes; `None` beyond
    /// that.
    pub fn to_byte(&self, code_point: usize) -> Option<usize> {
        self.bytes.get(code_point).copied()
    }

    /// The part of `text`, which must be the indexed text, between two code points, clamped to the end of the text.
    pub fn slice<'a>(&self, text: &'a str, start: usize, end: usize) -> &'a str {
        let byte = |code_point| self.to_byte(code_point).unwrap_or(text.len());
        text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}

/// Iterates over the parts of a text between pairs of code points, clamped to its end. Pairs in ascending order are
/// found in one pass, without an index of the text.
///
/// ```
/// use bert_model::text::slices;
///
/// assert_eq!(slices("naïve café", [(0, 5), (6, 10)]).collect::<Vec<_>>(), ["naïve", "café"]);
/// ```
pub fn slices(text: &str, places: impl IntoIterator<Item = (usize, usize)>) -> impl Iterator<Item = &str> {
    let (mut at, mut byte) = (0, 0);
    let advance = move |from: usize, count: usize| {
        let mut rest = text[from..].char_indices();
        rest.nth(count).map_or(text.len(), |(offset, _)| from + offset)
    };
    places.into_iter().map(move |(start, end)| {
        (at, byte) = if start < at { (start, advance(0, start)) } else { (start, advance(byte, start - at)) };
        &text[byte..advance(byte, end.saturating_sub(start))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_those_of_the_index() {
        let text = "naïve café 漢字";
        let code_points = CodePoints::new(text);
        let places = [(0, 5), (0, 1), (6, 10), (2, 2), (5, 3), (11, 13), (12, 99), (99, 100)];
        let expected = places.map(|(start, end)| code_points.slice(text, start, end));
        assert_eq!(slices(text, places).collect::<Vec<_>>(), expected);
    }
}
