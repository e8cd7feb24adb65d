//! The learning-rate schedule (paper, appendix A.2): linear warmup from 0, then decay to 0.
//!
//! The curve is continuous, as in transformers; Google's `optimization.py` drops slightly at the
//! end of warmup.

use std::f64::consts::PI;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The shape of the schedule after warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Linear to 0 at the last step.
    Linear,
    /// Half a cosine to 0 at the last step.
    Cosine,
    /// Constant.
    Constant,
}

impl FromStr for Decay {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            "constant" => Ok(Self::Constant),
            _ => Err(format!("unknown schedule `{name}`, expected linear, cosine or constant")),
        }
    }
}

/// A learning-rate schedule: linear warmup, then decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Peak learning rate, reached at the end of warmup.
    pub peak: f64,
    /// Number of warmup steps.
    pub warmup: u64,
    /// Number of steps of the whole run.
    pub steps: u64,
    /// The shape after warmup.
    pub decay: Decay,
}

impl Schedule {
    /// The learning rate of a step, counted from 0.
    ///
    /// ```
    /// use bert_train::{Decay, Schedule};
    /// let schedule = Schedule { peak: 1e-4, warmup: 10, steps: 110, decay: Decay::Linear };
    /// assert_eq!(schedule.learning_rate(5), 0.5e-4);
    /// assert_eq!(schedule.learning_rate(10), 1e-4);
    /// assert!((schedule.learning_rate(60) - 0.5e-4).abs() < 1e-12);
    /// ```
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let progress = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        let share = match self.decay {
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            Decay::Constant => 1.0,
        };
        self.peak * share.max(0.0)
    }

    /// The number of warmup steps: a `warmup` below 1 is a fraction of all steps, otherwise a number of steps.
    pub fn warmup_steps(warmup: f64, steps: u64) -> u64 {
        if warmup < 1.0 { (warmup * steps as f64).round() as u64 } else { warmup as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decay_ends_where_it_should() {
        let at = |decay, step| Schedule { peak: 2.0, warmup: 0, steps: 100, decay }.learning_rate(step);
        assert_eq!((at(Decay::Linear, 0), at(Decay::Linear, 100)), (2.0, 0.0));
        assert_eq!((at(Decay::Cosine, 0), at(Decay::Cosine, 100)), (2.0, 0.0));
        assert!((at(Decay::Cosine, 50) - 1.0).abs() < 1e-12);
        assert_eq!(at(Decay::Constant, 99), 2.0);
        assert_eq!(at(Decay::Linear, 1000), 0.0);
    }

    #[test]
    fn warmup_is_a_share_or_a_number() {
        assert_eq!(Schedule::warmup_steps(0.1, 200), 20);
        assert_eq!(Schedule::warmup_steps(15.0, 200), 15);
    }
}
