//! Records which texts exceeded the maximum sequence length and were truncated.

use bert_cli::input::keep::KeptRow;
use bert_cli::warning::warn;
use bert_model::Result;
use bert_model::pipeline::{Processor, longest};

/// Number of rows to list in the warning.
const NAMED: usize = 5;

/// The truncated texts of a command.
#[derive(Debug, Default)]
pub struct Truncated {
    count: u64,
    /// The rows of the first few truncated texts.
    rows: Vec<u64>,
    /// The length in tokens to which texts were truncated.
    length: usize,
    /// The tokenizer's count of truncated texts at the last check.
    seen: u64,
}

impl Truncated {
    /// Finds truncated texts among requests that `processor` has just processed. `row` returns the row number of a
    /// request.
    ///
    /// # Errors
    /// Those of the processor.
    pub fn note<P: Processor>(
        &mut self,
        processor: &P,
        requests: &[P::Request<'_>],
        row: impl Fn(usize) -> u64,
    ) -> Result<()> {
        let count = || processor.tokenizer().truncated_count();
        if count() > self.seen {
            for (index, request) in requests.iter().enumerate() {
                let before = count();
                let inputs = processor.preprocess(request)?;
                if count() > before {
                    self.add(row(index), inputs.iter().map(|input| longest::<P>(input)).max().unwrap_or(0));
                }
            }
        }
        // The check itself has counted them again.
        self.seen = count();
        Ok(())
    }

    /// Records a truncated text.
    pub fn add(&mut self, row: u64, length: usize) {
        self.count += 1;
        if self.rows.len() < NAMED {
            self.rows.push(row);
        }
        self.length = self.length.max(length);
    }

    /// Warns on stderr if texts were truncated. `place` says what the recorded numbers refer to: "row", or "text" for
    /// arguments.
    pub fn warn(&self, place: &str) {
        if self.count > 0 {
            warn(self.message(place));
        }
    }

    fn message(&self, place: &str) -> String {
        let (texts, were) = if self.count == 1 { ("text", "was") } else { ("texts", "were") };
        let numbers: Vec<String> = self.rows.iter().map(u64::to_string).collect();
        let places = if self.rows.len() == 1 { place.to_string() } else { format!("{place}s") };
        let more = if self.count > self.rows.len() as u64 { ", …" } else { "" };
        let Self { count, length, .. } = self;
        format!("{count} {texts} longer than {length} tokens {were} truncated: {places} {}{more}", numbers.join(", "))
    }
}

/// Warns on stderr if texts of a training run were truncated to `length` tokens.
pub fn warn_of_training(texts: usize, length: usize) {
    if texts > 0 {
        warn(format_args!("{texts} text(s) longer than {length} tokens were truncated; --max-seq-len sets the limit"));
    }
}

/// Warns on stderr if texts of a comparison or a search were truncated; `texts` is their number.
pub fn warn_of_comparison(texts: u64) {
    if texts > 0 {
        warn(format_args!("{texts} text(s) longer than the model's limit were truncated"));
    }
}

/// The number of a text in a warning about truncation: its row, or its position among the arguments.
pub fn number(row: &KeptRow, index: usize) -> u64 {
    row.row.unwrap_or(index as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rows_are_named() {
        let mut truncated = Truncated::default();
        truncated.add(17, 128);
        assert_eq!(truncated.message("row"), "1 text longer than 128 tokens was truncated: row 17");
        (20..26).for_each(|row| truncated.add(row, 128));
        let expected = "7 texts longer than 128 tokens were truncated: rows 17, 20, 21, 22, 23, …";
        assert_eq!(truncated.message("row"), expected);
    }
}
