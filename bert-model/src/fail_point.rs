//! Places at which a test lets the program die.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Dies here, as of `kill -9`, if the environment says `BERT_FAIL_POINT=N:PLACE` and the program is at this place for the
/// N-th time: nothing is flushed or cleaned up. Only with debug assertions, as the dev profile has them.
pub fn fail_point(place: &str) {
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let asked = std::env::var("BERT_FAIL_POINT").ok();
    let Some((times, _)) = asked.as_deref().and_then(|asked| asked.split_once(':')).filter(|(_, at)| *at == place)
    else {
        return;
    };
    if TIMES.fetch_add(1, Ordering::Relaxed) + 1 == times.parse().unwrap_or(1) {
        std::process::abort();
    }
}
