//! Fail points: places where tests make the program crash.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Aborts the process, without flushing or cleaning up, when `place` is reached for the N-th time and the environment
/// variable `BERT_FAIL_POINT` is `N:PLACE`. Does nothing in builds without debug assertions (the dev profile has them).
pub fn fail_point(place: &str) {
    static REACHED: AtomicUsize = AtomicUsize::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let variable = std::env::var("BERT_FAIL_POINT").ok();
    let fail_point = variable.as_deref().and_then(|value| value.split_once(':'));
    let Some((times, _)) = fail_point.filter(|(_, name)| *name == place) else { return };
    if REACHED.fetch_add(1, Ordering::Relaxed) + 1 == times.parse().unwrap_or(1) {
        std::process::abort();
    }
}
