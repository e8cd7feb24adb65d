//! Sums gradients and losses over the processes of a run. Currently there is only one process.

use bert_model::Result;

use super::gradients::GradientSum;
use super::objective::LossSum;

/// Communication between the processes ("ranks") of a run, which take every step together.
pub trait Communicator: Sync {
    /// Rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Sums the gradients and losses of all processes in a fixed order. Afterwards, every process has the sums.
    ///
    /// # Errors
    /// If another process has failed.
    fn all_reduce(&self, gradients: &mut GradientSum, losses: &mut LossSum) -> Result<()>;
}

/// A run of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _gradients: &mut GradientSum, _losses: &mut LossSum) -> Result<()> {
        Ok(())
    }
}
