//! Shows the progress of work on many texts on stderr: share, rate and time left.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bert_train::Progress;

/// Minimum time before the first line and between two lines when stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A progress display that any thread can update. Without a terminal, work of a few seconds shows nothing.
#[derive(Debug)]
pub struct Meter {
    state: Mutex<State>,
    total: Option<u64>,
    started: Instant,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    done: u64,
    shown: Instant,
}

impl Meter {
    /// Creates a display for the activity `what` ("embedding", …) on `total` texts, if their number is known.
    pub fn new(what: &str, total: Option<u64>, quiet: bool) -> Self {
        let started = Instant::now();
        let state = State { progress: Progress::new(what, total, 0, quiet), done: 0, shown: started };
        Self { state: Mutex::new(state), total, started }
    }

    /// Adds to the number of finished texts.
    pub fn add(&self, texts: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += texts;
        if std::io::stderr().is_terminal() || state.shown.elapsed() >= LINE_EVERY {
            let message = message(state.done, self.total, self.started.elapsed());
            let done = state.done;
            state.progress.update(done, &message);
            state.shown = Instant::now();
        }
    }

    /// Removes the display.
    pub fn finish(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).progress.finish();
    }
}

/// Formats share and rate as "texts (10 %), 89 texts/s,"; the time left follows the comma.
fn message(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    match total {
        Some(total) => format!("texts ({:.0} %), {rate:.0} texts/s,", 100.0 * done as f64 / total.max(1) as f64),
        None => format!("texts, {rate:.0} texts/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_and_rate_are_told_as_far_as_they_are_known() {
        let elapsed = Duration::from_secs(4);
        assert_eq!(message(500, Some(5000), elapsed), "texts (10 %), 125 texts/s,");
        assert_eq!(message(500, None, elapsed), "texts, 125 texts/s");
        assert_eq!(message(0, Some(0), Duration::ZERO), "texts (0 %), 0 texts/s,");
    }
}
