//! Numbers too small for a full mantissa make a processor's arithmetic many times slower: one matrix product with them took
//! ten times as long. They are noise here, so the worker threads take them for 0, in what they read and what they write.

/// From now on this thread takes denormal numbers for 0, where its processor can be told so (x86-64, AArch64).
pub(crate) fn flush() {
    #[cfg(target_arch = "x86_64")]
    {
        /// "Flush to zero" and "denormals are zero" of the MXCSR register.
        const FLUSH: u32 = (1 << 15) | (1 << 6);
        let mut control = 0_u32;
        // SAFETY: both instructions only move the control register, to and from a variable of its size. SSE is part of
        // every x86-64. Rust asks that this register be left alone, since compilers compute constants in the default
        // mode; beyond denormals nothing differs in this one, and either result is good for the worker threads, all of whose
        // life is spent in it.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut control, options(nostack));
            control |= FLUSH;
            std::arch::asm!("ldmxcsr [{}]", in(reg) &control, options(nostack));
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        /// "Flush to zero" of the FPCR register.
        const FLUSH: u64 = 1 << 24;
        let mut control: u64;
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("mrs {}, fpcr", out(reg) control);
            control |= FLUSH;
            std::arch::asm!("msr fpcr, {}", in(reg) control);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn denormals_become_zero_in_the_thread_that_asks_for_it() {
        let halved = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
        assert!(halved() > 0.0);
        let flushed = std::thread::spawn(move || {
            super::flush();
            halved()
        });
        assert_eq!(flushed.join().unwrap(), 0.0);
        assert!(halved() > 0.0);
    }
}
