//! Writes answers to standard output, each with its row and the columns that are carried along.

use std::io::{self, BufWriter, Stdout, Write};

use bert_model::{Error, Result};
use serde_json::Value;

use crate::input::keep::KeptRow;
use crate::program::STDOUT;

/// Where answers go. What was written is seen after [`Answers::flush`].
#[derive(Debug)]
pub struct Answers {
    output: BufWriter<Stdout>,
    json: bool,
}

impl Answers {
    /// To standard output, as JSON lines or as plain ones.
    pub fn new(json: bool) -> Self {
        Self { output: BufWriter::new(io::stdout()), json }
    }

    /// Writes one answer; `plain` makes a short line of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, row: &KeptRow, answer: Value, plain: impl FnOnce(&Value) -> String) -> Result<()> {
        let line = match self.json {
            true => row.with(answer).to_string(),
            false => row.plain(&plain(&answer)),
        };
        writeln!(self.output, "{line}").map_err(Error::io(STDOUT, "write"))
    }

    /// Hands over what was written, at the end of a batch.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(Error::io(STDOUT, "write"))
    }
}
