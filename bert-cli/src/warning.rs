//! Warnings on stderr.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether another process of this run prints the same warnings.
static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// Suppresses all warnings of this process.
pub fn silence() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Prints a warning on stderr.
pub fn warn(message: impl Display) {
    if !IS_SILENT.load(Ordering::Relaxed) {
        eprintln!("warning: {message}");
    }
}

static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Prints a warning on stderr unless it has been printed before: a file may be read more than once in a run.
pub fn warn_once(message: impl Into<String>) {
    let message = message.into();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.contains(&message) {
        warn(&message);
        told.insert(message);
    }
}
