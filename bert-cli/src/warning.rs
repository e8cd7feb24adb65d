//! Warnings on stderr.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Prints a warning on stderr unless it has been printed before: a file may be read more than once in a run.
pub fn warn_once(message: impl Into<String>) {
    let message = message.into();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.contains(&message) {
        eprintln!("warning: {message}");
        told.insert(message);
    }
}
