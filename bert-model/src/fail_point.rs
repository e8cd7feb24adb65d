//! Fail points: places where tests make the program crash.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Aborts the process, without flushing or cleaning up, when `place` is reached for the N-th time and the environment
/// variable `BERT_FAIL_POINT` is `N:PLACE`. With `N:PLACE:panic`, panics instead; with `N:PLACE:MILLISECONDS`, waits,
/// from the N-th time on. Does nothing in builds without debug assertions (the dev profile has them).
#[allow(clippy::panic, reason = "this is what the test asks for")]
pub fn fail_point(place: &str) {
    static REACHED: AtomicUsize = AtomicUsize::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let variable = std::env::var("BERT_FAIL_POINT").ok();
    let fail_point = variable.as_deref().and_then(|value| value.split_once(':'));
    let Some((times, rest)) = fail_point else { return };
    let (name, action) = rest.split_once(':').unwrap_or((rest, ""));
    if name != place {
        return;
    }
    let (reached, times) = (REACHED.fetch_add(1, Ordering::Relaxed) + 1, times.parse().unwrap_or(1));
    match action.parse() {
        Ok(milliseconds) if reached >= times => std::thread::sleep(Duration::from_millis(milliseconds)),
        Err(_) if reached == times && action == "panic" => panic!("fail point {place}"),
        Err(_) if reached == times => std::process::abort(),
        _ => {}
    }
}
