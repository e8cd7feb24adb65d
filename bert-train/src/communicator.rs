//! How the processes of one run add up what each has computed from its share of a step. There is one process so far.

use bert_model::Result;

use super::gradients::GradientSum;
use super::objective::LossSum;

/// The processes ("ranks") of a run, which take every step together.
pub trait Communicator: Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn size(&self) -> usize;

    /// Adds up the gradients and losses of all processes, in an order that does not depend on who is faster; afterwards
    /// each process has the sums.
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
