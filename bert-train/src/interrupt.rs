//! Signal handling: during training, the first SIGINT, SIGTERM or SIGUSR1 saves a checkpoint and stops after the
//! current step; a later one, or any signal outside training, exits immediately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bert_model::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Signals this soon after the first one count as the same. GNU `timeout` and some schedulers signal both the process
/// and its group, and keys repeat.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Interval between checks for a signal.
const POLL: Duration = Duration::from_millis(10);

/// The signals that end a run. Slurm sends SIGUSR1 at a chosen time before the end of a job, and Open MPI's mpirun
/// forwards it without killing the ranks a second later, as after SIGTERM.
#[cfg(unix)]
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, signal_hook::consts::SIGUSR1];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// Records the signals that end a run, or lets them end the program.
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

    /// Installs handlers for SIGINT, SIGTERM and SIGUSR1, which end the program with exit code 130, 143 or 138.
    ///
    /// # Errors
    /// If the system refuses to install the handlers.
    pub fn listen() -> Result<Self> {
        let interrupt = Self { at_once: Arc::new(AtomicBool::new(true)), ..Self::default() };
        for signal in SIGNALS {
            let register = || {
                flag::register_conditional_shutdown(signal, exit_code(signal), interrupt.at_once.clone())?;
                flag::register_usize(signal, interrupt.signal.clone(), signal as usize)
            };
            register().map_err(|error| Error::Setting(format!("cannot listen for signals: {error}")))?;
        }
        Ok(interrupt)
    }

    /// While the returned guard exists, the first signal is only recorded for [`Interrupt::requested`], and `say` is
    /// called with a message about it for the user. A later signal ends the program immediately.
    #[must_use]
    pub fn defer(&self, say: impl Fn(&str) + Send + Sync + 'static) -> InterruptGuard {
        self.at_once.store(false, Ordering::Relaxed);
        let announcement = Arc::new(Announcement { is_made: AtomicBool::new(false), say: Box::new(say) });
        let guard = InterruptGuard { at_once: self.at_once.clone(), ended: Arc::default(), announcement };
        let (interrupt, ended, announcement) = (self.clone(), guard.ended.clone(), guard.announcement.clone());
        // Without this thread, the first signal still saves and stops; only a second one is then ignored.
        let _ = thread::Builder::new().spawn(move || interrupt.watch(&ended, &announcement));
        guard
    }

    /// Waits for the first signal, announces its effect, and shortly afterwards arms the immediate exit.
    fn watch(&self, ended: &AtomicBool, announcement: &Announcement) {
        let mut first: Option<Instant> = None;
        while !ended.load(Ordering::Relaxed) {
            match first {
                None if self.requested().is_some() => {
                    first = Some(Instant::now());
                    announcement.announce();
                }
                Some(first) if first.elapsed() >= SAME_SIGNAL => {
                    self.at_once.store(true, Ordering::Relaxed);
                    return;
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// The exit code of the recorded signal (128 plus its number), if there was one.
    pub fn requested(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(exit_code(signal as i32)),
        }
    }
}

/// Tells the user, once, about the effect of the first signal.
struct Announcement {
    is_made: AtomicBool,
    say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Announcement {
    fn announce(&self) {
        if !self.is_made.swap(true, Ordering::Relaxed) {
            (self.say)("saving and stopping after this step; interrupt again to quit without saving");
        }
    }
}

/// Defers the first signal while it exists; see [`Interrupt::defer`].
pub struct InterruptGuard {
    at_once: Arc<AtomicBool>,
    /// Tells the watching thread to end.
    ended: Arc<AtomicBool>,
    announcement: Arc<Announcement>,
}

impl InterruptGuard {
    /// Tells the user about the recorded signal now, unless that has already happened.
    pub fn announce(&self) {
        self.announcement.announce();
    }
}

impl Drop for InterruptGuard {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.at_once.store(true, Ordering::Relaxed);
    }
}

/// 128 plus the signal's number, by the convention of shells.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}
