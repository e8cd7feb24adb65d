//! The cores of a machine, and how they are shared by the ranks on it.

use std::fs;
use std::thread::available_parallelism;

use bert_model::{Error, Result, Workers};
use burn::tensor::Device;

use super::communicator::Communicator;

/// Variables with the number of processes that a launcher has started together: Open MPI's mpirun, MPICH's, srun.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Whether mpirun or srun has started this process.
fn is_launched() -> bool {
    SIZES.iter().any(|name| std::env::var_os(name).is_some())
}

/// The number of cores that this process may use.
pub fn own() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// The number of cores of this machine that the processes of a launcher may use together. A launcher binds each to some
/// of them, even a single process to a single core.
pub fn of_machine() -> usize {
    if !is_launched() {
        return own();
    }
    let by_slurm = std::env::var("SLURM_CPUS_ON_NODE").ok().and_then(|count| count.parse().ok());
    let by_parent = || fs::read_to_string(format!("/proc/{}/status", parent()?)).ok().and_then(|text| allowed(&text));
    by_slurm.or_else(by_parent).unwrap_or(1).max(own())
}

/// The process that has started this one.
fn parent() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The number of cores that a process may use, from its `/proc/N/status`.
fn allowed(status: &str) -> Option<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    };
    list.trim().split(',').map(count).sum()
}

/// Advice for a process that is bound to `own` of its `share` of the cores.
pub fn advice(own: usize, share: usize) -> String {
    format!(
        "bound to {own} of {share} cores; start with `mpirun --bind-to none --map-by ppr:1:node`, or with `srun -c {share}`, to \
         use all"
    )
}

/// The number of parts for the micro-batches of a new run: one for each core of the machine, on a GPU a single one, but
/// at least as many as it takes to give every rank one of the `micro_batches`' parts, which a line on stderr reports
/// unless `quiet`.
pub fn parts(device: &Device, micro_batches: usize, communicator: &dyn Communicator, quiet: bool) -> usize {
    let cores = if is_cpu(device) { of_machine() } else { 1 };
    let ranks = communicator.size();
    let needed = ranks.div_ceil(micro_batches.max(1));
    if needed > cores && communicator.is_first() && !quiet {
        eprintln!(
            "{ranks} ranks share a step of {micro_batches} micro-batch(es): each is split into {needed} parts, not {cores}, \
             so the last digits differ from a run in one process"
        );
    }
    cores.max(needed)
}

/// Checks that every rank has something to compute in a step of `micro_batches`, each of `examples` in `parts` parts.
///
/// # Errors
/// If there are more ranks than parts of a step.
pub fn check_ranks(
    parts: Option<usize>,
    micro_batches: usize,
    examples: usize,
    communicator: &dyn Communicator,
) -> Result<()> {
    let ranks = communicator.size();
    let parts = match parts {
        Some(parts) => parts,
        None if ranks == 1 => return Ok(()),
        None => {
            let message = "this run was started without ranks, by an earlier version; resume it in one process";
            return Err(Error::Usage(message.into()));
        }
    };
    let shards = micro_batches * parts.min(examples);
    match ranks <= shards {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{ranks} ranks cannot share a step of {micro_batches} micro-batch(es) of {examples} example(s) in at most \
             {parts} part(s); start at most {shards}, or a new run with a larger --batch-size"
        ))),
    }
}

/// The workers of a training process: as many as its share of the machine's cores or, if the `parts` of a micro-batch
/// are `joint`, as many as there are of them.
///
/// # Errors
/// If the threads cannot be started.
pub fn workers(device: &Device, joint_parts: Option<usize>, communicator: &dyn Communicator) -> Result<Workers> {
    let share = (of_machine() / communicator.local_size()).max(1);
    Workers::new(device, own().min(share).max(joint_parts.unwrap_or(1)))
}

fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Solo;

    #[test]
    fn a_list_of_cores_is_counted() {
        let count = |list: &str| allowed(&format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{list}\n"));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-1"), Some(2));
        assert_eq!(count("0,2-4,7"), Some(5));
        assert_eq!(count("4-2"), None);
        assert_eq!(count("x"), None);
        assert_eq!(allowed(""), None);
        if cfg!(target_os = "linux") {
            assert!(allowed(&fs::read_to_string("/proc/self/status").unwrap()).is_some());
        }
    }

    #[test]
    fn a_run_of_one_process_has_a_part_for_each_core() {
        assert_eq!(parts(&Device::flex(), 1, &Solo, true), own());
        assert_eq!(workers(&Device::flex(), None, &Solo).unwrap().count(), own());
        assert_eq!(workers(&Device::flex(), Some(own() + 3), &Solo).unwrap().count(), own() + 3);
    }
}
