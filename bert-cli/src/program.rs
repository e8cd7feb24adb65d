//! The edge of every program: results on standard output, errors as one line on stderr, exit codes.

use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Once;

use bert_model::device::{self, NamedDevice};
use bert_model::{Error, Result};

/// The name of standard output in error messages.
pub const STDOUT: &str = "standard output";

/// Turns the result of a command into an exit code, and prints an error as one line on stderr.
pub fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        // Broken pipe: the reader has closed standard output (`… | head`). Exit quietly.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error.downcast_ref(), Some(Error::OtherRank { .. })) {
                // In one piece: several processes may share stderr.
                let _ = io::stderr().write_all(format!("error: {}\n", one_line(&error)).as_bytes());
            }
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The exit code of a program that ends with this error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref().map_or(1, Error::exit_code)
}

/// The error and its causes, outermost first. The message of [`Error::Io`] already includes its
/// source.
pub fn one_line(error: &anyhow::Error) -> String {
    let is_io = |error: &(dyn std::error::Error + 'static)| matches!(error.downcast_ref(), Some(Error::Io { .. }));
    let told = error.chain().position(is_io).map_or(usize::MAX, |io| io + 1);
    error.chain().take(told).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe)
}

/// Writes one line of a result to standard output.
///
/// # Errors
/// If it cannot be written (closed pipe, full disk), where `println!` would panic.
pub fn print_line(line: impl Display) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(Error::io(STDOUT, "write"))
}

/// Tells on stderr how to continue a run that a signal has stopped.
pub fn print_how_to_resume(run_directory: &Path) {
    eprintln!("continue with --resume -o {}", run_directory.display());
}

/// Creates the directory of an output file, so that a command does not fail after its work is done.
///
/// # Errors
/// If it cannot be created.
pub fn create_parent(file: &Path) -> Result<()> {
    match file.parent() {
        Some(directory) => fs::create_dir_all(directory).map_err(Error::io(directory, "create")),
        None => Ok(()),
    }
}

/// Selects the device `name` and, unless `quiet`, prints its name on stderr. If `auto` leaves a GPU unused, also
/// prints, once per process, a hint on how to build for it.
///
/// # Errors
/// If there is no such device.
pub fn select_device(name: &str, quiet: bool) -> Result<NamedDevice> {
    select_numbered_device(name, 0, quiet)
}

/// Selects a device as [`select_device`] does, but the GPU with this number, from 0.
///
/// # Errors
/// If there is no such device.
pub fn select_numbered_device(name: &str, number: usize, quiet: bool) -> Result<NamedDevice> {
    static HINT: Once = Once::new();
    let device = device::select_number(name, number).map_err(|error| match error {
        Error::NotBuilt { feature } => Error::Device {
            name: feature.into(),
            reason: format!("not in this build; build with `--features {feature}`"),
        },
        other => other,
    })?;
    if !quiet {
        eprintln!("device: {device}");
        if name == "auto" && device::is_gpu_idle() {
            HINT.call_once(|| eprintln!("this machine appears to have a GPU; build with `--features wgpu` to use it"));
        }
    }
    Ok(device)
}
