//! Writes answers to standard output, each with its row number and the columns kept from the input.

use std::io::{self, BufWriter, Stdout, Write};

use bert_model::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use crate::input::keep::KeptRow;
use crate::program::STDOUT;

/// Converts an answer to a JSON value.
///
/// # Errors
/// If it cannot be expressed in JSON.
pub fn to_value(answer: &impl Serialize) -> Result<Value> {
    serde_json::to_value(answer).map_err(|error| Error::Setting(format!("an answer that is no JSON: {error}")))
}

/// A writer of answers. Output is buffered and becomes visible after [`Answers::flush`].
#[derive(Debug)]
pub struct Answers {
    output: BufWriter<Stdout>,
    json: bool,
}

impl Answers {
    /// Writes to standard output, as JSON lines if `json`, else as plain lines.
    pub fn new(json: bool) -> Self {
        Self { output: BufWriter::new(io::stdout()), json }
    }

    /// Writes one answer; `plain` formats it as a short line.
    ///
    /// # Errors
    /// If the answer cannot be written.
    pub fn write(
        &mut self,
        row: &KeptRow,
        answer: &impl Serialize,
        plain: impl FnOnce() -> Result<String>,
    ) -> Result<()> {
        let written = match self.json {
            true => row.write_line(answer, &mut self.output),
            false => writeln!(self.output, "{}", row.plain(&plain()?)),
        };
        written.map_err(Error::io(STDOUT, "write"))
    }

    /// Flushes the buffer, at the end of a batch.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(Error::io(STDOUT, "write"))
    }
}
