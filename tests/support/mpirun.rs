//! Running a program (`PROGRAM` of the test that includes this file) on several ranks.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Stdio};

use super::{PROGRAM, program};

/// Whether there is an mpirun; otherwise says so.
pub fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: this machine has no mpirun");
    }
    found
}

/// The start of a command: mpirun, which may start more ranks than there are cores, and does not bind them.
pub fn mpirun(directory: &Path) -> Command {
    let mut command = Command::new("mpirun");
    command.current_dir(directory).env("HF_HUB_OFFLINE", "1");
    // Open MPI's; the variables mean nothing to others.
    for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"] {
        command.env(name, "1");
    }
    command.env("OMPI_MCA_hwloc_base_binding_policy", "none");
    command
}

/// The command that runs the program on this many ranks.
pub fn on_ranks(ranks: usize, line: &str, directory: &Path) -> Command {
    let mut command = mpirun(directory);
    command.args(["-n", &ranks.to_string(), PROGRAM]).args(program::args(line));
    command
}

/// Runs on several ranks what should succeed; gives stdout.
pub fn succeed_on(ranks: usize, line: &str, directory: &Path) -> String {
    program::success(&on_ranks(ranks, line, directory).output().unwrap())
}
