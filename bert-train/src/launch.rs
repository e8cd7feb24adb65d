//! How a program was started: alone, or by mpirun or srun as one of several processes.

use std::time::Duration;

use bert_model::{Error, Result};

use super::communicator::{Communicator, Failure, Solo};
use super::cores;

/// How long other processes wait for the first one to report an error.
const HEAD_START: Duration = Duration::from_secs(1);

/// Variables with the number of this process, set by Open MPI's mpirun, MPICH's, and srun.
const RANKS: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"];

/// Variables with the number of processes that mpirun has started.
const MPIRUN_SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Variables with the number of tasks of a Slurm job.
const SLURM_SIZES: [&str; 2] = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"];

fn number(variable: &&str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The number of this process according to its launcher; 0 without one.
pub fn launched_rank() -> usize {
    RANKS.iter().find_map(number).unwrap_or(0)
}

fn launched_size(variables: &[&str]) -> usize {
    variables.iter().filter_map(number).max().unwrap_or(1)
}

/// Refuses to run several processes of a command other than training: they would know nothing of each other.
///
/// # Errors
/// If mpirun has started several processes.
pub fn refuse_ranks() -> Result<()> {
    match launched_size(&MPIRUN_SIZES) {
        0 | 1 => Ok(()),
        size => Err(Error::Usage(format!(
            "mpirun has started {size} processes of a command that runs in one; only `train` runs in several"
        ))),
    }
}

/// Makes an error that all processes have, or that another one reports, silent except on the first. `code` returns its
/// exit code.
///
/// # Errors
/// If `outcome` is an error.
pub fn told_once<T, E: From<Error>>(outcome: Result<T, E>, code: impl Fn(&E) -> u8) -> Result<T, E> {
    match outcome {
        Err(error) if launched_rank() > 0 => {
            wait_for_first();
            Err(Error::OtherRank { code: code(&error) }.into())
        }
        outcome => outcome,
    }
}

/// Gives the first process time to report an error that all have: launchers kill all processes as soon as one has ended
/// with an error.
pub fn wait_for_first() {
    std::thread::sleep(HEAD_START);
}

/// Runs `work` in this process and, if mpirun or srun has started several, in all of them together. If one of them
/// fails or panics, all end, with one message that names it.
///
/// # Errors
/// The error of `work`; or if there are several processes that cannot communicate, because this build lacks the feature
/// `mpi` or does not fit the launcher.
pub fn on_ranks<T, E: From<Error>>(
    work: impl FnOnce(&dyn Communicator) -> Result<T, E>,
    describe: impl Fn(&E) -> Failure,
) -> Result<T, E> {
    let size = launched_size(&MPIRUN_SIZES).max(launched_size(&SLURM_SIZES));
    if size > 1 {
        return start(size, work, describe);
    }
    if cores::own() < cores::of_machine() {
        eprintln!("warning: {}", cores::advice(cores::own(), cores::of_machine()));
    }
    work(&Solo)
}

#[cfg(feature = "mpi")]
use super::mpi::start;

#[cfg(not(feature = "mpi"))]
fn start<T, E: From<Error>>(
    size: usize,
    _work: impl FnOnce(&dyn Communicator) -> Result<T, E>,
    _describe: impl Fn(&E) -> Failure,
) -> Result<T, E> {
    Err(Error::Usage(format!(
        "started as one of {size} processes by mpirun or srun, but this build trains in a single one; build with \
         `--features mpi`, or start a single process"
    ))
    .into())
}
