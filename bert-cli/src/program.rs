//! What both programs do at their edges: results on standard output, errors as one line, exit codes.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Once;

use bert_model::device::{self, NamedDevice};
use bert_model::{Error, Result};

/// What errors call standard output.
pub const STDOUT: &str = "standard output";

/// Turns what a command came to into the exit code; an error becomes one line on stderr.
pub fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        // Whoever read our output has had enough: `bert-finetune predict … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            // As clap ends for what it finds wrong itself.
            let is_usage = matches!(error.downcast_ref(), Some(Error::Usage(_)));
            if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// What went wrong and why, outermost first. An [`Error::Io`] tells its source in its own words.
fn one_line(error: &anyhow::Error) -> String {
    let is_io = |error: &(dyn std::error::Error + 'static)| matches!(error.downcast_ref(), Some(Error::Io { .. }));
    let told = error.chain().position(is_io).map_or(usize::MAX, |io| io + 1);
    error.chain().take(told).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe)
}

/// Writes a line of a result to standard output.
///
/// # Errors
/// If nobody takes it (a closed pipe, a full disk); `println!` would panic.
pub fn print_line(line: impl Display) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(Error::io(STDOUT, "write"))
}

/// The device that a command was given, named on stderr unless it is to be `quiet`; once, what a GPU would need if `auto`
/// has to leave it idle.
///
/// # Errors
/// If there is no such device.
pub fn select_device(name: &str, quiet: bool) -> Result<NamedDevice> {
    static HINT: Once = Once::new();
    let device = device::select(name).map_err(|error| match error {
        Error::NotBuilt { feature } => Error::Device {
            name: feature.into(),
            reason: format!("not in this build; build with `--features {feature}`"),
        },
        other => other,
    })?;
    if !quiet {
        eprintln!("device: {}", device.name);
        if name == "auto" && device::is_gpu_idle() {
            HINT.call_once(|| eprintln!("this machine seems to have a GPU; to use it, build with `--features wgpu`"));
        }
    }
    Ok(device)
}
