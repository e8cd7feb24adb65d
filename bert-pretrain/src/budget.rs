//! `--budget`: the time that a run may take.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The units of a budget with their lengths in seconds, longest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// The time that a run may take, from its start to its model directory; at least a second.
///
/// ```
/// use bert_pretrain::budget::Budget;
///
/// let budget: Budget = "1h30m".parse().unwrap();
/// assert_eq!((budget.time().as_secs(), budget.to_string()), (5400, "1h30m".to_string()));
/// assert!("90".parse::<Budget>().unwrap_err().contains("expected a number with a unit"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Budget {
    seconds: u64,
}

impl Budget {
    /// The budget as a duration.
    pub fn time(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl FromStr for Budget {
    type Err = String;

    /// Parses numbers with units, such as `90m`, `1h30m` or `0.5d`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("found {text:?}, expected a number with a unit, such as 90m, 1h or 3d");
        let (mut rest, mut seconds) = (text.trim(), 0.0);
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).ok_or_else(bad)?;
            let (number, after) = rest.split_at(digits);
            let unit = after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit);
            let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?;
            seconds += number.parse::<f64>().map_err(|_| bad())? * length as f64;
            rest = after.trim_start();
        }
        // Ten years: more is taken for a typo.
        match (1.0..3.2e8).contains(&seconds) {
            true => Ok(Self { seconds: seconds.round() as u64 }),
            false => Err(format!("found {text:?}, expected at least a second and at most ten years")),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.seconds;
        for (unit, length) in UNITS {
            if rest >= length {
                write!(formatter, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Budget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_and_written_in_days_hours_minutes_and_seconds() {
        for (text, seconds, written) in [
            ("1h", 3600, "1h"),
            ("90m", 5400, "1h30m"),
            ("3d", 259_200, "3d"),
            ("10m", 600, "10m"),
            ("1d 2h 3m 4s", 93_784, "1d2h3m4s"),
            ("0.5h", 1800, "30m"),
            ("45s", 45, "45s"),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!((budget.seconds, budget.to_string()), (seconds, written.to_string()), "{text}");
            let json = serde_json::to_string(&budget).unwrap();
            assert_eq!((json.clone(), serde_json::from_str(&json).unwrap()), (format!("\"{written}\""), budget));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "0m", "90", "h", "1w", "-1h", "1h-", "1..5h", "1e9d", "0.1s", "an hour", "1h 30"] {
            let message = text.parse::<Budget>().unwrap_err();
            assert!(message.starts_with(&format!("found {text:?}, expected")), "{message}");
        }
    }
}
