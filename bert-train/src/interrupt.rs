//! During training, the first SIGINT or SIGTERM checkpoints and stops after the current step; a
//! second one, or any signal outside training, exits immediately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bert_model::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Records SIGINT and SIGTERM, or lets them end the program.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    /// Whether the next signal ends the program immediately.
    at_once: Arc<AtomicBool>,
}

impl Interrupt {
    /// An interrupt that never occurs, for runs embedded in another program.
    pub fn never() -> Self {
        Self::default()
    }

    /// Installs handlers for SIGINT and SIGTERM, which end the program with exit code 130 or 143.
    ///
    /// # Errors
    /// If the system refuses to install the handlers.
    pub fn listen() -> Result<Self> {
        let interrupt = Self { at_once: Arc::new(AtomicBool::new(true)), ..Self::default() };
        for signal in [SIGINT, SIGTERM] {
            let register = || {
                // The order matters: the shutdown must check the flag before this signal sets it.
                flag::register_conditional_shutdown(signal, exit_code(signal), interrupt.at_once.clone())?;
                flag::register(signal, interrupt.at_once.clone())?;
                flag::register_usize(signal, interrupt.signal.clone(), signal as usize)
            };
            register().map_err(|error| Error::Setting(format!("cannot listen for signals: {error}")))?;
        }
        Ok(interrupt)
    }

    /// While the returned guard lives, the first signal is only recorded, for
    /// [`Interrupt::requested`]; a second one still ends the program immediately.
    #[must_use]
    pub fn defer(&self) -> InterruptGuard<'_> {
        self.at_once.store(false, Ordering::Relaxed);
        InterruptGuard(&self.at_once)
    }

    /// The exit code of the recorded signal (130 or 143), if there was one.
    pub fn requested(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(exit_code(signal as i32)),
        }
    }
}

/// Defers the first signal while it lives; see [`Interrupt::defer`].
#[derive(Debug)]
pub struct InterruptGuard<'a>(&'a AtomicBool);

impl Drop for InterruptGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// 128 + the signal's number, the shells' convention.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}
