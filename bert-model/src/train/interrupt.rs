//! SIGINT and SIGTERM: the first asks the run to save and stop at the end of the step, a second one leaves at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};

/// Whether somebody asked us to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// One that no signal reaches, for runs inside another program.
    pub fn never() -> Self {
        Self::default()
    }

    /// Listens for SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let register = || {
                // The order matters: the shutdown looks at the flag before this signal sets it.
                flag::register_conditional_shutdown(signal, exit_code(signal), second.clone())?;
                flag::register(signal, second.clone())?;
                flag::register_usize(signal, interrupt.signal.clone(), signal as usize)
            };
            register().map_err(|error| Error::Setting(format!("cannot listen for signals: {error}")))?;
        }
        Ok(interrupt)
    }

    /// The exit code that the signal asks for (130 or 143), if one came.
    pub fn requested(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(exit_code(signal as i32)),
        }
    }
}

/// 128 + the signal's number, as shells have it.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}
