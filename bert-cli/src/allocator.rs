//! Memory that is kept: a training step frees and takes the same large blocks again and again, and pages fresh from the
//! system cost a third of a matrix product. Both programs allocate with mimalloc and tell it to give nothing back.

#![allow(unsafe_code, reason = "an option of the allocator, which is C")]

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// The number of mimalloc's `mi_option_purge_delay`, which its Rust binding does not name.
const PURGE_DELAY: mi_option_t = 15;

/// Lets freed memory stay with the program for as long as it runs. To be called first in `main`.
pub fn keep_memory() {
    // SAFETY: sets a number in a static table of mimalloc; any thread may do so at any time.
    unsafe { mi_option_set(PURGE_DELAY, -1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_has_the_number_that_we_take_for_it() {
        // SAFETY: reads a number from a static table.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // Its default in milliseconds: 10 of mimalloc 2, 1000 of mimalloc 3. Its neighbors are switches, 0 and 1.
        assert!([10, 1000].contains(&delay()), "{}", delay());
        keep_memory();
        assert_eq!(delay(), -1);
    }
}
