//! Writes answers to standard output, each with its row number and the columns kept from the input.

use std::io::{self, BufWriter, Stdout, Write};

use bert_model::{Error, Result};
use serde_json::Value;

use crate::input::keep::KeptRow;
use crate::program::STDOUT;

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
    pub fn write(&mut self, row: &KeptRow, answer: Value, plain: impl FnOnce(&Value) -> String) -> Result<()> {
        let line = match self.json {
            true => row.with(answer).to_string(),
            false => row.plain(&plain(&answer)),
        };
        writeln!(self.output, "{line}").map_err(Error::io(STDOUT, "write"))
    }

    /// Flushes the buffer, at the end of a batch.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(Error::io(STDOUT, "write"))
    }
}
