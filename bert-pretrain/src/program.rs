//! What both programs do at their edges: results on standard output, errors as one line, exit codes.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use bert_model::device::{self, NamedDevice};
use bert_model::{Error, Result};

use crate::args::Common;

/// What errors call standard output.
pub const STDOUT: &str = "standard output";

/// Turns what a command came to into the exit code; an error becomes one line on stderr.
pub fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        // Whoever read our output has had enough: `bert-finetune predict … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // As clap ends for what it finds wrong itself.
            let is_usage = matches!(error.downcast_ref(), Some(Error::Usage(_)));
            if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Io { cause, .. }) if cause.kind() == ErrorKind::BrokenPipe)
}

/// Writes a line of a result to standard output.
///
/// # Errors
/// If nobody takes it (a closed pipe, a full disk); `println!` would panic.
pub fn print_line(line: impl Display) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(Error::io(STDOUT, "write"))
}

/// The device that a command was given, named on stderr.
///
/// # Errors
/// If there is no such device.
pub fn select_device(common: &Common) -> Result<NamedDevice> {
    let device = device::select(&common.device)?;
    if !common.quiet {
        eprintln!("device: {}", device.name);
    }
    Ok(device)
}
