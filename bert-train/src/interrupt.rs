//! SIGINT and SIGTERM: while a run learns, the first asks it to save and stop at the end of the step, and a second one leaves
//! at once; at any other time, with nothing to be saved, the first does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bert_model::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether somebody asked us to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    /// Whether a signal ends the program there and then.
    at_once: Arc<AtomicBool>,
}

impl Interrupt {
    /// One that no signal reaches, for runs inside another program.
    pub fn never() -> Self {
        Self::default()
    }

    /// Listens for SIGINT and SIGTERM from now on; they end the program with exit code 130 or 143.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn listen() -> Result<Self> {
        let interrupt = Self { at_once: Arc::new(AtomicBool::new(true)), ..Self::default() };
        for signal in [SIGINT, SIGTERM] {
            let register = || {
                // The order matters: the shutdown looks at the flag before this signal sets it.
                flag::register_conditional_shutdown(signal, exit_code(signal), interrupt.at_once.clone())?;
                flag::register(signal, interrupt.at_once.clone())?;
                flag::register_usize(signal, interrupt.signal.clone(), signal as usize)
            };
            register().map_err(|error| Error::Setting(format!("cannot listen for signals: {error}")))?;
        }
        Ok(interrupt)
    }

    /// Until what this gives is dropped, the first signal is left to [`Interrupt::requested`]; after it, a signal ends the
    /// program at once.
    #[must_use]
    pub fn defer(&self) -> InterruptGuard<'_> {
        self.at_once.store(false, Ordering::Relaxed);
        InterruptGuard(&self.at_once)
    }

    /// The exit code that the signal asks for (130 or 143), if one came.
    pub fn requested(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(exit_code(signal as i32)),
        }
    }
}

/// While there is this, a signal waits to be asked for; see [`Interrupt::defer`].
#[derive(Debug)]
pub struct InterruptGuard<'a>(&'a AtomicBool);

impl Drop for InterruptGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// 128 + the signal's number, as shells have it.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}
