//! Keeps freed memory in the process. A training step frees and allocates the same large blocks over and over, and page
//! faults on fresh memory take a third of the time of a matrix product. All programs use mimalloc, configured never to
//! return memory to the system from then on.

#![allow(unsafe_code, reason = "sets an option of mimalloc, a C library")]

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// The number of mimalloc's option `mi_option_purge_delay`, which the Rust bindings do not expose by name.
const PURGE_DELAY: mi_option_t = 15;

/// Returns the memory that is free now to the system, and keeps what is freed later in the process until it exits.
pub fn keep_memory() {
    // SAFETY: mimalloc allows both on any thread at any time; the second writes a number to a static table.
    unsafe {
        mi_collect(true);
        mi_option_set(PURGE_DELAY, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_has_the_expected_number() {
        // SAFETY: reads a number from a static table.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // The default in milliseconds is 10 in mimalloc 2 and 1000 in mimalloc 3. The neighboring
        // options are flags, 0 or 1.
        assert!([10, 1000].contains(&delay()), "{}", delay());
        keep_memory();
        assert_eq!(delay(), -1);
    }
}
